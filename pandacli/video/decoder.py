"""Exact frames: number *i* is the *i*-th frame that decodes, in presentation order.

Three strategies, the fastest first:

* keyframe seeking (`seeking`), for files whose timestamp index is right;
* for other long videos, decoding from a margin before each frame, compared with the index;
* decoding everything from the first frame on, which is exact by definition.

Multithreaded decoding of damaged streams loses or conceals frames differently from run to run. So
threads stop at the first error, and a single-threaded decoder, which is deterministic, takes over.
"""

import logging
import os
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from pandacli.errors import ClipError
from pandacli.video import container as containers
from pandacli.video.container import TAIL, Stream, read_stream
from pandacli.video.images import ConversionError, Picture, PillowSource, frame_to_rgb, resize
from pandacli.video.seeking import DamagedError, seek_frames, stop_at_errors

_log = logging.getLogger(__name__)

_SEQUENTIAL_PIXELS = 1e9  # up to this many, some seconds of work, a video is decoded sequentially
_SEEK_MARGINS = (1.0, 5.0, 25.0)  # seconds before a frame to seek to; the next if that is too late
_CHECKED_HEAD = 32  # frames at the beginning that must match the index before seeking is trusted


class PyAVSource:
    """Decodes with threads up to the first error, or with one thread that conceals errors."""

    def __init__(self, stream: Stream, *, threaded: bool = True) -> None:
        self._stream, self._threaded = stream, threaded
        self._frame: Any = None
        self.damaged = False  # other than by a cut-off last frame or missing references
        self.interlaced = False  # a frame of two fields was decoded

    def ticks(self, start: int | None = None) -> Iterator[int | None]:
        """Decode in order and yield the tick of each frame, None where it has none.

        Decoding starts at the last key frame at or before the tick `start`, as far as the
        container's index is right. With threads, an error in the stream raises a DamagedError.
        """
        self._from_start, self._packets_read = start is None, 0
        self._first_key: int | None = None
        with containers.open_container(self._stream.path) as container:
            stream: Any = container.streams[self._stream.index]
            if self._threaded:
                stop_at_errors(stream)
            else:
                stream.codec_context.options = {"max_pixels": str(containers.MAX_PIXELS)}
                stream.codec_context.thread_count = 1
            if start is not None:
                try:
                    container.seek(start, stream=stream)
                except (av.error.FFmpegError, OSError):
                    return
            for packet in self._packets(container, stream):
                self._packets_read += 1
                if self._first_key is None and packet.is_keyframe:
                    self._first_key = packet.pts
                for frame in self._decoded(packet):
                    self._frame = frame
                    self.interlaced |= frame.interlaced_frame
                    yield frame.pts

    def picture(self) -> Picture:
        """The frame last yielded, as a player shows it; may raise a ConversionError."""
        return frame_to_rgb(self._frame, self._stream.path, self._stream.pixel_aspect)

    def _packets(self, container: Any, stream: Any) -> Iterator[Any]:
        """The packets up to the first that cannot be read, then a flush."""
        try:
            yield from container.demux(stream)
        except (av.error.FFmpegError, OSError):
            self._report_damage()
            flush = av.Packet()
            flush.stream = stream
            yield flush

    def _decoded(self, packet: Any) -> list[Any]:
        """The frames that a packet completes; none if it is damaged."""
        try:
            frames: list[Any] = packet.decode()
        except (av.error.FFmpegError, OSError):
            self._report_damage(packet.pts)
            return []
        for frame in frames:
            if frame.is_corrupt and frame.pts not in self._stream.tail[-2:]:
                self._report_damage(frame.pts)
        return frames

    def _report_damage(self, tick: int | None = None) -> None:
        """Record or raise an error at the current packet, or in a frame shown at `tick`."""
        packets_left = self._stream.packet_count - self._packets_read
        if self._threaded:
            raise DamagedError(at_end=packets_left < TAIL)
        # a last frame that is cut off may be two packets, one per field
        if self._from_start:
            self.damaged |= packets_left >= 2
        elif tick is not None and self._first_key is not None:
            # frames before the key frame at which decoding started may lack references
            self.damaged |= tick > self._first_key and tick not in self._stream.tail[-2:]


Source = PyAVSource | PillowSource
"""A decoder of one stream: `ticks()` decodes frame by frame, `picture()` converts the last one."""


def sources_for(stream: Stream) -> tuple[Source, Source]:
    """The fast decoder of a stream, and the final one to use where the fast one fails."""
    if stream.is_image:
        return PillowSource(stream.path), PillowSource(stream.path)
    return PyAVSource(stream), PyAVSource(stream, threaded=False)


@dataclass(frozen=True)
class Decoded:
    ticks: tuple[int | None, ...]  # of each frame up to where decoding stopped
    pictures: dict[int, Picture]  # the wanted frames that exist, by number
    matches_index: bool = True  # the frames are those of the index, numbered alike
    damaged: bool = False  # pictures may look wrong
    interlaced: bool = False  # frames are known to be stored as two fields
    seekable: bool = False  # they were decoded by keyframe seeking


def read_frames(path: str | os.PathLike[str], indices: Sequence[int]) -> NDArray[np.uint8]:
    """Frames of a video by number, from 0 in presentation order; any order, repeats allowed.

    Returns uint8 `(T, H, W, 3)`, RGB, upright, a frame for each index. Indices past the last frame
    that decodes give that frame, and a warning is logged. ClipError if the file cannot be used or
    no frame decodes, ValueError if an index is negative or there are none.
    """
    wanted = [int(index) for index in indices]
    if not wanted or min(wanted) < 0:
        raise ValueError("frames are numbered from 0, and at least one must be given")
    stream = read_stream(path)
    decoded = decode(stream, set(wanted), to_end=False)
    missing = sorted(set(wanted) - decoded.pictures.keys())
    if missing:
        last, trust = len(decoded.ticks) - 1, decoded.matches_index
        decoded = decode(stream, {*decoded.pictures, last}, to_end=False, trust_index=trust)
        listed = ", ".join(map(str, missing[:3]))
        listed += f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        _log.warning("%r has no frame %s: frame %d stands in", os.fspath(path), listed, last)
        for index in missing:
            decoded.pictures[index] = decoded.pictures[last]
    return stack([decoded.pictures[index] for index in wanted])


def stack(pictures: Sequence[Picture]) -> NDArray[np.uint8]:
    """Stack pictures to `(T, H, W, 3)`, resized to the first where the size changes midway."""
    shape = height, width, _ = pictures[0].shape
    return np.stack([p if p.shape == shape else resize(p, width, height) for p in pictures])


def decode(
    stream: Stream, wanted: Collection[int], *, to_end: bool, trust_index: bool = True
) -> Decoded:
    """Decode the wanted frames by number, and the ticks of all frames.

    Without `to_end` decoding stops after the last one wanted, and ticks may be those of the index.
    `trust_index` is False if an earlier result did not match the index.
    """
    damaged, decoded = stream.damaged, None
    fast, final = sources_for(stream)
    if trust_index:
        try:
            pictures = seek_frames(stream, wanted, to_end=to_end)
            if pictures is not None:
                return Decoded(stream.ticks, pictures, seekable=True)
            decoded = _decode_by_seeking(stream, final, wanted, to_end=to_end)
            decoded = decoded or _decode_all(stream, fast, wanted, to_end=to_end, trust_index=True)
        except DamagedError as error:
            damaged = damaged or not error.at_end
            decoded = _decode_by_seeking(stream, final, wanted, to_end=to_end)
    decoded = decoded or _decode_all(stream, final, wanted, to_end=to_end, trust_index=False)
    if decoded is None:
        if containers.is_scrambled(stream.path):
            raise containers.encrypted_error(stream.path)
        raise ClipError(f"no frame of {stream.path} can be decoded", "the file may be damaged")
    interlaced = stream.interlaced or fast.interlaced or final.interlaced
    return replace(decoded, damaged=damaged or final.damaged, interlaced=interlaced)


def _decode_all(
    stream: Stream, source: Source, wanted: Collection[int], *, to_end: bool, trust_index: bool
) -> Decoded | None:
    """Decode from the first frame on; None if no frame decodes, or a trusted index is wrong."""
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
            except ConversionError:
                if trust_index:
                    return None
                ticks.pop()
                break
        if number >= last and not to_end:
            break
    else:
        if trust_index and len(ticks) != stream.packet_count:
            return None
    return Decoded(tuple(ticks), pictures, trust_index) if ticks else None


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
        ticks = ticks[: _count_frames(stream, source)]
    existing = [number for number in wanted if number < len(ticks)]
    pictures = dict(walk_by_seeking(stream, source, existing))
    return Decoded(ticks, pictures) if ticks and len(pictures) == len(existing) else None


def walk_by_seeking(
    stream: Stream, source: Source, wanted: Collection[int]
) -> Iterator[tuple[int, Picture]]:
    """Decode frames in ascending order, from a margin before each where that saves decoding.

    They end early at one that does not match the index, or cannot be converted.
    """
    walk: Iterator[int | None] = iter(())
    current = 0
    for number in sorted(wanted):
        starts = (_numbers(stream, source, number, margin) for margin in _SEEK_MARGINS)
        goes_on = min(number - _CHECKED_HEAD, _start_of_seek(stream, number)) <= current
        tried = chain([walk], starts) if goes_on else starts
        reached = next((walk for walk in tried if _step_to(walk, number)), None)
        if reached is None:
            return
        walk, current = reached, number
        try:
            yield number, source.picture()
        except ConversionError:
            return


def walk_sequentially(source: Source, wanted: Collection[int]) -> Iterator[tuple[int, Picture]]:
    """Decode frames from the first one on; they end at a wanted one that cannot be converted.

    Numbers past the last frame given may be added to `wanted`.
    """
    for number, _ in enumerate(source.ticks()):
        if number in wanted:
            try:
                yield number, source.picture()
            except ConversionError:
                return


def is_long(stream: Stream, count: int) -> bool:
    """Whether decoding `count` frames takes so long that a doubtful index is tried first."""
    return count * stream.frame_pixels > _SEQUENTIAL_PIXELS


def _is_seeking_faster(stream: Stream, wanted: Collection[int], *, to_end: bool) -> bool:
    """Whether sequential decoding takes long, and seeking decodes less than half the frames."""
    count = len(stream.ticks)
    sequential = count if to_end else min(count, max(wanted, default=0) + 1)
    if not is_long(stream, sequential):
        return False
    by_seeking = _CHECKED_HEAD
    for number in {*wanted, count - 1} if to_end else wanted:
        number = min(number, count - 1)
        by_seeking += number - _start_of_seek(stream, number) + 1
    return 2 * by_seeking < sequential


def _start_of_seek(stream: Stream, number: int) -> int:
    """The key frame at which decoding starts where it seeks to the margin before a frame."""
    start = _start_tick(stream, number, _SEEK_MARGINS[0])
    keys_before = 0 if start is None else bisect_right(stream.key_ticks, start)
    key = stream.key_ticks[keys_before - 1] if keys_before else stream.ticks[0]
    return bisect_left(stream.ticks, key)


def _count_frames(stream: Stream, source: Source) -> int:
    """Count the frames by decoding the last seconds; 0 if they do not match the index."""
    # frames missing at the very end, as in an incomplete download, are not a mismatch
    for margin in _SEEK_MARGINS:
        if numbers := list(_numbers(stream, source, len(stream.ticks) - 1, margin)):
            return 0 if numbers[-1] is None else numbers[-1] + 1
    return 0


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
