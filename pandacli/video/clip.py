"""A clip: a video file and the range of time in it that is asked about.

Nothing heavy is imported here; the command line reads its arguments with this module alone.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path

from pandacli.errors import UsageError

_CLOCK = re.compile(r"(?:(?P<hours>\d+):)?(?P<minutes>\d+):(?P<seconds>\d+(?:\.\d*)?)", re.ASCII)
_SECONDS = re.compile(r"\d+(?:\.\d*)?|\.\d+", re.ASCII)
_FORMS = "a time is written as seconds (12.5), m:ss (1:02) or h:mm:ss (1:02:03.5)"


@dataclass(frozen=True)
class Clip:
    """A video file and a time range in it.

    Attributes:
        path: The file.
        start: First moment asked about, in seconds from the beginning; None for the beginning.
        end: The moment at which the range stops, in seconds; None for the end of the file.

    Raises:
        UsageError: `start` is not before `end`, or one of them is negative or not a number.
    """

    path: Path
    start: float | None = None
    end: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))
        for moment in (self.start, self.end):
            if moment is not None and not (math.isfinite(moment) and moment >= 0):
                raise UsageError(f"a clip cannot start or end at {moment} seconds", _FORMS)
        if self.end is not None and self.end <= (self.start or 0.0):
            raise UsageError(
                f"the range ends at {format_time(self.end)}, which is not after its start at "
                f"{format_time(self.start or 0.0)}",
                "give --from a time before --to",
            )


def parse_time(text: str) -> float:
    """Seconds from what a user typed: "62.5", "1:02.5" or "0:01:02.5", all 62.5.

    Raises:
        UsageError: The text is no time, or minutes or seconds in it pass 59.
    """
    stripped = text.strip()
    if _SECONDS.fullmatch(stripped):
        return float(stripped)
    clock = _CLOCK.fullmatch(stripped)
    if clock is None:
        raise UsageError(f"{text!r} is not a time", _FORMS)
    minutes, seconds = int(clock["minutes"]), float(clock["seconds"])
    if seconds >= 60 or (clock["hours"] is not None and minutes >= 60):
        raise UsageError(f"{text!r} is not a time: minutes and seconds go up to 59", _FORMS)
    return int(clock["hours"] or 0) * 3600 + minutes * 60 + seconds


def format_time(seconds: float) -> str:
    """A moment for reading, to the millisecond: 62.5 is "1:02.5", 3723 is "1:02:03"."""
    thousandths = round(seconds * 1000)
    sign, thousandths = ("-", -thousandths) if thousandths < 0 else ("", thousandths)
    whole, fraction = divmod(thousandths, 1000)
    minutes, whole = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    clock = f"{hours}:{minutes:02}:{whole:02}" if hours else f"{minutes}:{whole:02}"
    return sign + clock + f".{fraction:03}".rstrip("0").rstrip(".")
