"""A `read_limited` of worker processes in which the decoder hangs or crashes, by a file's name."""

import os
import signal
import time

from pandacli.server import media
from pandacli.video import Frames
from pandacli.video.clip import Clip

_read_limited = media.read_limited


def read_limited(clip: Clip, num_frames: int, image_size: int, limits: media.Limits) -> Frames:
    if clip.path.name.startswith("hanging"):
        time.sleep(3600)
    if clip.path.name.startswith("crashing"):
        os.kill(os.getpid(), signal.SIGSEGV)
    return _read_limited(clip, num_frames, image_size, limits)
