"""Exact frames: number *i* is the *i*-th that decodes, in the order in which they are shown.

Where a file can be trusted, `leaps` is the quick way to them. Otherwise a short video is decoded
from its first frame on, which is exact by definition. In a long one we jump to a little before
each frame wanted and walk up to it, and every frame passed on the way must be the very one that
the packets announce. At the first that is not, we decode all of it.

What is decoded around damage depends on the number of threads, and with several on chance. So where
damage is found, what is shown comes from one thread.
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
from pandacli.video.container import encrypted, is_scrambled
from pandacli.video.images import DoubtfulPictureError, Picture
from pandacli.video.seeking import leap
from pandacli.video.sources import DamagedError, Source, sources_for
from pandacli.video.stream import Stream, read_stream

_log = logging.getLogger(__name__)

_WALK_PIXELS = 1e9
"""Up to this many pixels, some seconds of work, a video is decoded whole without a thought."""
_SEEK_MARGINS = (1.0, 5.0, 25.0)
"""Seconds before a frame at which to begin; the next is tried when a jump lands too late."""
_CHECKED_HEAD = 32
"""Frames at the beginning that must come as announced before a jump is trusted."""


@dataclass(frozen=True)
class Reading:
    """What came of decoding a stream.

    Attributes:
        ticks: Tick of each frame up to where decoding went, in order; None where it has none.
        pictures: The frames asked for that were there, by number, uint8 `(H, W, 3)` RGB.
        as_announced: Whether the frames are those of the packets, and so numbered as they are.
        damaged: Whether damage has been found, so that pictures may not look as they should.
        interlaced: Whether frames are known to have been stored as two fields.
    """

    ticks: tuple[int | None, ...]
    pictures: dict[int, Picture]
    as_announced: bool = True
    damaged: bool = False
    interlaced: bool = False


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
    missing = {index for index in wanted if index not in reading.pictures}
    if missing:
        last = len(reading.ticks) - 1
        known = {*reading.pictures, last}
        reading = decode(stream, known, to_end=False, as_announced=reading.as_announced)
        _log.warning(
            "%r has no frame %s: frame %d stands in", os.fspath(path), listed(missing), last
        )
        for index in missing:
            reading.pictures[index] = reading.pictures[last]
    return stack([reading.pictures[index] for index in wanted])


def decode(
    stream: Stream, wanted: Collection[int], *, to_end: bool, as_announced: bool = True
) -> Reading:
    """The pictures of the frames wanted, and the ticks of all frames that decode.

    Args:
        to_end: Whether to find out about every frame to the last; otherwise decoding stops
            after the last one wanted, and that one's ticks may be the packets' word only.
        as_announced: Whether the packets may be believed; what another decoding has shown.

    Raises:
        ClipError: No frame can be decoded.
    """
    damaged = stream.damaged
    reading = None
    usual, final = sources_for(stream)
    if as_announced:
        try:
            pictures = leap(stream, wanted, to_end=to_end)
            if pictures is not None:
                return Reading(stream.ticks or (), pictures)
            reading = _jump(stream, final, wanted, to_end=to_end)
            reading = reading or _walk(stream, usual, wanted, to_end=to_end, as_announced=True)
        except DamagedError as error:
            damaged = damaged or not error.at_end
            reading = _jump(stream, final, wanted, to_end=to_end)
    reading = reading or _walk(stream, final, wanted, to_end=to_end, as_announced=False)
    if reading is None:
        raise _nothing_decodes(stream)
    return replace(
        reading,
        damaged=damaged or final.damaged,
        interlaced=stream.interlaced or usual.interlaced or final.interlaced,
    )


def _nothing_decodes(stream: Stream) -> ClipError:
    if is_scrambled(stream.path):
        return encrypted(stream.path)
    return ClipError(f"no frame of {stream.path} can be decoded", "the file may be damaged")


def _walk(
    stream: Stream, source: Source, wanted: Collection[int], *, to_end: bool, as_announced: bool
) -> Reading | None:
    """Decode from the first frame on.

    Returns:
        None when no frame decodes, or when `as_announced` is set and what comes is not, frame
        by frame, what the packets announce.
    """
    last = max(wanted, default=-1)
    ticks: list[int | None] = []
    pictures: dict[int, Picture] = {}
    for number, tick in enumerate(source.walk()):
        if as_announced and not _announced(stream, number, tick):
            return None
        ticks.append(tick)
        if number in wanted:
            try:
                pictures[number] = source.picture()
            except DoubtfulPictureError:
                if as_announced:
                    return None
                ticks.pop()
                break
        if number >= last and not to_end:
            return Reading(tuple(ticks), pictures, as_announced)
    complete = len(ticks) == stream.packet_count
    if not ticks or (as_announced and not complete):
        return None
    return Reading(tuple(ticks), pictures, as_announced)


def _announced(stream: Stream, number: int, tick: int | None) -> bool:
    if stream.ticks is None:
        return True
    return number < len(stream.ticks) and stream.ticks[number] == tick


def _jump(
    stream: Stream, source: Source, wanted: Collection[int], *, to_end: bool
) -> Reading | None:
    """Read the frames wanted by jumping to them; None when that is no gain or not to be trusted."""
    ticks = stream.ticks
    if not ticks or not _worth_jumping(stream, wanted, to_end=to_end):
        return None
    if tuple(islice(source.walk(), _CHECKED_HEAD)) != ticks[:_CHECKED_HEAD]:
        return None
    if to_end or max(wanted, default=0) >= len(ticks):
        count = _count_to_the_end(stream, source)
        if count is None:
            return None
        ticks = ticks[:count]
    stream = replace(stream, ticks=ticks)
    there = sorted(number for number in wanted if number < len(ticks))
    pictures = _pictures_by_jumping(stream, source, there)
    return Reading(ticks, pictures) if len(pictures) == len(there) else None


def _worth_jumping(stream: Stream, wanted: Collection[int], *, to_end: bool) -> bool:
    """Whether walking takes long, and jumping less than half of that."""
    assert stream.ticks is not None
    count = len(stream.ticks)
    walked = count if to_end else min(count, max(wanted, default=0) + 1)
    if walked * stream.width * stream.height <= _WALK_PIXELS:
        return False
    jumped = _CHECKED_HEAD
    for number in {*wanted, count - 1} if to_end else wanted:
        number = min(number, count - 1)
        begin = _start(stream, number, _SEEK_MARGINS[0])
        keys_before = 0 if begin is None else bisect_right(stream.key_ticks, begin)
        key = stream.key_ticks[keys_before - 1] if keys_before else stream.ticks[0]
        jumped += number - bisect_right(stream.ticks, key) + 2
    return 2 * jumped < walked


def _count_to_the_end(stream: Stream, source: Source) -> int | None:
    """How many frames there are, by decoding the last seconds; None if they are not as announced.

    Frames missing at the very end, as in a download that broke off, are no surprise.
    """
    assert stream.ticks is not None
    for margin in _SEEK_MARGINS:
        found: int | None = None
        walk = source.walk(_start(stream, len(stream.ticks) - 1, margin))
        for number in _numbered(stream, walk):
            if number is None:
                return None
            found = number
        if found is not None:
            return found + 1
    return None


def _pictures_by_jumping(
    stream: Stream, source: Source, wanted: Sequence[int]
) -> dict[int, Picture]:
    """Those of the frames wanted (ascending) that jumps lead to."""
    pictures: dict[int, Picture] = {}
    walk: Iterator[int | None] = iter(())
    at = -1
    for number in wanted:
        near = at >= 0 and number - at <= _CHECKED_HEAD
        at = _step_to(walk, number) if near else -1
        if at < 0:
            walk, at = _jump_to(stream, source, number)
        if at == number:
            try:
                pictures[number] = source.picture()
            except DoubtfulPictureError:
                return pictures
    return pictures


def _jump_to(stream: Stream, source: Source, number: int) -> tuple[Iterator[int | None], int]:
    """A walk that stands at frame `number`, and that number; -1 if it cannot be reached."""
    assert stream.ticks is not None
    for margin in _SEEK_MARGINS:
        walk = _numbered(stream, source.walk(_start(stream, number, margin)))
        if _step_to(walk, number) == number:
            return walk, number
    return iter(()), -1


def _step_to(walk: Iterator[int | None], number: int) -> int:
    """Walk on to frame `number`; -1 if the walk begins after it, or is not as announced."""
    for at in walk:
        if at is None or at > number:
            return -1
        if at == number:
            return at
    return -1


def _numbered(stream: Stream, walk: Iterator[int | None]) -> Iterator[int | None]:
    """Ticks to frame numbers, as long as each frame is the one after the last; then None."""
    assert stream.ticks is not None
    expected: int | None = None
    for tick in walk:
        if expected is None and tick is not None:
            expected = bisect_right(stream.ticks, tick) - 1
        if expected is None or not _announced(stream, expected, tick) or expected < 0:
            yield None
            return
        yield expected
        expected += 1


def _start(stream: Stream, number: int, margin: float) -> int | None:
    """The tick `margin` seconds before frame `number`; None where that is before the first."""
    assert stream.ticks is not None
    start = stream.ticks[number] - round(margin / stream.time_base)
    return start if start > stream.ticks[0] else None


def stack(pictures: Sequence[Picture]) -> NDArray[np.uint8]:
    """Pictures as one array `(T, H, W, 3)`, at the size of the first where it changes midway."""
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


def listed(numbers: Collection[int]) -> str:
    """Numbers for reading, the first few of many: "1, 2, 3 and 9 more"."""
    shown = [str(number) for number in sorted(numbers)]
    return ", ".join(shown[:3]) + (f" and {len(shown) - 3} more" if len(shown) > 3 else "")
