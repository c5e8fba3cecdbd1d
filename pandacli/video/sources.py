"""Decoders as walks: from some moment on, one frame after the other, in presentation order.

FFmpeg, through PyAV, does the work; Pillow reads the images that it cannot (`images`).

Several threads lose frames and patch holes of damaged streams differently from run to run; a single
one does the same every time. So the threads are told to stop at the first error, and what they do
not bring to an end a single one reads again.
"""

from collections.abc import Iterator
from typing import Any, Protocol

import av

from pandacli.video.container import MAX_PIXELS, opened
from pandacli.video.images import Picture, PillowSource, picture_of
from pandacli.video.stream import TAIL, Stream

_PATCHED = {"ffv1", "mpeg4", "rv30", "rv40", "theora", "vp3", "vp8"}
"""Codecs whose decoders may patch damage without a report, with what another thread has done so far
of the frame before. They are decoded frame by frame."""


class DamagedError(Exception):
    """A decoder has reported an error in the stream.

    Attributes:
        at_end: Whether it may be that the file only breaks off in its last frame.
    """

    def __init__(self, *, at_end: bool) -> None:
        super().__init__("an error in the stream")
        self.at_end = at_end


class Source(Protocol):
    """A decoder of one stream.

    Attributes:
        damaged: Whether an error has been found, other than that the file breaks off in its last
            frame, or that decoding has begun in the middle.
        interlaced: Whether a frame of two fields has been met.
    """

    damaged: bool
    interlaced: bool

    def walk(self, start: int | None = None) -> Iterator[int | None]:
        """Decode in order and yield the tick of each frame, None where it has none.

        Args:
            start: Begin at a frame from which decoding can start and which should lie at this
                tick or before it (where it really lies, the first tick yielded tells); None
                for the very first frame.

        Raises:
            DamagedError: There is an error in the stream, and this decoder stops at errors.
        """

    def picture(self) -> Picture:
        """The frame that `walk` yielded last, as a player shows it: uint8 `(H, W, 3)`, RGB.

        Raises:
            DoubtfulPictureError: It may be wrong.
        """


def sources_for(stream: Stream) -> tuple[Source, Source]:
    """The decoder to use for a stream, and the one whose word is final where that one fails."""
    if stream.is_image:
        ticks = stream.ticks or ()
        return PillowSource(stream.path, ticks), PillowSource(stream.path, ticks)
    return PyAVSource(stream), PyAVSource(stream, threaded=False)


def stop_at_errors(stream: Any, *, threads: int = 0) -> None:
    """Have a stream of PyAV's decoded by several threads, which report errors and conceal none."""
    codec = stream.codec_context
    codec.options = {"err_detect": "crccheck+explode", "max_pixels": str(MAX_PIXELS)}
    stream.thread_type = "SLICE" if codec.codec.canonical_name in _PATCHED else "AUTO"
    codec.thread_count = threads


class PyAVSource:
    """Frames through PyAV.

    Args:
        stream: What to decode.
        threaded: Decode with several threads and stop at the first error. Otherwise with one,
            which conceals errors as FFmpeg does.
    """

    def __init__(self, stream: Stream, *, threaded: bool = True) -> None:
        self._stream = stream
        self._threaded = threaded
        self._frame: Any = None
        self._from_the_start = True
        self._first_key: int | None = None
        self._packets_read = 0
        self.damaged = self.interlaced = False

    def walk(self, start: int | None = None) -> Iterator[int | None]:
        self._from_the_start = start is None
        with opened(self._stream.path) as container:
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
        return picture_of(self._frame, self._stream)

    def _packets(self, container: Any, stream: Any) -> Iterator[Any]:
        """The packets up to where the file is too damaged to go on, then the flush."""
        try:
            yield from container.demux(stream)
        except (av.error.FFmpegError, OSError):
            self._note_damage()
            flush = av.Packet()
            flush.stream = stream
            yield flush

    def _decoded(self, packet: Any) -> list[Any]:
        """The frames that a packet completes; none where it is damaged."""
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
        """An error has been met at the packet in hand, or in a frame that it completes.

        Args:
            tick: When the damaged frame is shown, where that is known.
        """
        left = self._stream.packet_count - self._packets_read
        if self._threaded:
            raise DamagedError(at_end=left < TAIL)
        # A frame that breaks off may be two packets, of a field each.
        if self._from_the_start:
            self.damaged |= left >= 2
        elif tick is not None and self._first_key is not None:
            # Frames shown before the key frame at which decoding began may lack what they are
            # made from, which is no damage.
            self.damaged |= tick > self._first_key and tick not in self._stream.tail[-2:]
