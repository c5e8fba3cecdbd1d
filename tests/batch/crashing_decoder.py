"""A reader of frames that one file brings down and another holds up, as damaged videos do."""

import os
import signal
import time
from typing import cast

from pandacli.batch import prefetch
from pandacli.video import Clip, Frames

NAME = "deadly.mp4"
ENDLESS = "endless.mp4"
KILLED = "killed.mp4"
LARGE = "large.mp4"


def read_fitted(clip: Clip, num_frames: int, canvas_side: int) -> Frames:
    """As `prefetch.read_fitted`, but of those files."""
    if clip.path.name == NAME:
        os._exit(11)
    if clip.path.name == KILLED:
        os.kill(os.getpid(), signal.SIGKILL)
    if clip.path.name == LARGE:
        return cast(Frames, bytes(200 * 2**20))
    if clip.path.name == ENDLESS:
        time.sleep(3600)
    return prefetch.read_fitted(clip, num_frames, canvas_side)
