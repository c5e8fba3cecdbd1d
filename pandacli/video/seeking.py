"""Keyframe seeking: decode a few frames from the key frames before them, skipping all others.

Decoding stops at the packet that completes the frame, and skips marked non-reference frames. The
timestamp index must be right, which is checked on the way:

* nothing hints at damage (`Stream.whole`), and the file starts with a key frame;
* the first and last frames decode, each with the time of its packet;
* no frame comes unannounced or out of order, and the first one after a seek is a key frame;
* no frame is missing, unless some are skipped, and the decoder reports no error.

Otherwise `decoder` takes a slower path, as it does for H.264 with open GOPs whose leading frames
refer to each other: skipping them looks like damage.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from typing import Any, Self

import av

from pandacli.video.container import MAX_PIXELS, Stream, open_container
from pandacli.video.images import ConversionError, Picture, frame_to_rgb

_CHECKED_ENDS = 16  # frames at the beginning, and at the end, that must be there
_SEEK_MARGINS = (0.0, 2.0, 10.0)  # seconds before a key frame: an index may lead too far
_MIN_SKIPPED = 8  # frames a seek must skip to be worth flushing the decoder
_SILENT_CODECS = {"ffv1", "mpeg4", "rv30", "rv40", "theora", "vp3", "vp8"}
"""Codecs whose decoders may conceal damage unreported, from another thread's unfinished frame."""


class DamagedError(Exception):
    """A decoder has reported an error; `at_end`: the file may only be cut in its last frame."""

    def __init__(self, *, at_end: bool) -> None:
        self.at_end = at_end


class _IndexMismatchError(Exception):
    """The decoded frames differ from the timestamp index."""


class _DecoderError(Exception):
    """The decoder has reported an error in the packet at `tick` (None: at the end of the file)."""

    def __init__(self, tick: int | None, key: int, numbers: Sequence[int]) -> None:
        self.tick, self.key, self.numbers = tick, key, numbers


def stop_at_errors(stream: Any, *, threads: int = 0) -> None:
    """Set up a PyAV stream for multithreaded decoding that reports errors and conceals none."""
    codec = stream.codec_context
    codec.options = {"err_detect": "crccheck+explode", "max_pixels": str(MAX_PIXELS)}
    stream.thread_type = "SLICE" if codec.codec.canonical_name in _SILENT_CODECS else "AUTO"
    codec.thread_count = threads


def seek_frames(
    stream: Stream, wanted: Collection[int], *, to_end: bool
) -> dict[int, Picture] | None:
    """Decode frames by keyframe seeking; with `to_end`, the last of the stream are checked too.

    None if the timestamp index cannot be trusted; a DamagedError if the stream itself is damaged.
    """
    count = len(stream.ticks)
    starts_with_key = count > 0 and stream.key_ticks[:1] == stream.ticks[:1]
    whole = stream.whole and starts_with_key and not stream.interlaced
    if not whole or max(wanted, default=0) >= count:
        return None
    needed = {*wanted, *range(min(_CHECKED_ENDS, count))}
    if to_end:
        needed.update(range(max(0, count - _CHECKED_ENDS), count))
    try:
        with KeyframeSeeker(stream) as seeker:
            return dict(seeker.pictures(wanted, needed))
    except _DecoderError as error:
        if _is_damage(stream, error.key, error.numbers):
            at_end = error.tick is None or error.tick in stream.tail
            raise DamagedError(at_end=at_end) from None
        return None
    except (_IndexMismatchError, ConversionError, av.error.FFmpegError, OSError):
        return None


def _is_damage(stream: Stream, key: int, numbers: Sequence[int]) -> bool:
    """Whether an error after a seek also occurs when decoding starts two key frames earlier."""
    # Starting at frame `key` may be an error by itself: with open GOPs or intra refresh, the frames
    # after it refer to frames before it.
    tick = stream.ticks[key]
    earlier = max(0, bisect_left(stream.key_ticks, tick) - 2)
    start = bisect_left(stream.ticks, stream.key_ticks[earlier])
    try:
        with KeyframeSeeker(replace(stream, marks_nonref=False), threads=1) as seeker:
            for _ in seeker.frames(start, numbers):
                pass
    except _DecoderError as error:
        return key == 0 or error.tick is None or error.tick >= tick
    except (_IndexMismatchError, av.error.FFmpegError, OSError):
        pass
    return False


class KeyframeSeeker:
    """Decodes frames of a stream whose index is right; a context manager that holds the file."""

    def __init__(self, stream: Stream, *, threads: int = 0) -> None:
        self._stream, self._ticks, self._threads = stream, stream.ticks, threads
        self._keys = [bisect_left(self._ticks, tick) for tick in stream.key_ticks]
        self._container: Any = None  # opened with the first frame
        self._video: Any = None
        self._sent: set[int] = set()  # ticks of packets whose frames have not come
        self._needed_ticks: set[int] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._container is not None:
            self._container.close()

    def walk(self, wanted: Collection[int]) -> Iterator[tuple[int, Picture]]:
        """The wanted frames in ascending order; they end early where seeking fails."""
        errors = _IndexMismatchError, _DecoderError, ConversionError, av.error.FFmpegError, OSError
        with suppress(*errors):
            yield from self.pictures(wanted)

    def pictures(
        self, wanted: Collection[int], checked: Collection[int] = ()
    ) -> Iterator[tuple[int, Picture]]:
        """The wanted frames in ascending order; those to be checked are decoded, too."""
        needed = sorted({*wanted, *checked})
        self._needed_ticks = {self._ticks[number] for number in needed}
        for key, numbers in self._runs(needed):
            for number, frame in self._decoded(key, numbers):
                if number in wanted:
                    picture = frame_to_rgb(frame, self._stream.path, self._stream.pixel_aspect)
                    yield number, picture

    def _runs(self, needed: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
        """Groups of needed frames to decode in one go, each with the key frame before it."""
        key, numbers = self._key_before(needed[0]), [needed[0]]
        for before, number in pairwise(needed):
            next_key = self._key_before(number)
            if next_key - before > _MIN_SKIPPED:
                yield key, numbers
                key, numbers = next_key, []
            numbers.append(number)
        yield key, numbers

    def _key_before(self, number: int) -> int:
        return self._keys[bisect_right(self._keys, number) - 1]

    def _decoded(self, key: int, numbers: Sequence[int]) -> Iterator[tuple[int, Any]]:
        """The frames with these ascending numbers, decoded from frame `key` on."""
        remaining = iter(numbers)
        due, before = next(remaining), key - 1
        self._sent.clear()
        for frame in self.frames(key, numbers):
            if frame.pts not in self._sent:
                raise _IndexMismatchError
            self._sent.remove(frame.pts)
            if not self._stream.marks_nonref and min(self._sent, default=frame.pts) < frame.pts:
                raise _IndexMismatchError  # an earlier frame did not come
            number = bisect_left(self._ticks, frame.pts)
            if before < key and not (number == key and (frame.key_frame or key == 0)):
                raise _IndexMismatchError  # not the key frame
            if frame.is_corrupt:
                raise _DecoderError(frame.pts, key, numbers)
            if not before < number <= due:
                raise _IndexMismatchError
            before = number
            if number == due:
                yield number, frame
                if number == numbers[-1]:
                    return
                due = next(remaining)
        raise _IndexMismatchError  # frame `due` did not come

    def frames(self, key: int, numbers: Sequence[int]) -> Iterator[Any]:
        """Decode from frame `key` on, until the packets of all these frames have been decoded."""
        remaining = {self._ticks[number] for number in numbers}
        tick: int | None = None
        for packet in self._packets_from(key):
            if self._stream.marks_nonref:
                skipped = "DEFAULT" if packet.pts in self._needed_ticks else "NONREF"
                self._video.codec_context.skip_frame = skipped
            if packet.pts is not None:
                self._sent.add(packet.pts)
            try:
                yield from packet.decode()
            except av.error.EOFError:
                raise
            except (av.error.FFmpegError, OSError):
                raise _DecoderError(packet.pts, key, numbers) from None
            tick = packet.pts
            remaining.discard(tick)
            if not remaining:
                break
        try:
            yield from self._video.codec_context.decode(None)
        except av.error.EOFError:
            pass  # already flushed at the end of the file
        except (av.error.FFmpegError, OSError):
            raise _DecoderError(tick, key, numbers) from None

    def _packets_from(self, key: int) -> Iterator[Any]:
        """The packets from that of frame `key` on, without those of frames shown before it."""
        if not key or self._container is None:
            self._open()
        packets = self._seek(key) if key else self._container.demux(self._video)
        return (p for p in packets if p.pts is None or p.pts >= self._ticks[key])

    def _open(self) -> None:
        if self._container is not None:
            self._container.close()
        self._container = open_container(self._stream.path)
        self._video = self._container.streams[self._stream.index]
        # concealment depends on where one starts
        stop_at_errors(self._video, threads=self._threads)

    def _seek(self, key: int) -> Iterator[Any]:
        tick = self._ticks[key]
        for margin in _SEEK_MARGINS:
            start = max(self._ticks[0], tick - round(margin / self._stream.time_base))
            self._container.seek(start, stream=self._video)
            packets = self._container.demux(self._video)
            for packet in packets:
                if packet.pts == tick:
                    yield packet
                    yield from packets
                    return
                if packet.pts is None or (packet.is_keyframe and packet.pts > tick):
                    break
        raise _IndexMismatchError  # seeking does not reach the key frame
