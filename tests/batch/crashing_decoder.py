"""A `read_fitted` that crashes, hangs or is killed on certain files, as on damaged videos."""

import os
import signal
import time
from typing import cast

from pandacli.video import Clip, Frames, prefetch

CRASHING = "crashing.mp4"
ENDLESS = "endless.mp4"
KILLED = "killed.mp4"
LARGE = "large.mp4"


def read_fitted(clip: Clip, num_frames: int, image_size: int) -> Frames:
    """As `prefetch.read_fitted`, except for those files."""
    if clip.path.name == CRASHING:
        os._exit(11)
    if clip.path.name == KILLED:
        os.kill(os.getpid(), signal.SIGKILL)
    if clip.path.name == LARGE:
        return cast(Frames, bytes(200 * 2**20))
    if clip.path.name == ENDLESS:
        time.sleep(3600)
    return prefetch.read_fitted(clip, num_frames, image_size)
