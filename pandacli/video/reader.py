"""Exact frames: number *i* is the *i*-th that decodes, in the order in which they are shown."""

import logging
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pandacli.errors import ClipError
from pandacli.video.sources import Picture, Source, sources_for
from pandacli.video.stream import Stream, read_stream

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reading:
    """What came of decoding a stream.

    Attributes:
        ticks: Tick of each frame decoded, in order; None for frames without one.
        pictures: The frames asked for that were there, by number, uint8 `(H, W, 3)` RGB.
    """

    ticks: tuple[int | None, ...]
    pictures: dict[int, Picture]


def read_frames(path: str | os.PathLike[str], indices: Sequence[int]) -> NDArray[np.uint8]:
    """Frames of a video by number.

    Args:
        path: The video file.
        indices: Numbers of frames in presentation order, from 0; any order, repeats allowed.

    Returns:
        uint8 `(T, H, W, 3)`, RGB, upright, a frame for each index. For a frame past the last
        that decodes, that last one stands in, and a warning is logged.

    Raises:
        ClipError: The file cannot be used, or no frame in it decodes.
        ValueError: An index is negative, or there are none.
    """
    wanted = [int(index) for index in indices]
    if not wanted or min(wanted) < 0:
        raise ValueError("frames are numbered from 0, and at least one must be asked for")
    stream = read_stream(path)
    reading = decode(stream, set(wanted), to_end=False)
    return stack([reading.pictures[index] for index in wanted])


def decode(stream: Stream, wanted: Collection[int], *, to_end: bool) -> Reading:
    """Decode a stream from its first frame on, keeping the frames wanted."""
    best = Reading((), {})
    for source in sources_for(stream):
        reading = _walk(source, wanted, to_end=to_end)
        if len(reading.ticks) > len(best.ticks):
            best = reading
        if best.ticks:
            break
    if not best.ticks:
        raise ClipError(f"no frame of {stream.path} can be decoded", "the file may be damaged")
    return best


def _walk(source: Source, wanted: Collection[int], *, to_end: bool) -> Reading:
    last = max(wanted, default=-1)
    ticks: list[int | None] = []
    pictures: dict[int, Picture] = {}
    for number, tick in enumerate(source.walk()):
        ticks.append(tick)
        if number in wanted:
            pictures[number] = source.picture()
        if number >= last and not to_end:
            break
    return Reading(tuple(ticks), pictures)


def stack(pictures: Iterable[Picture]) -> NDArray[np.uint8]:
    """Pictures as one array `(T, H, W, 3)`."""
    return np.stack(list(pictures))
