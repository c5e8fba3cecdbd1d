"""What a container says about its picture, read from its packets without decoding any.

PyAV reads the packets: unlike OpenCV's raw mode it tells which ones an edit list hides and gives
time stamps as the integers that they are. The list is a claim, not yet a fact: the reader
checks it against frames that were decoded.
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
    encrypted,
    opened,
    video_streams,
    without_video,
)
from pandacli.video.images import Pages, has_odd_colours, read_pages, reads_avif

TAIL = 16
"""Packets after which several threads of a decoder have reported an error, if there is any."""
_CONVERT = "convert it to a common one first, such as H.264 in .mp4"
_PROGRESSIVE = {0, 1}
"""FFmpeg's numbers for a field order that is unknown, and for frames that have no fields."""
_LAYERS_AT = 21
"""The byte of HEVC's configuration record that counts temporal layers, in bits 3 to 5."""
_TO_JPEG = "convert it to JPEG first"
_NARROWEST = Fraction(1, 16)
"""The narrowest pixel, and upside down the widest, that is believed."""
_IMAGE_FORMATS = {"image2", "gif", "apng"}
_AVIF = {"avif", "avis"}
_ENCRYPTED_TAGS = {"encv", "drmi"}
_STILL_RATE = 25.0
_MPEG = {"mpegts", "mpeg"}
"""Formats whose clock has 33 bits, so that FFmpeg takes times that go back for a clock run over."""


@dataclass(frozen=True)
class Stream:
    """The video stream of a file, as its container describes it.

    Attributes:
        path: The file.
        index: Number of the stream in the file.
        codec: FFmpeg's name of the codec, "h264" or "av1".
        fps: Average frame rate; 0.0 where the container does not know.
        width, height: Size of a stored frame in pixels, before any rotation.
        time_base: Seconds a tick of `ticks`.
        zero: The tick at which the file begins (its earliest stream), from which times are told.
        ticks: Presentation times of the frames that the packets should decode to, ascending;
            None where the container gives no usable times.
        end: The tick at which the last of them ends; None where the container does not say.
        last_ticks: Those of the last two packets, ascending.
        tail: Those of the last `TAIL` packets in the file's order.
        key_ticks: Those of them from which decoding can begin, ascending.
        packet_count: How many packets should show something.
        claimed_count: How many frames the container's header promises, less those that it
            hides itself; 0 where it is silent.
        pixel_aspect: Width of a pixel over its height, as players show it.
        odd_colours: Whether the colours are stored in a way that can only be approximated.
        wrapping: Whether the container's clock runs over after a day.
        interlaced: Whether frames are stored as two fields.
        spare_frames: Whether frames that no other is made from are marked as such, beyond doubt.
        is_image: Whether Pillow reads it, page by page.
        damaged: Whether the file is too damaged to be read to its end.
        whole: Whether nothing hints at damage or at frames left out: every packet is there, shows
            something and has a time, and there are as many as the header promises.
    """

    path: Path
    index: int
    codec: str
    fps: float
    width: int
    height: int
    time_base: Fraction
    zero: int
    ticks: tuple[int, ...] | None
    end: int | None
    last_ticks: tuple[int, ...]
    tail: tuple[int, ...]
    key_ticks: tuple[int, ...]
    packet_count: int
    claimed_count: int
    pixel_aspect: Fraction
    odd_colours: bool
    wrapping: bool
    interlaced: bool
    spare_frames: bool
    is_image: bool
    damaged: bool
    whole: bool


def read_stream(path: str | os.PathLike[str]) -> Stream:
    """The video stream of the file at `path`, found without decoding.

    Raises:
        ClipError: There is no such file, it cannot be read, or there is no video in it that can.
    """
    file = Path(path)
    check_file(file)
    with opened(file) as container:
        streams = video_streams(container)
        if not streams:
            raise without_video(file, container)
        best = _describe(file, container, streams[0])
        others = [stream.index for stream in streams[1:]]
    if best.packet_count > 1 or best.is_image:
        return best
    for index in others:  # the best may be a thumbnail that the container does not mark as one
        with suppress(ClipError), opened(file) as container:
            other = _describe(file, container, container.streams[index])
            if other.packet_count > 1:
                return other
    return best


def _describe(path: Path, container: Any, stream: Any) -> Stream:
    """What there is to know of one stream of an open container.

    Raises:
        ClipError: It cannot be decoded: unknown, encrypted, too large, or one tile of many.
    """
    codec = stream.codec_context
    if codec is None:
        raise ClipError(f"no decoder here knows the kind of video in {path}", _CONVERT)
    if pages := _read_pages(container, stream, path):
        return _describe_image(path, stream, pages)
    if stream.disposition & av.stream.Disposition.dependent:
        raise ClipError(f"{path} is a picture in tiles (HEIC), which is not read", _TO_JPEG)
    pixel_aspect = _pixel_aspect(container, stream)
    check_size(path, codec.width, codec.height, pixel_aspect)
    packets = _read_packets(container, stream)
    if packets.encrypted:
        raise encrypted(path)
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
        ticks=packets.ticks,
        end=packets.end,
        last_ticks=packets.last_ticks,
        tail=packets.tail,
        key_ticks=packets.key_ticks,
        packet_count=packets.shown,
        claimed_count=max(0, stream.frames - packets.hidden),
        pixel_aspect=pixel_aspect,
        odd_colours=has_odd_colours(codec.colorspace, codec.color_primaries),
        wrapping=container.format.name in _MPEG,
        interlaced=codec.field_order not in _PROGRESSIVE,
        spare_frames=_marks_spare_frames(codec),
        is_image=False,
        damaged=packets.damaged,
        whole=packets.ticks is not None
        and not (packets.damaged or packets.doubtful or packets.hidden)
        and stream.frames in {0, packets.shown},
    )


def _read_pages(container: Any, stream: Any, path: Path) -> Pages | None:
    """The pages of an image that Pillow is to read; None where FFmpeg is."""
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
        ticks=pages.ticks,
        end=pages.end or None,
        last_ticks=pages.ticks[-1:],
        tail=(),
        key_ticks=pages.ticks[:1],
        packet_count=count,
        claimed_count=pages.claimed,
        pixel_aspect=Fraction(1),
        odd_colours=False,
        wrapping=False,
        interlaced=False,
        spare_frames=False,
        is_image=True,
        damaged=count < pages.claimed,
        whole=False,
    )


def _pixel_aspect(container: Any, stream: Any) -> Fraction:
    """Width over height of a pixel; a square's for images, whose resolution is for printers."""
    name = container.format.name
    aspect = stream.sample_aspect_ratio
    if not aspect or name in _IMAGE_FORMATS or name.endswith("_pipe"):
        return Fraction(1)
    square = abs(aspect - 1) <= Fraction(1, 100)
    return Fraction(1) if square or not _NARROWEST <= aspect <= 1 / _NARROWEST else aspect


@dataclass(frozen=True)
class _Packets:
    ticks: tuple[int, ...] | None
    end: int | None
    last_ticks: tuple[int, ...]
    tail: tuple[int, ...]
    key_ticks: tuple[int, ...]
    shown: int
    hidden: int
    damaged: bool
    doubtful: bool
    encrypted: bool


def _read_packets(container: Any, stream: Any) -> _Packets:
    ticks: list[int] = []
    key_ticks: list[int] = []
    last = (-(2**63), 0)  # tick and duration
    shown = hidden = 0
    damaged = doubtful = False
    locked = stream.codec_context.codec_tag in _ENCRYPTED_TAGS or "enc_key_id" in stream.metadata
    try:
        for packet in container.demux(stream):
            if not packet.size:
                continue
            if locked or packet.has_sidedata("encryption_info"):
                locked = True
                break
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
        damaged = True  # from here on; what comes before it may still be shown
    end = sum(last) if last[1] > 0 else None
    if end and stream.duration and container.format.name.startswith("mov"):
        # MP4 knows a packet's duration in the order of decoding only: it may be another frame's.
        whole = (stream.start_time or 0) + stream.duration
        end = min(end, whole) if whole > last[0] else end
    tail = tuple(ticks[-TAIL:])
    ticks.sort()
    usable = len(set(ticks)) == shown
    return _Packets(
        ticks=tuple(ticks) if usable else None,
        end=end,
        last_ticks=tuple(ticks[-2:]),
        tail=tail,
        key_ticks=tuple(sorted(key_ticks)),
        shown=shown,
        hidden=hidden,
        damaged=damaged,
        doubtful=doubtful,
        encrypted=locked,
    )


def _marks_spare_frames(codec: Any) -> bool:
    """Whether a decoder that is told to leave out frames that no other is made from does just that.

    In HEVC a frame so marked may still be the base of a higher temporal layer. Where there is one
    layer only, the decoder configuration record of the container says so (ISO/IEC 14496-15).
    """
    record = codec.extradata or b""
    one_layer = len(record) > _LAYERS_AT and record[0] == 1 and record[_LAYERS_AT] >> 3 & 7 == 1
    return codec.codec.canonical_name == "h264" or (
        codec.codec.canonical_name == "hevc" and one_layer
    )
