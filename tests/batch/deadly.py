"""A reader of frames that one file brings down, as damaged videos do with decoders in C."""

import os

from pandacli.batch import frames_ahead
from pandacli.video import Clip, Frames

NAME = "deadly.mp4"


def read_fitted(clip: Clip, num_frames: int, canvas_side: int) -> Frames:
    """As `frames_ahead.read_fitted`, but of that file."""
    if clip.path.name == NAME:
        os._exit(11)
    return frames_ahead.read_fitted(clip, num_frames, canvas_side)
