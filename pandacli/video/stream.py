"""What a container says about its picture, read from its packets without decoding any.

PyAV reads the packets: unlike OpenCV's raw mode it tells which ones an edit list hides and gives
time stamps as the integers that they are. The list is a claim, not yet a fact: the reader
checks it against frames that were decoded.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.logging
from PIL import Image

from pandacli.errors import ClipError

av.logging.set_level(None)

_NOT_VIDEO = "give a video file, such as .mp4, .mkv, .webm, .mov, .avi or .gif"
_CONVERT = "convert it to a common one first, such as H.264 in .mp4"
_PROGRESSIVE = {0, 1}
"""FFmpeg's numbers for a field order that is unknown, and for frames that have no fields."""
_LAYERS_AT = 21
"""The byte of HEVC's configuration record that counts temporal layers, in bits 3 to 5."""
_PLAIN_TEXT = {"tty", "concat", "ffmetadata", "lrc"}
"""Formats by which FFmpeg makes pictures, or other files, out of text."""


@dataclass(frozen=True)
class Stream:
    """The video stream of a file, as its container describes it.

    Attributes:
        path: The file.
        codec: FFmpeg's name of the codec, "h264" or "av1".
        fps: Average frame rate; 0.0 where the container does not know.
        width, height: Size of a stored frame in pixels, before any rotation.
        time_base: Seconds a tick of `ticks`.
        first_tick: The tick that OpenCV counts from.
        zero: The tick at which the file begins (its earliest stream), from which times are told.
        ticks: Presentation times of the frames that the packets should decode to, ascending;
            None where the container gives no usable times.
        key_ticks: Those of them from which decoding can begin, ascending.
        packet_count: How many packets should show something.
        claimed_count: How many frames the container's header promises, less those that it
            hides itself; 0 where it is silent.
        wide_colour: Whether the colours are outside of what a plain screen shows (HDR, BT.2020).
        interlaced: Whether frames are stored as two fields.
        spare_frames: Whether frames that no other is made from are marked as such, beyond doubt.
        alone: Whether this is the only video stream.
        whole: Whether nothing hints at damage or at frames left out: every packet is there, shows
            something and has a time, and there are as many as the header promises.
    """

    path: Path
    codec: str
    fps: float
    width: int
    height: int
    time_base: Fraction
    first_tick: int
    zero: int
    ticks: tuple[int, ...] | None
    key_ticks: tuple[int, ...]
    packet_count: int
    claimed_count: int
    wide_colour: bool
    interlaced: bool
    spare_frames: bool
    alone: bool
    whole: bool


def read_stream(path: str | os.PathLike[str]) -> Stream:
    """The video stream of the file at `path`, found without decoding.

    Raises:
        ClipError: There is no such file, it cannot be read, or there is no video in it.
    """
    file = Path(path)
    check_file(file)
    with opened(file) as container:
        stream = choose_stream(container)
        if stream is None:
            raise _without_video(file, container)
        if stream.codec_context is None:
            raise ClipError(f"no decoder here knows the kind of video in {file}", _CONVERT)
        return _describe(file, container, stream)


def check_file(path: Path) -> None:
    """Make sure that there is a file with something in it, and that it may be read.

    Raises:
        ClipError: It is missing, empty, no regular file, or not ours to read.
    """
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise ClipError(f"there is no file {path}", "check the path") from None
    except (OSError, ValueError) as error:
        raise ClipError(f"{path} cannot be opened: {_reason(error)}") from None
    if stat.S_ISDIR(status.st_mode):
        raise ClipError(f"{path} is a directory", _NOT_VIDEO)
    if not stat.S_ISREG(status.st_mode):
        # A pipe or a device might keep us waiting for ever, and cannot be read twice.
        raise ClipError(f"{path} is not a regular file", "save the video to a file first")
    if status.st_size == 0:
        raise ClipError(f"{path} is empty", _NOT_VIDEO)
    try:
        with path.open("rb") as file:
            file.read(1)
    except PermissionError:
        raise ClipError(f"{path} may not be read", "ask for permission to read it") from None
    except OSError as error:
        raise ClipError(f"{path} cannot be read: {_reason(error)}") from None


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The container at `path`, open in PyAV for as long as the block lasts.

    Raises:
        ClipError: It is in no format that FFmpeg knows, or too damaged to tell.
    """
    try:
        container = av.open(address(path), metadata_errors="replace")
    except (av.error.FFmpegError, OSError, ValueError):
        raise ClipError(f"{path} is not a video that can be read", _NOT_VIDEO) from None
    with container:
        yield container


def address(path: Path) -> str:
    """`path` in a form that FFmpeg takes for nothing but a local file."""
    return str(path.absolute())


def choose_stream(container: Any) -> Any | None:
    """The stream to look at: the one FFmpeg likes best, never a cover picture; None if none."""
    moving = [
        stream
        for stream in container.streams.video
        if not stream.disposition & av.stream.Disposition.attached_pic
    ]
    if container.format.name in _PLAIN_TEXT or not moving:
        return None
    best = container.streams.best("video")
    return best if best in moving else moving[0]


def _without_video(path: Path, container: Any) -> ClipError:
    if container.format.name in _PLAIN_TEXT:
        return ClipError(f"{path} is text, not a video", _NOT_VIDEO)
    if container.streams.audio:
        return ClipError(f"{path} has sound but no picture", _NOT_VIDEO)
    return ClipError(f"{path} has no video in it", _NOT_VIDEO)


def _describe(path: Path, container: Any, stream: Any) -> Stream:
    if container.format.name == "webp_pipe":
        pages = _webp_ticks(path)
        packets = _Packets(pages, pages[:1], len(pages), 0, damaged=False)
        time_base = Fraction(1, 1000)
    else:
        packets = _read_packets(container, stream)
        time_base = stream.time_base or Fraction(1, 1000)
    first_tick = stream.start_time or 0
    zero = first_tick
    if container.start_time is not None:
        zero = round(Fraction(container.start_time, av.time_base) / time_base)
    codec = stream.codec_context
    return Stream(
        path=path,
        codec=codec.codec.canonical_name,
        fps=float(stream.average_rate or stream.guessed_rate or 0),
        width=codec.width,
        height=codec.height,
        time_base=time_base,
        first_tick=first_tick,
        zero=zero,
        ticks=packets.ticks,
        key_ticks=packets.key_ticks,
        packet_count=packets.shown,
        claimed_count=max(0, stream.frames - packets.hidden),
        wide_colour=_is_wide(codec),
        interlaced=codec.field_order not in _PROGRESSIVE,
        spare_frames=_marks_spare_frames(codec),
        alone=len(container.streams.video) == 1,
        whole=packets.ticks is not None
        and not packets.damaged
        and not packets.hidden
        and stream.frames in {0, packets.shown},
    )


@dataclass(frozen=True)
class _Packets:
    ticks: tuple[int, ...] | None
    key_ticks: tuple[int, ...]
    shown: int
    hidden: int
    damaged: bool


def _read_packets(container: Any, stream: Any) -> _Packets:
    ticks: list[int] = []
    key_ticks: list[int] = []
    shown = hidden = 0
    damaged = False
    try:
        for packet in container.demux(stream):
            if not packet.size:
                continue
            damaged |= packet.is_corrupt
            if packet.is_discard:
                hidden += 1
                continue
            shown += 1
            if packet.pts is not None:
                ticks.append(packet.pts)
                if packet.is_keyframe:
                    key_ticks.append(packet.pts)
    except (av.error.FFmpegError, OSError):
        damaged = True  # from here on; what comes before it may still be shown
    usable = len(set(ticks)) == shown
    return _Packets(
        tuple(sorted(ticks)) if usable else None, tuple(sorted(key_ticks)), shown, hidden, damaged
    )


def _webp_ticks(path: Path) -> tuple[int, ...]:
    """When each frame of a WebP begins, in milliseconds; one for a still picture."""
    ticks, tick = [], 0
    try:
        with Image.open(path) as image:
            for number in range(getattr(image, "n_frames", 1)):
                image.seek(number)
                image.load()
                ticks.append(tick)
                tick += int(image.info.get("duration", 0))
    except (OSError, EOFError, ValueError, Image.DecompressionBombError):
        pass  # what came before the damage can still be shown
    return tuple(ticks)


def _is_wide(codec: Any) -> bool:
    """Whether the stream is HDR, or its primaries are wider than those of ordinary screens."""
    plain_primaries = {0, 1, 2, 4, 5, 6, 7}  # unspecified, BT.709, BT.470, SMPTE 170M and 240M
    hdr_transfers = {16, 18}  # PQ and HLG (ITU-T H.273)
    return codec.color_primaries not in plain_primaries or codec.color_trc in hdr_transfers


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


def _reason(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or str(error)
