"""Open a video file, and refuse everything that is not one file with pictures in it.

A clip is one file. Playlists are recognised by their first bytes or by FFmpeg's format, and refused
before FFmpeg opens the files they name; file names are never patterns (`img%03d.png`).
"""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av
import av.logging

from pandacli.errors import ClipError
from pandacli.video.images import count_pixels

av.logging.set_level(None)

NOT_VIDEO = "give a video file, such as .mp4, .mkv, .webm, .mov, .avi or .gif"
MAX_PIXELS = 200_000_000
"""Pixels of the largest frame that is decoded, 600 MB as RGB."""

_TEXT_FORMATS = {"tty", "ffmetadata", "lrc"}
"""Formats in which FFmpeg renders text, or nothing."""
_PLAYLIST_FORMATS = {
    *("hls", "dash", "concat", "imf", "webm_dash_manifest", "smoothstreaming", "hds"),
    *("sdp", "rtsp", "rtp", "sap", "lavfi", "avisynth", "vapoursynth", "vobsub"),
}
"""Formats whose demuxers open other files, URLs or devices."""
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


def check_file(path: Path) -> None:
    """Check that a path is a readable regular file with content, and not a playlist.

    Raises:
        ClipError: It is missing, empty, a playlist, not a regular file, or not readable.
    """
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise ClipError(f"there is no file {path}", "check the path") from None
    except (OSError, ValueError) as error:
        raise ClipError(f"{path} cannot be opened: {_reason(error)}") from None
    if stat.S_ISDIR(status.st_mode):
        raise ClipError(f"{path} is a directory", NOT_VIDEO)
    if not stat.S_ISREG(status.st_mode):
        # a pipe or device may block, and cannot be read twice
        raise ClipError(f"{path} is not a regular file", "save the video to a file first")
    if status.st_size == 0:
        raise ClipError(f"{path} is empty", NOT_VIDEO)
    try:
        with path.open("rb") as file:
            start = file.read(_SNIFF_BYTES)
    except PermissionError:
        raise ClipError(f"{path} may not be read", "ask for permission to read it") from None
    except OSError as error:
        raise ClipError(f"{path} cannot be read: {_reason(error)}") from None
    if _names_other_files(path, start):
        raise _playlist(path)


@contextmanager
def open_container(path: Path) -> Iterator[Any]:
    """Open the container at `path` in PyAV.

    Raises:
        ClipError: FFmpeg does not know the format, it is a playlist, or it is too damaged to open.
    """
    try:
        # FFmpeg cannot take an absolute path for a URL
        container = av.open(str(path.absolute()), metadata_errors="replace", options=_options())
    except (av.error.FFmpegError, OSError, ValueError):
        if _lacks_index(path):
            raise ClipError(
                f"{path} looks incomplete: it has no index (moov)", "download or copy it again"
            ) from None
        raise ClipError(f"{path} is not a video that can be read", NOT_VIDEO) from None
    with container:
        yield container


def _lacks_index(path: Path) -> bool:
    """Whether an MP4 or QuickTime file has no `moov` box (ISO/IEC 14496-12, 4.2), as if cut off."""
    names: list[bytes] = []
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            start = 0
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
    except OSError:
        return False
    return names[:1] in ([b"ftyp"], [b"mdat"], [b"wide"]) and b"moov" not in names


@cache
def _options() -> dict[str, str]:
    """Options that limit FFmpeg to the file itself and to frames of a sane size."""
    allowed = sorted(av.formats_available - _PLAYLIST_FORMATS)
    return {
        "format_whitelist": ",".join(allowed),
        "protocol_whitelist": "file",
        "pattern_type": "none",
        "max_pixels": str(MAX_PIXELS),
    }


def _names_other_files(path: Path, start: bytes) -> bool:
    """Whether a file starting with these bytes is a playlist."""
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = start.decode("utf-16", "replace")
    else:
        text = start.removeprefix(b"\xef\xbb\xbf").decode("latin-1")
    if _PLAYLIST_START.match(text.lstrip().lower()):
        return True
    return path.suffix.lower() in _PLAYLIST_SUFFIXES and "\0" not in text


def _playlist(path: Path) -> ClipError:
    return ClipError(
        f"{path} is a playlist: it names other files, and a clip is one file",
        "give one of the videos that it names, or join them into one file first",
    )


def video_streams(container: Any) -> list[Any]:
    """The candidate video streams, the best first.

    Cover pictures are left out; thumbnails and tracks of one frame if there are others.
    """
    if container.format.name in _TEXT_FORMATS:
        return []
    kinds = av.stream.Disposition
    streams = [s for s in container.streams.video if not s.disposition & kinds.attached_pic]
    for minor in (kinds.timed_thumbnails, kinds.still_image, kinds.dependent):
        streams = [s for s in streams if not s.disposition & minor] or streams
    streams = [s for s in streams if s.frames != 1] or streams
    best = container.streams.best("video")
    return sorted(streams, key=lambda stream: (stream is not best, -_area(stream), stream.index))


def _area(stream: Any) -> int:
    codec = stream.codec_context
    return codec.width * codec.height if codec is not None else -1


def no_video_error(path: Path, container: Any) -> ClipError:
    """The error for a container without a video stream."""
    if container.format.name in _TEXT_FORMATS:
        return ClipError(f"{path} is text, not a video", NOT_VIDEO)
    if is_scrambled(path):  # FFmpeg may detect any format
        return encrypted_error(path)
    if container.streams.audio:
        return ClipError(f"{path} has sound but no picture", NOT_VIDEO)
    return ClipError(f"{path} has no video in it", NOT_VIDEO)


def encrypted_error(path: Path) -> ClipError:
    """The error for a file that needs a key."""
    return ClipError(f"{path} is encrypted", "give a copy without copy protection")


def is_scrambled(path: Path) -> bool:
    """Whether a file is an MPEG transport stream of which most packets are scrambled."""
    with suppress(OSError), path.open("rb") as file:
        start = file.read(_TS_PACKET * 20_000)
        for size in (_TS_PACKET, _TS_PACKET + 4):  # .m2ts adds arrival times
            packets = range(size - _TS_PACKET, len(start) - _TS_PACKET, size)
            if packets and all(start[at] == _TS_SYNC for at in packets[:100]):
                scrambled = sum(start[at + 3] >> 6 > 1 for at in packets)
                return 2 * scrambled > len(packets)
    return False


def check_size(path: Path, width: int, height: int, pixel_aspect: Fraction = Fraction(1)) -> None:
    """Check that frames are not too large to decode.

    Args:
        path: The file.
        width: Stored width, 0 where FFmpeg does not say.
        height: Stored height, likewise.
        pixel_aspect: Width of a pixel over its height.

    Raises:
        ClipError: They are too large, as stored or with square pixels.
    """
    if pixel_aspect > 1:
        width = round(width * pixel_aspect)
    else:
        height = round(height / pixel_aspect)
    size = f"{width} x {height}"
    pixels = width * height
    if not pixels:  # FFmpeg drops a size that it refuses
        pixels = count_pixels(path)
        size = f"{pixels // 1_000_000} million"
    if pixels > MAX_PIXELS:
        raise ClipError(
            f"{path} is too large: {size} pixels a frame, and at most "
            f"{MAX_PIXELS // 1_000_000} million are read",
            "make it smaller first",
        )


def _reason(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or str(error)
