"""Open a video file, refuse anything but a single file with pictures, and index its video stream.

Playlists are refused before FFmpeg opens the files they name. The timestamp index is read from the
packets, without decoding; the decoder checks it against decoded frames.
"""

import os
import re
import stat
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av
import av.logging

from pandacli.errors import ClipError
from pandacli.video import images

av.logging.set_level(None)

NOT_VIDEO = "give a video file, such as .mp4, .mkv, .webm, .mov, .avi or .gif"
MAX_PIXELS = 200_000_000  # of the largest frame that is decoded, 600 MB as RGB
TAIL = 16  # packets within which a multithreaded decoder has reported any error

_TEXT_FORMATS = {"tty", "ffmetadata", "lrc"}  # FFmpeg renders the text, or nothing
_PLAYLIST_FORMATS = {  # their demuxers open other files, URLs or devices
    *("hls", "dash", "concat", "imf", "webm_dash_manifest", "smoothstreaming", "hds"),
    *("sdp", "rtsp", "rtp", "sap", "lavfi", "avisynth", "vapoursynth", "vobsub"),
}
_PLAYLIST_SUFFIXES = {
    *(".m3u", ".m3u8", ".mpd", ".ffconcat", ".pls", ".asx", ".wax", ".wvx", ".wmx", ".ram"),
    *(".smil", ".smi", ".xspf", ".wpl", ".zpl", ".f4m", ".ism", ".ismc", ".sdp", ".cpl"),
}
_PLAYLIST_START = re.compile(
    r"#extm3u|ffconcat\s+version|\[playlist\]|\[reference\]|\[internetshortcut\]|rtsptext|smiltext"
    r"|v=0\s*\n.*\nm="
    # possessive and atomic, so that there is no backtracking
    r"|(?:(?><\?.*?\?>|<!--.*?-->|<!doctype[^>]*>)\s*+)*+<(?:[a-z0-9]+:)?"
    r"(?:mpd|smil|asx|playlist|smoothstreamingmedia|manifest|assetmap|packinglist"
    r"|compositionplaylist)[\s>]",
    re.DOTALL,
)
_SNIFF_BYTES = 4096
_MAX_BOXES = 1000
_TS_PACKET, _TS_SYNC = 188, 0x47
_PROGRESSIVE = {0, 1}  # FFmpeg's field orders "unknown" and "progressive"
_HEVC_LAYERS = 21  # byte of HEVC's configuration record with the temporal layers, in bits 3 to 5
_MIN_PIXEL_ASPECT = Fraction(1, 16)
_IMAGE_FORMATS = {"image2", "gif", "apng"}
_STILL_RATE = 25.0
_WRAPPING = {"mpegts", "mpeg"}  # 33-bit clocks: FFmpeg takes times that go back for a wrap-around
_ENCRYPTED_TAGS = {"encv", "drmi"}


@dataclass(frozen=True)
class Stream:
    """The video stream of a file, as its container describes it."""

    path: Path
    index: int  # of the stream in the file
    codec: str  # FFmpeg's name, such as "h264"
    fps: float  # average; 0.0 if unknown
    frame_pixels: int  # of a stored frame
    time_base: Fraction  # seconds per tick
    packet_count: int  # packets that should show something
    ticks: tuple[int, ...]  # their presentation times, ascending; empty if they are unusable
    end: int | None  # tick at which the last frame ends
    last_ticks: tuple[int, ...]  # of the last two packets, ascending
    claimed_count: int  # frames by the header, less those it hides itself; 0 if unknown
    damaged: bool  # cannot be read to its end
    key_ticks: tuple[int, ...] = ()  # of the key frames, ascending
    zero: int = 0  # tick of the beginning of the file (its earliest stream), where times start
    tail: tuple[int, ...] = ()  # times of the last `TAIL` packets in the file's order
    whole: bool = False  # nothing hints at damage, hidden or missing frames
    pixel_aspect: Fraction = Fraction(1)  # displayed width of a pixel over its height
    odd_colours: bool = False  # can only be converted approximately
    wrapping: bool = False  # the container's clock wraps around after a day
    interlaced: bool = False
    marks_nonref: bool = False  # non-reference frames are reliably marked as such
    is_image: bool = False  # Pillow reads it, page by page


def check_file(path: Path) -> None:
    """Refuse what is not a readable regular file with content, or is a playlist."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ClipError(f"{path} is a directory", NOT_VIDEO)
        if not stat.S_ISREG(status.st_mode):  # a pipe or device may block, and is read only once
            raise ClipError(f"{path} is not a regular file", "save the video to a file first")
        if status.st_size == 0:
            raise ClipError(f"{path} is empty", NOT_VIDEO)
        with path.open("rb") as file:
            start = file.read(_SNIFF_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        raise ClipError(f"there is no file {path}", "check the path") from None
    except PermissionError:
        raise ClipError(f"{path} may not be read", "ask for permission to read it") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ClipError(f"{path} cannot be opened: {reason}") from None
    if _names_other_files(path, start):
        raise ClipError(
            f"{path} is a playlist: it names other files, and a clip is one file",
            "give one of the videos that it names, or join them into one file first",
        )


def _names_other_files(path: Path, start: bytes) -> bool:
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = start.decode("utf-16", "replace")
    else:
        text = start.removeprefix(b"\xef\xbb\xbf").decode("latin-1")
    by_suffix = path.suffix.lower() in _PLAYLIST_SUFFIXES and "\0" not in text
    return by_suffix or bool(_PLAYLIST_START.match(text.lstrip().lower()))


def open_container(path: Path) -> Any:
    try:
        # FFmpeg cannot take an absolute path for a URL
        return av.open(str(path.absolute()), metadata_errors="replace", options=_options())
    except (av.error.FFmpegError, OSError, ValueError):
        if _lacks_index(path):
            message = f"{path} looks incomplete: it has no index (moov)"
            raise ClipError(message, "download or copy it again") from None
        raise ClipError(f"{path} is not a video that can be read", NOT_VIDEO) from None


@cache
def _options() -> dict[str, str]:
    """Options that limit FFmpeg to the file itself and to frames of a sane size."""
    return {
        "format_whitelist": ",".join(sorted(av.formats_available - _PLAYLIST_FORMATS)),
        "protocol_whitelist": "file",
        "pattern_type": "none",  # not `img%03d.png`
        "max_pixels": str(MAX_PIXELS),
    }


def _lacks_index(path: Path) -> bool:
    """Whether an MP4 or QuickTime file has no `moov` box (ISO/IEC 14496-12, 4.2), as if cut off."""
    names: list[bytes] = []
    with suppress(OSError), path.open("rb") as file:
        start, end = 0, file.seek(0, os.SEEK_END)
        while start + 8 <= end and len(names) < _MAX_BOXES:
            file.seek(start)
            header = file.read(16)
            names.append(header[4:8])
            size = int.from_bytes(header[:4], "big")
            if size == 1:
                size = int.from_bytes(header[8:], "big")
            if size < 8:  # 0: to the end of the file
                break
            start += size
        return names[:1] in ([b"ftyp"], [b"mdat"], [b"wide"]) and b"moov" not in names
    return False


def clock_start(path: Path) -> float:
    """The time of a file's own clock, in seconds, where its times as of `Stream.zero` start."""
    with open_container(path) as container:
        return float(container.start_time or 0) / av.time_base


def encrypted_error(path: Path) -> ClipError:
    return ClipError(f"{path} is encrypted", "give a copy without copy protection")


def is_scrambled(path: Path) -> bool:
    """Whether a file is an MPEG transport stream of which most packets are scrambled."""
    with suppress(OSError), path.open("rb") as file:
        start = file.read(_TS_PACKET * 20_000)
        for size in (_TS_PACKET, _TS_PACKET + 4):  # .m2ts adds arrival times
            packets = range(size - _TS_PACKET, len(start) - _TS_PACKET, size)
            if packets and all(start[at] == _TS_SYNC for at in packets[:100]):
                return 2 * sum(start[at + 3] >> 6 > 1 for at in packets) > len(packets)
    return False


def read_stream(path: str | os.PathLike[str]) -> Stream:
    file = Path(path)
    check_file(file)
    with open_container(file) as container:
        streams = _video_streams(file, container)
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


def _video_streams(path: Path, container: Any) -> list[Any]:
    """The video streams, the best first: no cover picture, no thumbnail if there is another."""
    if container.format.name in _TEXT_FORMATS:
        raise ClipError(f"{path} is text, not a video", NOT_VIDEO)
    kinds = av.stream.Disposition
    streams = [s for s in container.streams.video if not s.disposition & kinds.attached_pic]
    if not streams:
        if is_scrambled(path):  # FFmpeg may detect any format
            raise encrypted_error(path)
        what = "has sound but no picture" if container.streams.audio else "has no video in it"
        raise ClipError(f"{path} {what}", NOT_VIDEO)
    for minor in (kinds.timed_thumbnails, kinds.still_image, kinds.dependent):
        streams = [s for s in streams if not s.disposition & minor] or streams
    streams = [s for s in streams if s.frames != 1] or streams
    best = container.streams.best("video")

    def rank(stream: Any) -> tuple[bool, int, int]:
        codec = stream.codec_context
        return stream is not best, -codec.width * codec.height if codec else 1, stream.index

    return sorted(streams, key=rank)


def _describe(path: Path, container: Any, stream: Any) -> Stream:
    codec = stream.codec_context
    if codec is None:
        message = f"no decoder here knows the kind of video in {path}"
        raise ClipError(message, "convert it to a common one first, such as H.264 in .mp4")
    name = codec.codec.canonical_name
    if pages := _read_pages(container, codec, path):
        _check_size(path, pages.width, pages.height)
        count = len(pages.ticks)
        return Stream(
            path=path,
            index=stream.index,
            codec=name,
            fps=1000 * count / pages.end if pages.end else _STILL_RATE,
            frame_pixels=pages.width * pages.height,
            time_base=Fraction(1, 1000),
            packet_count=count,
            ticks=pages.ticks,
            end=pages.end or None,
            last_ticks=pages.ticks[-1:],
            claimed_count=pages.claimed,
            damaged=count < pages.claimed,
            is_image=True,
        )
    if stream.disposition & av.stream.Disposition.dependent:
        message = f"{path} is a picture in tiles (HEIC), which is not read"
        raise ClipError(message, "convert it to JPEG first")
    pixel_aspect = _pixel_aspect(container, stream)
    _check_size(path, codec.width, codec.height, pixel_aspect)
    time_base = stream.time_base or Fraction(1, 1000)
    zero = stream.start_time or 0
    if container.start_time is not None:
        zero = round(Fraction(container.start_time, av.time_base) / time_base)
    return Stream(
        path=path,
        index=stream.index,
        codec=name,
        fps=float(stream.average_rate or stream.guessed_rate or 0),
        frame_pixels=codec.width * codec.height,
        time_base=time_base,
        zero=zero,
        **_read_packets(path, container, stream),
        pixel_aspect=pixel_aspect,
        odd_colours=images.has_odd_colours(codec.colorspace, codec.color_primaries),
        wrapping=container.format.name in _WRAPPING,
        interlaced=codec.field_order not in _PROGRESSIVE,
        # An HEVC frame marked so may be the reference of a higher temporal layer; the decoder
        # configuration record (ISO/IEC 14496-15) tells whether there is one layer only.
        marks_nonref=name == "h264" or (name == "hevc" and _has_one_layer(codec.extradata or b"")),
    )


def _has_one_layer(record: bytes) -> bool:
    return len(record) > _HEVC_LAYERS and record[0] == 1 and record[_HEVC_LAYERS] >> 3 & 7 == 1


def _read_pages(container: Any, codec: Any, path: Path) -> images.Pages | None:
    """The pages of an image that Pillow is to read; None if FFmpeg reads it."""
    if container.metadata.get("major_brand") in ("avif", "avis") and images.reads_avif():
        return images.read_pages(path)
    pages = images.read_pages(path) if codec.name == "webp" else None
    return None if codec.width and pages and len(pages.ticks) == 1 else pages


def _pixel_aspect(container: Any, stream: Any) -> Fraction:
    """Width over height of a pixel; square for images, whose resolution is meant for printing."""
    name, aspect = container.format.name, stream.sample_aspect_ratio
    if not aspect or name in _IMAGE_FORMATS or name.endswith("_pipe"):
        return Fraction(1)
    square = abs(aspect - 1) <= Fraction(1, 100)
    believable = _MIN_PIXEL_ASPECT <= aspect <= 1 / _MIN_PIXEL_ASPECT
    return aspect if believable and not square else Fraction(1)


def _check_size(path: Path, width: int, height: int, pixel_aspect: Fraction = Fraction(1)) -> None:
    """Refuse frames too large to decode, as stored or with square pixels; 0 is unknown."""
    width, height = images.square_size(width, height, pixel_aspect)
    size, pixels = f"{width} x {height}", width * height
    if not pixels:  # FFmpeg drops a size that it refuses
        pixels = images.count_pixels(path)
        size = f"{pixels // 1_000_000} million"
    if pixels > MAX_PIXELS:
        limit = f"at most {MAX_PIXELS // 1_000_000} million are read"
        message = f"{path} is too large: {size} pixels a frame, and {limit}"
        raise ClipError(message, "make it smaller first")


def _read_packets(path: Path, container: Any, stream: Any) -> dict[str, Any]:
    """The fields of `Stream` that follow from its packets."""
    ticks: list[int] = []
    key_ticks: list[int] = []
    last = (-(2**63), 0)  # tick and duration
    shown, hidden, damaged, doubtful = 0, 0, False, False
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
