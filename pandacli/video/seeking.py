"""The quick way to a few frames: leap to the key frame before each, decode no more than it needs.

Decoding begins at the very key frame from which a frame can be had, stops at the packet that
completes it, and leaves out the frames that no other is made from, where they are marked. It is for
files of which the packets tell the truth, and that is checked on the way:

* nothing hints at damage (`Stream.whole`), and the file begins with a key frame;
* the first frames and the last ones are there, each with the time that its packet announces;
* no frame comes that was not announced, or out of order; a leap's first one is a key frame indeed;
* none is lost on the way, unless some are left out; the decoder reports damage to any it decodes.

Whatever fails makes all of it void, and the reader goes the slow way. So it does, too, in H.264
with open groups whose leading frames serve each other: left out, they look like damage.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import av

from pandacli.video.container import opened
from pandacli.video.images import DoubtfulPictureError, Picture, picture_of
from pandacli.video.sources import DamagedError, stop_at_errors
from pandacli.video.stream import Stream

_CHECKED_ENDS = 16
"""Frames at the beginning, and at the end, that must be there."""
_SEEK_MARGINS = (0.0, 2.0, 10.0)
"""Seconds before a key frame at which to look for it; a container's index may lead too far."""
_WORTH_A_LEAP = 8
"""Frames that a leap must save. It empties the decoder, which costs about as much."""


class _NotAsAnnouncedError(Exception):
    """The packets do not tell the truth, or a decoder does not follow them."""


class _ReportedError(Exception):
    """The decoder has reported an error between frame `key` and the last of `numbers`.

    Attributes:
        tick: Of the packet at which it did; None at the end of the file.
    """

    def __init__(self, key: int, numbers: Sequence[int], tick: int | None) -> None:
        super().__init__(f"an error after frame {key}")
        self.key, self.numbers, self.tick = key, numbers, tick


def leap(stream: Stream, wanted: Collection[int], *, to_end: bool) -> dict[int, Picture] | None:
    """Pictures of the frames wanted, by number; None when the file is not to be trusted.

    Args:
        to_end: Whether the last frames must be there as well.

    Raises:
        DamagedError: The stream itself is damaged on the way.
    """
    if not _leads_anywhere(stream, wanted):
        return None
    count = len(stream.ticks or ())
    needed = {*wanted, *range(min(_CHECKED_ENDS, count))}
    if to_end:
        needed.update(range(max(0, count - _CHECKED_ENDS), count))
    try:
        with opened(stream.path) as container:
            return _Leaper(stream, container, needed).pictures(wanted)
    except _ReportedError as error:
        if _is_damage(stream, error.key, error.numbers):
            at_end = error.tick is None or error.tick in stream.tail
            raise DamagedError(at_end=at_end) from None
        return None
    except (_NotAsAnnouncedError, DoubtfulPictureError, av.error.FFmpegError, OSError):
        return None


def _leads_anywhere(stream: Stream, wanted: Collection[int]) -> bool:
    ticks = stream.ticks or ()
    return (
        stream.whole
        and not stream.interlaced
        and bool(ticks)
        and stream.key_ticks[:1] == ticks[:1]
        and max(wanted, default=0) < len(ticks)
    )


def _is_damage(stream: Stream, key: int, numbers: Sequence[int]) -> bool:
    """Whether an error that was reported after a leap comes as well without that leap.

    Beginning to decode at frame `key` may be an error by itself: what follows an open group's key
    frame, or intra refresh, needs frames before it. So decode from two key frames earlier.
    """
    assert stream.ticks is not None
    tick = stream.ticks[key]
    earlier = max(0, bisect_left(stream.key_ticks, tick) - 2)
    start = bisect_left(stream.ticks, stream.key_ticks[earlier])
    try:
        with opened(stream.path) as container:
            leaper = _Leaper(replace(stream, spare_frames=False), container, numbers, threads=1)
            for _ in leaper.frames(start, numbers):
                pass
    except _ReportedError as error:
        return key == 0 or error.tick is None or error.tick >= tick
    except (_NotAsAnnouncedError, av.error.FFmpegError, OSError):
        pass
    return False


class _Leaper:
    """A file open in PyAV, and the frames needed of it."""

    def __init__(
        self, stream: Stream, container: Any, needed: Collection[int], *, threads: int = 0
    ) -> None:
        assert stream.ticks is not None
        self._stream = stream
        self._ticks = stream.ticks
        self._keys = [bisect_left(self._ticks, tick) for tick in stream.key_ticks]
        self._container = container
        self._video: Any = container.streams[stream.index]
        # Damage is to be reported, not to be painted over: that depends on where one begins.
        stop_at_errors(self._video, threads=threads)
        self._sent: set[int] = set()
        self._needed = sorted(needed)
        self._needed_ticks = {self._ticks[number] for number in needed}
        self._thrifty = stream.spare_frames

    def pictures(self, wanted: Collection[int]) -> dict[int, Picture]:
        """The pictures of those of the needed frames that are wanted."""
        found: dict[int, Picture] = {}
        for key, numbers in self._stretches():
            for number, frame in self._decoded(key, numbers):
                if number in wanted:
                    found[number] = picture_of(frame, self._stream)
        return found

    def _stretches(self) -> Iterator[tuple[int, list[int]]]:
        """The needed frames in groups to be decoded in one go, each with the key frame before."""
        key, numbers = 0, [self._needed[0]]
        for before, number in pairwise(self._needed):
            next_key = self._keys[bisect_right(self._keys, number) - 1]
            if next_key - before > _WORTH_A_LEAP:
                yield key, numbers
                key, numbers = next_key, []
            numbers.append(number)
        yield key, numbers

    def _decoded(self, key: int, numbers: Sequence[int]) -> Iterator[tuple[int, Any]]:
        """The frames with these numbers, ascending, by decoding from frame `key` on."""
        left = iter(numbers)
        due = next(left)
        before = key - 1
        self._sent.clear()
        for frame in self.frames(key, numbers):
            number = self._number(frame)
            if before < key and not (number == key and (frame.key_frame or key == 0)):
                raise _NotAsAnnouncedError(f"frame {number} came first, not key frame {key}")
            if frame.is_corrupt:
                raise _ReportedError(key, numbers, frame.pts)
            if number <= before or number > due:
                raise _NotAsAnnouncedError(f"frame {number} came after frame {before}")
            before = number
            if number == due:
                yield number, frame
                if number == numbers[-1]:
                    return
                due = next(left)
        raise _NotAsAnnouncedError(f"frame {due} did not come")

    def _number(self, frame: Any) -> int:
        """The number of a frame that came when it should: after those sent that are before it."""
        if frame.pts not in self._sent:
            raise _NotAsAnnouncedError(f"no frame was announced for {frame.pts}")
        self._sent.remove(frame.pts)
        if not self._thrifty and min(self._sent, default=frame.pts) < frame.pts:
            raise _NotAsAnnouncedError(f"the frame at {min(self._sent)} did not come")
        return bisect_left(self._ticks, frame.pts)

    def frames(self, key: int, numbers: Sequence[int]) -> Iterator[Any]:
        """Decode from frame `key` on, until the packets of all these frames have been decoded."""
        left = {self._ticks[number] for number in numbers}
        codec = self._video.codec_context
        tick: int | None = None
        for packet in self._packets_from(key):
            if self._thrifty:
                codec.skip_frame = "DEFAULT" if packet.pts in self._needed_ticks else "NONREF"
            if packet.pts is not None:
                self._sent.add(packet.pts)
            try:
                yield from packet.decode()
            except av.error.EOFError:
                raise
            except (av.error.FFmpegError, OSError):
                raise _ReportedError(key, numbers, packet.pts) from None
            tick = packet.pts
            left.discard(tick)
            if not left:
                break
        try:
            yield from codec.decode(None)
        except av.error.EOFError:
            pass  # the end of the file has emptied the decoder already
        except (av.error.FFmpegError, OSError):
            raise _ReportedError(key, numbers, tick) from None

    def _packets_from(self, key: int) -> Iterator[Any]:
        """The packets from that of frame `key` on, without those of frames shown before it."""
        tick = self._ticks[key]
        for packet in self._found(key):
            if packet.pts is None or packet.pts >= tick:
                yield packet

    def _found(self, key: int) -> Iterator[Any]:
        if key == 0:
            yield from self._container.demux(self._video)
            return
        tick = self._ticks[key]
        for margin in _SEEK_MARGINS:
            begin = max(self._ticks[0], tick - round(margin / self._stream.time_base))
            self._container.seek(begin, stream=self._video)
            packets = self._container.demux(self._video)
            for packet in packets:
                if packet.pts == tick:
                    yield packet
                    yield from packets
                    return
                if packet.pts is None or (packet.is_keyframe and packet.pts > tick):
                    break
        raise _NotAsAnnouncedError(f"no way leads to frame {key}")
