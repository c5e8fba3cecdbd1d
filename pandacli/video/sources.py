"""Decoders as walks: from some moment on, one frame after the other, in presentation order.

OpenCV does the work wherever it can be trusted. PyAV takes over

* what OpenCV opens but cannot decode: its wheels have no AV1 decoder;
* what OpenCV would not show as it is stored: from version 5 on it maps HDR and BT.2020 to a
  plain screen, which neither the training of the model nor any other reader does;
* interlaced frames, which OpenCV leaves black while reporting success (its swscale refuses them);
* damaged streams, where OpenCV gives up at the first gap.

Pillow reads animated WebP, which FFmpeg does not.
"""

import os
from collections.abc import Iterator
from typing import Any, Protocol

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pandacli.video.stream import Stream, address, choose_stream, opened

# Both are read once, when OpenCV is loaded or first opens a file. What is wrong with a file is
# ours to say.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")

import cv2

Picture = NDArray[np.uint8]

_ROUNDING = 2.0
"""Grey levels by which two right conversions of one frame to RGB may differ on average."""


class DoubtfulPictureError(Exception):
    """A decoder's picture that may not be what the stream holds."""


class Source(Protocol):
    """A decoder of one stream."""

    def walk(self, start: int | None = None) -> Iterator[int | None]:
        """Decode in order and yield the tick of each frame, None where it has none.

        Args:
            start: Begin at a frame from which decoding can start and which should lie at this
                tick or before it (where it really lies, the first tick yielded tells); None
                for the very first frame.
        """

    def picture(self) -> Picture:
        """The frame that `walk` yielded last, turned upright: uint8 `(H, W, 3)`, RGB.

        Raises:
            DoubtfulPictureError: It may be wrong; another decoder should be asked.
        """


def sources_for(stream: Stream) -> tuple[Source, Source]:
    """The decoder to use for a stream, and the one whose word is final where that one fails."""
    if stream.codec == "webp" and stream.packet_count > 1:
        return PillowSource(stream), PillowSource(stream)
    usual = OpenCVSource(stream) if _fit_for_opencv(stream) else PyAVSource(stream)
    return usual, PyAVSource(stream, threaded=False)


def shown_first_by_opencv(stream: Stream) -> Picture | None:
    """The first picture of a stream as OpenCV shows it; None where it shows none."""
    source = OpenCVSource(stream, threads=1)
    for _ in source.walk():
        try:
            return source.picture()
        except DoubtfulPictureError:
            return None
    return None


def _fit_for_opencv(stream: Stream) -> bool:
    """Whether OpenCV should be able to read a stream, and does show its first frame rightly."""
    return made_for_opencv(stream) and _same_first_picture(
        OpenCVSource(stream), PyAVSource(stream, threaded=False)
    )


def made_for_opencv(stream: Stream) -> bool:
    """Whether OpenCV should be able to read a stream."""
    return (
        stream.alone
        and stream.codec != "av1"
        and not stream.wide_colour
        and not stream.interlaced
        # OpenCV crashes on a path that is not valid UTF-8.
        and not any("\udc80" <= letter <= "\udcff" for letter in str(stream.path.absolute()))
    )


def _same_first_picture(one: Source, other: Source) -> bool:
    """Whether two decoders show the same first frame, but for rounding."""
    for _ in zip(one.walk(), other.walk(), strict=False):
        try:
            pictures = one.picture(), other.picture()
        except DoubtfulPictureError:
            return False
        if pictures[0].shape != pictures[1].shape:
            return False
        difference = pictures[0].astype(np.int16) - pictures[1]
        return bool(np.abs(difference).mean() < _ROUNDING)
    return False


class OpenCVSource:
    """Frames through `cv2.VideoCapture`, which turns them upright itself.

    A conversion to RGB that fails is reported as a success and leaves OpenCV's buffer as it
    was. So the first frame of every walk is converted, wanted or not, and a picture that equals
    the one before it is not believed. The file's first frame has none before it; `sources_for`
    compares that one with another decoder's.
    """

    def __init__(self, stream: Stream, *, threads: int | None = None) -> None:
        self._stream = stream
        self._options = [] if threads is None else [cv2.CAP_PROP_N_THREADS, threads]
        self._capture = cv2.VideoCapture()
        self._before: Picture | None = None
        self._at_first_frame = False

    def walk(self, start: int | None = None) -> Iterator[int | None]:
        stream = self._stream
        capture = cv2.VideoCapture(address(stream.path), cv2.CAP_FFMPEG, self._options)
        self._capture, self._before = capture, None
        milliseconds = 1000 * stream.time_base
        if start is not None:
            capture.set(cv2.CAP_PROP_POS_MSEC, float((start - stream.first_tick) * milliseconds))
        try:
            while capture.grab():
                self._at_first_frame = start is None and self._before is None
                if self._before is None:
                    self._before = self._convert()
                position = capture.get(cv2.CAP_PROP_POS_MSEC)
                yield round(position / milliseconds) + stream.first_tick
        finally:
            capture.release()

    def picture(self) -> Picture:
        bgr = self._convert()
        before = None if self._at_first_frame else self._before
        if bgr.ndim != 3 or (before is not None and np.array_equal(bgr, before)):
            raise DoubtfulPictureError("OpenCV may not have converted this frame")
        self._before = bgr
        return _to_rgb(bgr)

    def _convert(self) -> Picture:
        """The frame as OpenCV gives it, BGR; an empty array where it admits that it cannot."""
        decoded, image = self._capture.retrieve()
        return np.asarray(image, np.uint8) if decoded else np.empty(0, np.uint8)


class PyAVSource:
    """Frames through PyAV, turned upright here.

    On damaged streams several threads lose frames and patch holes differently from run to run;
    a single one does what the reference decoder does.
    """

    def __init__(self, stream: Stream, *, threaded: bool = True) -> None:
        self._stream = stream
        self._threaded = threaded
        self._frame: Any = None

    def walk(self, start: int | None = None) -> Iterator[int | None]:
        with opened(self._stream.path) as container:
            stream: Any = choose_stream(container)
            if self._threaded:
                stream.thread_type = "AUTO"
            else:
                stream.codec_context.thread_count = 1
            if start is not None:
                try:
                    container.seek(start, stream=stream)
                except (av.error.FFmpegError, OSError):
                    return
            for packet in _packets(container, stream):
                for frame in _decoded(packet):
                    self._frame = frame
                    yield frame.pts

    def picture(self) -> Picture:
        return upright(self._frame)


def upright(frame: Any, *, like_opencv: bool = False) -> Picture:
    """A frame of PyAV's as a picture, turned upright: uint8 `(H, W, 3)`, RGB.

    Args:
        like_opencv: Round as OpenCV does, which converts to BGR.

    Raises:
        DoubtfulPictureError: It cannot be converted.
    """
    try:
        # Bicubic for the colour planes, as in FFmpeg's own and in OpenCV's conversion.
        order = "bgr24" if like_opencv else "rgb24"
        picture = frame.to_ndarray(format=order, interpolation="BICUBIC")
    except (av.error.FFmpegError, OSError, ValueError):
        raise DoubtfulPictureError("PyAV cannot convert this frame") from None
    quarter_turns = round(frame.rotation / 90) % 4
    rgb = _to_rgb(picture) if like_opencv else picture
    return np.ascontiguousarray(np.rot90(rgb, quarter_turns), np.uint8)


def _to_rgb(bgr: Picture) -> Picture:
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def _packets(container: Any, stream: Any) -> Iterator[Any]:
    """The packets of a stream up to where the file is too damaged to go on, then the flush."""
    try:
        yield from container.demux(stream)
    except (av.error.FFmpegError, OSError):
        flush = av.Packet()
        flush.stream = stream
        yield flush


def _decoded(packet: Any) -> list[Any]:
    """The frames that a packet completes; none where it is damaged."""
    try:
        frames: list[Any] = packet.decode()
    except (av.error.FFmpegError, OSError):
        return []
    return frames


class PillowSource:
    """Frames of an animated WebP through Pillow; a tick is a millisecond."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._image: Image.Image | None = None

    def walk(self, start: int | None = None) -> Iterator[int | None]:
        with Image.open(self._stream.path) as image:
            self._image = image
            for number, tick in enumerate(self._stream.ticks or ()):
                try:
                    image.seek(number)
                    image.load()
                except (OSError, EOFError):
                    return
                if start is None or tick >= start:
                    yield tick

    def picture(self) -> Picture:
        assert self._image is not None, "walk first"
        return np.array(self._image.convert("RGB"))
