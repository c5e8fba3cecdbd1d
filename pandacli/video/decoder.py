"""Exact frames: number *i* is the *i*-th frame that decodes, in presentation order.

Three strategies, the fastest first:

* keyframe seeking (`seeking`), for files whose timestamp index is right;
* for other long videos, seek to a margin before each frame and decode up to it; every frame on the
  way must be the one that the index announces;
* decode everything from the first frame on, which is exact by definition.

Pictures near damage depend on the number of threads and on chance, so where damage is found, they
come from a single-threaded decoder.
"""

import logging
import os
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pandacli.errors import ClipError
from pandacli.video.container import encrypted_error, is_scrambled
from pandacli.video.images import DoubtfulPictureError, Picture
from pandacli.video.seeking import seek_frames
from pandacli.video.sources import DamagedError, Source, sources_for
from pandacli.video.stream import Stream, read_stream

_log = logging.getLogger(__name__)

_SEQUENTIAL_PIXELS = 1e9
"""Up to this many pixels, some seconds of work, a video is decoded sequentially."""
_SEEK_MARGINS = (1.0, 5.0, 25.0)
"""Seconds before a frame to seek to; the next is tried when a seek lands too late."""
_CHECKED_HEAD = 32
"""Frames at the beginning that must match the index before seeking is trusted."""


@dataclass(frozen=True)
class Decoded:
    """The result of decoding a stream.

    Attributes:
        ticks: The tick of each frame up to where decoding stopped; None where it has none.
        pictures: The wanted frames that exist, by number, uint8 `(H, W, 3)` RGB.
        matches_index: Whether the frames are those of the index, numbered alike.
        damaged: Whether damage was found, so that pictures may look wrong.
        interlaced: Whether frames are known to be stored as two fields.
    """

    ticks: tuple[int | None, ...]
    pictures: dict[int, Picture]
    matches_index: bool = True
    damaged: bool = False
    interlaced: bool = False


def read_frames(path: str | os.PathLike[str], indices: Sequence[int]) -> NDArray[np.uint8]:
    """Frames of a video by number.

    Args:
        path: The video file.
        indices: Numbers of frames in presentation order, from 0; any order, repeats allowed.

    Returns:
        uint8 `(T, H, W, 3)`, RGB, upright, a frame for each index. Indices past the last frame
        that decodes give that frame, and a warning is logged.

    Raises:
        ClipError: The file cannot be used, or no frame in it decodes.
        ValueError: An index is negative, or there are none.
    """
    wanted = [int(index) for index in indices]
    if not wanted or min(wanted) < 0:
        raise ValueError("frames are numbered from 0, and at least one must be asked for")
    stream = read_stream(path)
    decoded = decode(stream, set(wanted), to_end=False)
    missing = {index for index in wanted if index not in decoded.pictures}
    if missing:
        last = len(decoded.ticks) - 1
        decoded = decode(
            stream,
            {*decoded.pictures, last},
            to_end=False,
            trust_index=decoded.matches_index,
        )
        _log.warning(
            "%r has no frame %s: frame %d stands in", os.fspath(path), _listed(missing), last
        )
        for index in missing:
            decoded.pictures[index] = decoded.pictures[last]
    return stack([decoded.pictures[index] for index in wanted])


def decode(
    stream: Stream, wanted: Collection[int], *, to_end: bool, trust_index: bool = True
) -> Decoded:
    """Decode the wanted frames, and the ticks of all frames.

    Args:
        stream: The stream.
        wanted: Frame numbers.
        to_end: Whether to find out about every frame to the last; otherwise decoding stops after
            the last one wanted, and ticks may be those of the index.
        trust_index: False if an earlier result did not match the index.

    Raises:
        ClipError: No frame can be decoded.
    """
    damaged = stream.damaged
    decoded = None
    fast, final = sources_for(stream)
    if trust_index:
        try:
            pictures = seek_frames(stream, wanted, to_end=to_end)
            if pictures is not None:
                return Decoded(stream.ticks, pictures)
            decoded = _decode_by_seeking(stream, final, wanted, to_end=to_end)
            decoded = decoded or _decode_all(stream, fast, wanted, to_end=to_end, trust_index=True)
        except DamagedError as error:
            damaged = damaged or not error.at_end
            decoded = _decode_by_seeking(stream, final, wanted, to_end=to_end)
    decoded = decoded or _decode_all(stream, final, wanted, to_end=to_end, trust_index=False)
    if decoded is None:
        if is_scrambled(stream.path):
            raise encrypted_error(stream.path)
        raise ClipError(f"no frame of {stream.path} can be decoded", "the file may be damaged")
    return replace(
        decoded,
        damaged=damaged or final.damaged,
        interlaced=stream.interlaced or fast.interlaced or final.interlaced,
    )


def _decode_all(
    stream: Stream, source: Source, wanted: Collection[int], *, to_end: bool, trust_index: bool
) -> Decoded | None:
    """Decode from the first frame on.

    Returns:
        None if no frame decodes, or if `trust_index` is set and the frames do not match the index.
    """
    last = max(wanted, default=-1)
    ticks: list[int | None] = []
    pictures: dict[int, Picture] = {}
    for number, tick in enumerate(source.ticks()):
        if trust_index and stream.ticks and stream.ticks[number : number + 1] != (tick,):
            return None
        ticks.append(tick)
        if number in wanted:
            try:
                pictures[number] = source.picture()
            except DoubtfulPictureError:
                if trust_index:
                    return None
                ticks.pop()
                break
        if number >= last and not to_end:
            return Decoded(tuple(ticks), pictures, trust_index)
    if not ticks or (trust_index and len(ticks) != stream.packet_count):
        return None
    return Decoded(tuple(ticks), pictures, trust_index)


def _decode_by_seeking(
    stream: Stream, source: Source, wanted: Collection[int], *, to_end: bool
) -> Decoded | None:
    """Seek to each wanted frame; None if that is not faster, or does not match the index."""
    ticks = stream.ticks
    if not ticks or not _is_seeking_faster(stream, wanted, to_end=to_end):
        return None
    if tuple(islice(source.ticks(), _CHECKED_HEAD)) != ticks[:_CHECKED_HEAD]:
        return None
    if to_end or max(wanted, default=0) >= len(ticks):
        count = _count_frames(stream, source)
        if count is None:
            return None
        ticks = ticks[:count]
    stream = replace(stream, ticks=ticks)
    existing = sorted(number for number in wanted if number < len(ticks))
    pictures = _pictures_by_seeking(stream, source, existing)
    return Decoded(ticks, pictures) if len(pictures) == len(existing) else None


def _is_seeking_faster(stream: Stream, wanted: Collection[int], *, to_end: bool) -> bool:
    """Whether sequential decoding takes long, and seeking decodes less than half the frames."""
    count = len(stream.ticks)
    sequential = count if to_end else min(count, max(wanted, default=0) + 1)
    if sequential * stream.width * stream.height <= _SEQUENTIAL_PIXELS:
        return False
    by_seeking = _CHECKED_HEAD
    for number in {*wanted, count - 1} if to_end else wanted:
        number = min(number, count - 1)
        start = _start_tick(stream, number, _SEEK_MARGINS[0])
        keys_before = 0 if start is None else bisect_right(stream.key_ticks, start)
        key = stream.key_ticks[keys_before - 1] if keys_before else stream.ticks[0]
        by_seeking += number - bisect_right(stream.ticks, key) + 2
    return 2 * by_seeking < sequential


def _count_frames(stream: Stream, source: Source) -> int | None:
    """Count the frames by decoding the last seconds; None if they do not match the index.

    Frames missing at the very end, as in an incomplete download, are not a mismatch.
    """
    for margin in _SEEK_MARGINS:
        last: int | None = None
        for number in _numbers(stream, source, len(stream.ticks) - 1, margin):
            if number is None:
                return None
            last = number
        if last is not None:
            return last + 1
    return None


def _pictures_by_seeking(
    stream: Stream, source: Source, wanted: Sequence[int]
) -> dict[int, Picture]:
    """The wanted frames (ascending), up to the first one that cannot be reached."""
    pictures: dict[int, Picture] = {}
    numbers: Iterator[int | None] = iter(())
    current = -1
    for number in wanted:
        near = current >= 0 and number - current <= _CHECKED_HEAD
        if not (near and _step_to(numbers, number)):
            for margin in _SEEK_MARGINS:
                numbers = _numbers(stream, source, number, margin)
                if _step_to(numbers, number):
                    break
            else:
                current = -1
                continue
        current = number
        try:
            pictures[number] = source.picture()
        except DoubtfulPictureError:
            return pictures
    return pictures


def _step_to(numbers: Iterator[int | None], number: int) -> bool:
    """Decode on to frame `number`; False if it was passed, or a frame does not match the index."""
    for current in numbers:
        if current is None or current >= number:
            return current == number
    return False


def _numbers(stream: Stream, source: Source, number: int, margin: float) -> Iterator[int | None]:
    """Frame numbers from `margin` seconds before a frame on; None ends them at a mismatch."""
    expected: int | None = None
    for tick in source.ticks(_start_tick(stream, number, margin)):
        if expected is None:
            expected = -1 if tick is None else bisect_right(stream.ticks, tick) - 1
        if expected < 0 or stream.ticks[expected : expected + 1] != (tick,):
            yield None
            return
        yield expected
        expected += 1


def _start_tick(stream: Stream, number: int, margin: float) -> int | None:
    """The tick `margin` seconds before frame `number`; None if that is before the first frame."""
    start = stream.ticks[number] - round(margin / stream.time_base)
    return start if start > stream.ticks[0] else None


def stack(pictures: Sequence[Picture]) -> NDArray[np.uint8]:
    """Stack pictures to `(T, H, W, 3)`, resized to the first where the size changes midway."""
    height, width = pictures[0].shape[:2]
    return np.stack(
        [
            picture
            if picture.shape[:2] == (height, width)
            else np.asarray(
                Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC)
            )
            for picture in pictures
        ]
    )


def _listed(numbers: Collection[int]) -> str:
    """Join the first few of many numbers: "1, 2, 3 and 9 more"."""
    shown = [str(number) for number in sorted(numbers)]
    return ", ".join(shown[:3]) + (f" and {len(shown) - 3} more" if len(shown) > 3 else "")
