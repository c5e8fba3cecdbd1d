"""Decoders as walks: from some moment on, one frame after the other, in presentation order.

OpenCV does the work. PyAV takes over what OpenCV opens but cannot decode (its wheels have no
AV1 decoder), and what it would not show as it was stored: from version 5 on it maps HDR and
BT.2020 to a plain screen, which neither the model's training nor any other reader does.
Pillow reads animated WebP, which FFmpeg does not.
"""

import os
from collections.abc import Iterator
from typing import Any, Protocol

import av
import numpy as np
from numpy.typing import NDArray

from pandacli.video.stream import Stream, address, choose_stream, opened

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

import cv2

Picture = NDArray[np.uint8]


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
        """The frame that `walk` yielded last, turned upright: uint8 `(H, W, 3)`, RGB."""


class OpenCVSource:
    """Frames through `cv2.VideoCapture`, which turns them upright itself."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._capture: cv2.VideoCapture | None = None

    def walk(self, start: int | None = None) -> Iterator[int | None]:
        stream = self._stream
        capture = cv2.VideoCapture(address(stream.path), cv2.CAP_FFMPEG)
        self._capture = capture
        milliseconds = 1000 * stream.time_base
        if start is not None:
            capture.set(cv2.CAP_PROP_POS_MSEC, float((start - stream.first_tick) * milliseconds))
        try:
            while capture.grab():
                if stream.ticks is None:
                    yield None
                else:
                    position = capture.get(cv2.CAP_PROP_POS_MSEC)
                    yield round(position / milliseconds) + stream.first_tick
        finally:
            capture.release()

    def picture(self) -> Picture:
        assert self._capture is not None, "walk first"
        decoded, bgr = self._capture.retrieve()
        if not decoded:
            raise ValueError("OpenCV cannot convert this frame")
        return np.ascontiguousarray(bgr[..., ::-1], np.uint8)


class PyAVSource:
    """Frames through PyAV, turned upright here."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._frame: Any = None

    def walk(self, start: int | None = None) -> Iterator[int | None]:
        with opened(self._stream.path) as container:
            stream = choose_stream(container)
            assert stream is not None
            stream.thread_type = "AUTO"
            if start is not None:
                container.seek(start, stream=stream)
            for packet in _packets(container, stream):
                for frame in _decoded(packet):
                    self._frame = frame
                    yield frame.pts

    def picture(self) -> Picture:
        # The interpolation is that of the colour planes of high-bit-depth and chroma-subsampled
        # frames; bicubic is what FFmpeg and OpenCV use.
        rgb = self._frame.to_ndarray(format="rgb24", interpolation="BICUBIC")
        quarter_turns = round(self._frame.rotation / 90) % 4
        return np.ascontiguousarray(np.rot90(rgb, quarter_turns), np.uint8)


def _packets(container: Any, stream: Any) -> Iterator[Any]:
    """The packets of a stream, up to where the file is too damaged to go on, and the flush."""
    try:
        yield from container.demux(stream)
    except (av.error.FFmpegError, OSError):
        yield av.Packet()


def _decoded(packet: Any) -> list[Any]:
    """The frames that a packet completes; none where it is damaged."""
    try:
        frames: list[Any] = packet.decode()
    except av.error.FFmpegError:
        return []
    return frames


def sources_for(stream: Stream) -> list[Source]:
    """Decoders to try on a stream, the one to prefer first."""
    opencv, pyav = OpenCVSource(stream), PyAVSource(stream)
    if stream.codec in {"av1", "libdav1d"} or stream.wide_colour or not stream.alone:
        return [pyav, opencv]
    return [opencv, pyav]
