"""A clip: a video file and a time range in it. No heavy imports, for argument parsing."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pandacli.errors import ClipError, UsageError

_CLOCK = re.compile(r"(?:(?P<hours>\d+):)?(?P<minutes>\d+):(?P<seconds>\d+(?:\.\d*)?)", re.ASCII)
_SECONDS = re.compile(r"\d+(?:\.\d*)?|\.\d+", re.ASCII)
MIN_LENGTH = 0.1  # seconds of a window; a shorter one is a slip, and would make very many
_MAX_SECONDS = 1e9  # 31 years, past the range of decoders
_MAX_SHOWN = 40  # characters of a text in an error
_MAX_SHOWN_ADDRESS = 200
VIDEO_SUFFIXES = (  # common ones, used for completion
    *(".3gp", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg"),
    *(".mts", ".ogv", ".ts", ".webm", ".wmv"),
)
_ADDRESS = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]+):(?P<rest>//.*)", re.IGNORECASE | re.DOTALL)
_KNOWN_ADDRESS = re.compile(  # `Path` collapses the two slashes
    r"(?P<scheme>file|https?|ftps?|sftp|rtsps?|rtmps?|rtp|udp|tcp|srt|mms|s3|gs|data)"
    r":(?P<rest>/.*)|data:.*[,;].*",
    re.IGNORECASE | re.DOTALL,
)
_FORMS = "a time is written as seconds (12.5), m:ss (1:02) or h:mm:ss (1:02:03.5)"


@dataclass(frozen=True)
class Clip:
    """A video file and a time range in it, or times to look at, in seconds.

    ClipError if `path` is an address of another kind, UsageError if the times are not valid.
    """

    path: Path  # may be given as a `file://` address
    start: float | None = None  # None is the beginning
    end: float | None = None  # None is the end
    # instead of a range, ascending times, for the frames shown then
    at: tuple[float, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", local_file(self.path))
        object.__setattr__(self, "at", tuple(sorted(set(self.at))))
        for moment in (self.start, self.end, *self.at):
            if moment is not None and not is_moment(moment):
                raise UsageError("times in a clip are between 0 and 1e9 seconds", _FORMS)
        if self.at and not (self.start is None and self.end is None):
            message = "a clip has a range or single times to look at, not both"
            raise UsageError(message, "give --at without --from and --to")
        start = self.start or 0.0
        if self.end is not None and self.end <= start:
            ends, starts = format_time(self.end), format_time(start)
            message = f"the range ends at {ends}, which is not after its start at {starts}"
            raise UsageError(message, "give --from a time before --to")

    @property
    def extent(self) -> tuple[float | None, float | None]:
        """The first and last time that is looked at; None is the beginning or the end."""
        return (self.at[0], self.at[-1]) if self.at else (self.start, self.end)


def is_moment(seconds: float) -> bool:
    """Whether a number of seconds can be a time in a video: finite and not negative."""
    return 0 <= seconds <= _MAX_SECONDS


def local_file(name: str | os.PathLike[str]) -> Path:
    """The file that a path or a `file://` address names; ClipError if it is another address."""
    text = os.fspath(name)
    address = _ADDRESS.fullmatch(text) or _KNOWN_ADDRESS.fullmatch(text)
    if address is None or os.path.lexists(text):
        return as_on_disk(Path(text))
    scheme, rest = (address["scheme"] or "data").lower(), address["rest"] or ""
    if scheme == "file":
        host, slash, path = rest[2:].partition("/") if rest.startswith("//") else ("", "/", rest)
        if slash and host.lower() in ("", "localhost"):
            from urllib.parse import unquote

            return as_on_disk(Path("/" + unquote(path, errors="surrogateescape").lstrip("/")))
    shown = _shorten(f"{scheme}://{rest.lstrip('/')}" if rest else text, _MAX_SHOWN_ADDRESS)
    message = f"{shown} is not a file on this machine"
    raise ClipError(message, "panda reads files; download it first")


def as_on_disk(path: Path) -> Path:
    """Match each part of a path to the Unicode form (NFC or NFD) on disk, if all of them exist."""
    if str(path).isascii() or os.path.lexists(path):
        return path
    from unicodedata import normalize

    found = Path(path.anchor)
    for part in path.parts[1:] if path.anchor else path.parts:
        forms = (part, normalize("NFC", part), normalize("NFD", part))
        existing = next((form for form in forms if os.path.lexists(found / form)), None)
        if existing is None:
            return path
        found /= existing
    return found


def parse_time(text: str) -> float:
    """Parse a time, or raise a UsageError: "62.5", "1:02.5" and "0:01:02.5" are 62.5 seconds."""
    stripped = text.strip()
    wrong = f"{_shorten(text, _MAX_SHOWN)!r} is not a time"
    if _SECONDS.fullmatch(stripped):
        total = float(stripped)
    else:
        clock = _CLOCK.fullmatch(stripped)
        if clock is None:
            raise UsageError(wrong, _FORMS)
        # float takes any number of digits, int does not
        hours, minutes, seconds = (float(clock[name] or 0) for name in _CLOCK.groupindex)
        if seconds >= 60 or (clock["hours"] is not None and minutes >= 60):
            raise UsageError(f"{wrong}: minutes and seconds go up to 59", _FORMS)
        total = hours * 3600 + minutes * 60 + seconds
    if not is_moment(total):
        raise UsageError(f"{wrong}: no video is so long", _FORMS)
    return total


def parse_times(text: str) -> tuple[float, ...]:
    """Parse times with commas between them, such as "3,7.5,0:12", or raise a UsageError."""
    return tuple(map(parse_time, text.split(",")))


def parse_length(text: str) -> float:
    """Parse a length of time above zero: "90", "90s" and "1:30" are 90 seconds; or a UsageError."""
    hint = "a length is written as seconds (10 or 10s), m:ss (1:30) or h:mm:ss"
    try:
        seconds = parse_time(re.sub(r"(?<=[\d.])\s?s$", "", text.strip()))
    except UsageError:
        raise UsageError(f"{_shorten(text, _MAX_SHOWN)!r} is not a length of time", hint) from None
    if seconds < MIN_LENGTH:
        message = (
            f"{_shorten(text, _MAX_SHOWN)!r} is too short: windows last {MIN_LENGTH} s or more"
        )
        raise UsageError(message, hint)
    return seconds


def format_time(seconds: float) -> str:
    """Format seconds to the millisecond: 62.5 is "1:02.5", 3723 is "1:02:03"."""
    return format_times([seconds])[0]


def format_times(moments: Sequence[float]) -> list[str]:
    """Format several times with the same number of decimals, at most three."""
    thousandths = [round(seconds * 1000) for seconds in moments if is_moment(abs(seconds))]
    decimals = next(n for n in range(4) if all(t % 10 ** (3 - n) == 0 for t in thousandths))
    return [_clock(seconds, decimals) for seconds in moments]


def _clock(seconds: float, decimals: int) -> str:
    if not is_moment(abs(seconds)):  # as from a damaged file
        return f"{seconds:g} s"
    thousandths = round(seconds * 1000)
    whole, fraction = divmod(abs(thousandths), 1000)
    minutes, whole = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    clock = f"{hours}:{minutes:02}:{whole:02}" if hours else f"{minutes}:{whole:02}"
    sign = "-" if thousandths < 0 else ""
    return sign + clock + (f".{fraction:03}"[: decimals + 1] if decimals else "")


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]}..."
