"""Decoders as iterators over the frames of a stream, in presentation order.

Multithreaded decoding of damaged streams loses or conceals frames differently from run to run. So
threads stop at the first error, and a single-threaded decoder, which is deterministic, takes over.
"""

from collections.abc import Iterator
from typing import Any, Protocol

import av

from pandacli.video.container import MAX_PIXELS, open_container
from pandacli.video.images import Picture, PillowSource, picture_of
from pandacli.video.stream import TAIL, Stream

_SILENT_CODECS = {"ffv1", "mpeg4", "rv30", "rv40", "theora", "vp3", "vp8"}
"""Codecs whose decoders may conceal damage unreported, from another thread's unfinished frame. They
are not decoded with frame threads."""


class DamagedError(Exception):
    """A decoder has reported an error in the stream.

    Attributes:
        at_end: Whether the file may only be cut off within its last frame.
    """

    def __init__(self, *, at_end: bool) -> None:
        super().__init__("an error in the stream")
        self.at_end = at_end


class Source(Protocol):
    """A decoder of one stream.

    Attributes:
        damaged: Whether an error was found, other than a cut-off last frame or missing references
            after a seek.
        interlaced: Whether a frame of two fields was decoded.
    """

    damaged: bool
    interlaced: bool

    def ticks(self, start: int | None = None) -> Iterator[int | None]:
        """Decode in order and yield the tick of each frame, None where it has none.

        Args:
            start: Seek to the last key frame at or before this tick, as far as the container's
                index is right; None starts at the first frame.

        Raises:
            DamagedError: There is an error in the stream, and this decoder stops at errors.
        """

    def picture(self) -> Picture:
        """The frame last yielded, as a player shows it: uint8 `(H, W, 3)`, RGB.

        Raises:
            DoubtfulPictureError: It may be wrong.
        """


def sources_for(stream: Stream) -> tuple[Source, Source]:
    """The fast decoder of a stream, and the final one to use where the fast one fails."""
    if stream.is_image:
        return PillowSource(stream.path, stream.ticks), PillowSource(stream.path, stream.ticks)
    return PyAVSource(stream), PyAVSource(stream, threaded=False)


def stop_at_errors(stream: Any, *, threads: int = 0) -> None:
    """Set up a PyAV stream for multithreaded decoding that reports errors and conceals none."""
    codec = stream.codec_context
    codec.options = {"err_detect": "crccheck+explode", "max_pixels": str(MAX_PIXELS)}
    stream.thread_type = "SLICE" if codec.codec.canonical_name in _SILENT_CODECS else "AUTO"
    codec.thread_count = threads


class PyAVSource:
    """A `Source` of PyAV.

    Args:
        stream: The stream to decode.
        threaded: Whether to decode with several threads and stop at the first error, or with one
            that conceals errors as FFmpeg does.
    """

    def __init__(self, stream: Stream, *, threaded: bool = True) -> None:
        self._stream = stream
        self._threaded = threaded
        self._frame: Any = None
        self._from_start = True
        self._first_key: int | None = None
        self._packets_read = 0
        self.damaged = self.interlaced = False

    def ticks(self, start: int | None = None) -> Iterator[int | None]:
        self._from_start = start is None
        with open_container(self._stream.path) as container:
            stream: Any = container.streams[self._stream.index]
            if self._threaded:
                stop_at_errors(stream)
            else:
                stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
                stream.codec_context.thread_count = 1
            if start is not None:
                try:
                    container.seek(start, stream=stream)
                except (av.error.FFmpegError, OSError):
                    return
            self._packets_read = 0
            self._first_key = None
            for packet in self._packets(container, stream):
                self._packets_read += 1
                if self._first_key is None and packet.is_keyframe:
                    self._first_key = packet.pts
                for frame in self._decoded(packet):
                    self._frame = frame
                    self.interlaced |= frame.interlaced_frame
                    yield frame.pts

    def picture(self) -> Picture:
        return picture_of(self._frame, self._stream.path, self._stream.pixel_aspect)

    def _packets(self, container: Any, stream: Any) -> Iterator[Any]:
        """The packets up to the first that cannot be read, then a flush."""
        try:
            yield from container.demux(stream)
        except (av.error.FFmpegError, OSError):
            self._note_damage()
            flush = av.Packet()
            flush.stream = stream
            yield flush

    def _decoded(self, packet: Any) -> list[Any]:
        """The frames that a packet completes; none if it is damaged."""
        try:
            frames: list[Any] = packet.decode()
        except (av.error.FFmpegError, OSError):
            self._note_damage(packet.pts)
            return []
        for frame in frames:
            if frame.is_corrupt and frame.pts not in self._stream.tail[-2:]:
                self._note_damage(frame.pts)
        return frames

    def _note_damage(self, tick: int | None = None) -> None:
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
