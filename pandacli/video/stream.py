"""The timestamp index of a video stream, read from its packets without decoding.

Unlike OpenCV's raw mode, PyAV tells which packets an edit list hides, and gives timestamps as exact
integers. The index is a claim that the decoder checks against decoded frames.
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from pandacli.errors import ClipError
from pandacli.video.container import (
    check_file,
    check_size,
    encrypted_error,
    no_video_error,
    open_container,
    video_streams,
)
from pandacli.video.images import Pages, has_odd_colours, read_pages, reads_avif

TAIL = 16
"""Packets within which a multithreaded decoder has reported any error."""
_CONVERT = "convert it to a common one first, such as H.264 in .mp4"
_PROGRESSIVE = {0, 1}  # FFmpeg's field orders "unknown" and "progressive"
_HEVC_LAYERS = 21  # byte of HEVC's configuration record with the temporal layers, in bits 3 to 5
_MIN_PIXEL_ASPECT = Fraction(1, 16)
_IMAGE_FORMATS = {"image2", "gif", "apng"}
_AVIF = {"avif", "avis"}
_ENCRYPTED_TAGS = {"encv", "drmi"}
_STILL_RATE = 25.0
_MPEG = {"mpegts", "mpeg"}  # 33-bit clocks: FFmpeg takes times that go back for a wrap-around


@dataclass(frozen=True)
class Stream:
    """The video stream of a file, as its container describes it.

    Attributes:
        path: The file.
        index: Number of the stream in the file.
        codec: FFmpeg's name of the codec, "h264" or "av1".
        fps: Average frame rate; 0.0 if unknown.
        width, height: Size of a stored frame in pixels, before rotation.
        time_base: Seconds per tick.
        zero: The tick of the beginning of the file (its earliest stream), where times start.
        packet_count: Number of packets that should show something.
        ticks: Presentation times of these packets, ascending; empty if they are unusable.
        end: The tick at which the last frame ends; None if unknown.
        last_ticks: Those of the last two packets, ascending.
        tail: Those of the last `TAIL` packets in the file's order.
        key_ticks: Those of the key frames, ascending.
        claimed_count: Frames promised by the header, less those it hides itself; 0 if unknown.
        damaged: Whether the file is too damaged to be read to its end.
        whole: Whether nothing hints at damage or missing frames: every packet shows something and
            has a time, and there are as many as the header promises.
        pixel_aspect: Displayed width of a pixel over its height.
        odd_colours: Whether the colours can only be converted approximately.
        wrapping: Whether the container's clock wraps around after a day.
        interlaced: Whether frames are stored as two fields.
        marks_nonref: Whether non-reference frames are reliably marked as such.
        is_image: Whether Pillow reads it, page by page.
    """

    path: Path
    index: int
    codec: str
    fps: float
    width: int
    height: int
    time_base: Fraction
    zero: int
    packet_count: int
    ticks: tuple[int, ...]
    end: int | None
    last_ticks: tuple[int, ...]
    tail: tuple[int, ...]
    key_ticks: tuple[int, ...]
    claimed_count: int
    damaged: bool
    whole: bool
    pixel_aspect: Fraction = Fraction(1)
    odd_colours: bool = False
    wrapping: bool = False
    interlaced: bool = False
    marks_nonref: bool = False
    is_image: bool = False


def read_stream(path: str | os.PathLike[str]) -> Stream:
    """Index the video stream of a file, without decoding.

    Raises:
        ClipError: There is no such file, it cannot be read, or it has no video that can be decoded.
    """
    file = Path(path)
    check_file(file)
    with open_container(file) as container:
        streams = video_streams(container)
        if not streams:
            raise no_video_error(file, container)
        best = _describe(file, container, streams[0])
        others = [stream.index for stream in streams[1:]]
    if best.packet_count > 1 or best.is_image:
        return best
    for index in others:  # the best may be an unmarked thumbnail
        with suppress(ClipError), open_container(file) as container:
            other = _describe(file, container, container.streams[index])
            if other.packet_count > 1:
                return other
    return best


def _describe(path: Path, container: Any, stream: Any) -> Stream:
    """Index one stream of an open container.

    Raises:
        ClipError: It cannot be decoded: unknown, encrypted, too large, or one tile of many.
    """
    codec = stream.codec_context
    if codec is None:
        raise ClipError(f"no decoder here knows the kind of video in {path}", _CONVERT)
    if pages := _read_pages(container, stream, path):
        return _describe_image(path, stream, pages)
    if stream.disposition & av.stream.Disposition.dependent:
        raise ClipError(
            f"{path} is a picture in tiles (HEIC), which is not read", "convert it to JPEG first"
        )
    pixel_aspect = _pixel_aspect(container, stream)
    check_size(path, codec.width, codec.height, pixel_aspect)
    time_base = stream.time_base or Fraction(1, 1000)
    zero = stream.start_time or 0
    if container.start_time is not None:
        zero = round(Fraction(container.start_time, av.time_base) / time_base)
    return Stream(
        path=path,
        index=stream.index,
        codec=codec.codec.canonical_name,
        fps=float(stream.average_rate or stream.guessed_rate or 0),
        width=codec.width,
        height=codec.height,
        time_base=time_base,
        zero=zero,
        **_read_packets(path, container, stream),
        pixel_aspect=pixel_aspect,
        odd_colours=has_odd_colours(codec.colorspace, codec.color_primaries),
        wrapping=container.format.name in _MPEG,
        interlaced=codec.field_order not in _PROGRESSIVE,
        marks_nonref=_marks_nonref(codec),
    )


def _read_pages(container: Any, stream: Any, path: Path) -> Pages | None:
    """The pages of an image that Pillow is to read; None if FFmpeg reads it."""
    if container.metadata.get("major_brand") in _AVIF and reads_avif():
        return read_pages(path)
    if stream.codec_context.name == "webp":
        pages = read_pages(path)
        still = stream.codec_context.width and pages and len(pages.ticks) == 1
        return None if still else pages
    return None


def _describe_image(path: Path, stream: Any, pages: Pages) -> Stream:
    check_size(path, pages.width, pages.height)
    count = len(pages.ticks)
    return Stream(
        path=path,
        index=stream.index,
        codec=stream.codec_context.codec.canonical_name,
        fps=1000 * count / pages.end if pages.end else _STILL_RATE,
        width=pages.width,
        height=pages.height,
        time_base=Fraction(1, 1000),
        zero=0,
        packet_count=count,
        ticks=pages.ticks,
        end=pages.end or None,
        last_ticks=pages.ticks[-1:],
        tail=(),
        key_ticks=pages.ticks[:1],
        claimed_count=pages.claimed,
        damaged=count < pages.claimed,
        whole=False,
        is_image=True,
    )


def _pixel_aspect(container: Any, stream: Any) -> Fraction:
    """Width over height of a pixel; square for images, whose resolution is meant for printing."""
    name = container.format.name
    aspect = stream.sample_aspect_ratio
    if not aspect or name in _IMAGE_FORMATS or name.endswith("_pipe"):
        return Fraction(1)
    square = abs(aspect - 1) <= Fraction(1, 100)
    believable = _MIN_PIXEL_ASPECT <= aspect <= 1 / _MIN_PIXEL_ASPECT
    return aspect if believable and not square else Fraction(1)


def _read_packets(path: Path, container: Any, stream: Any) -> dict[str, Any]:
    """The attributes of `Stream` that follow from its packets.

    Raises:
        ClipError: They are encrypted.
    """
    ticks: list[int] = []
    key_ticks: list[int] = []
    last = (-(2**63), 0)  # tick and duration
    shown = hidden = 0
    damaged = doubtful = False
    if stream.codec_context.codec_tag in _ENCRYPTED_TAGS or "enc_key_id" in stream.metadata:
        raise encrypted_error(path)
    try:
        for packet in container.demux(stream):
            if not packet.size:
                continue
            if packet.has_sidedata("encryption_info"):
                raise encrypted_error(path)
            doubtful |= packet.is_corrupt
            if packet.is_discard:
                hidden += 1
                continue
            shown += 1
            if packet.pts is not None:
                ticks.append(packet.pts)
                last = max(last, (packet.pts, packet.duration or 0))
                if packet.is_keyframe:
                    key_ticks.append(packet.pts)
    except (av.error.FFmpegError, OSError):
        damaged = True  # frames before this point may still be shown
    end = sum(last) if last[1] > 0 else None
    if end and stream.duration and container.format.name.startswith("mov"):
        # MP4 stores durations in decoding order: the last one may be that of another frame
        stream_end = (stream.start_time or 0) + stream.duration
        end = min(end, stream_end) if stream_end > last[0] else end
    tail = tuple(ticks[-TAIL:])
    ticks.sort()
    usable = len(set(ticks)) == shown
    suspect = damaged or doubtful or hidden
    return {
        "packet_count": shown,
        "ticks": tuple(ticks) if usable else (),
        "end": end,
        "last_ticks": tuple(ticks[-2:]),
        "tail": tail,
        "key_ticks": tuple(sorted(key_ticks)),
        "claimed_count": max(0, stream.frames - hidden),
        "damaged": damaged,
        "whole": usable and not suspect and stream.frames in {0, shown},
    }


def _marks_nonref(codec: Any) -> bool:
    """Whether skipping non-reference frames in this stream never loses others.

    An HEVC frame marked so may be the reference of a higher temporal layer; the decoder
    configuration record (ISO/IEC 14496-15) tells whether there is one layer only.
    """
    name = codec.codec.canonical_name
    record = codec.extradata or b""
    one_layer = len(record) > _HEVC_LAYERS and record[0] == 1 and record[_HEVC_LAYERS] >> 3 & 7 == 1
    return name == "h264" or (name == "hevc" and one_layer)
