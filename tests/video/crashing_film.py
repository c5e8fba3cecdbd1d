"""A `read_window` that crashes or hangs in certain windows, as in damaged films."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

from pandacli.video import film

CRASHES, HANGS = 2, 4  # seconds at which such windows start


def read_window(
    path: Path, num_frames: int, image_size: int, ranges: Sequence[film.Range]
) -> film.Window:
    """As `film.read_window`, except in those windows."""
    if ranges[0][0] == CRASHES:
        os._exit(11)
    if ranges[0][0] == HANGS:
        time.sleep(3600)
    return film.read_window(path, num_frames, image_size, ranges)
