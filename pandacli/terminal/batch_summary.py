"""What a run came to: its counts, what went wrong, and where the time went.

What went wrong in a run, and how often: three thousand missing videos are one thing.

Failures that differ only in the name of the video and in numbers are of one kind.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath

from pandacli.batch.counters import Counters, Outcome
from pandacli.terminal.batch_progress import per_second
from pandacli.terminal.console import Screen
from pandacli.terminal.text import sanitize_line
from pandacli.video.clip import format_time

_KINDS_KEPT = 50
_LONGEST = 300  # characters of a message: it may quote a line of a file, of whatever length


@dataclass
class Kind:
    """Failures of one kind.

    Attributes:
        line: Where the first of them stands in the file.
        message: What went wrong with the first.
        count: How many there are.
    """

    line: int
    message: str
    count: int


class Failures:
    """Kinds of failures, of which so many are kept that they never need much memory."""

    def __init__(self) -> None:
        self._kinds: dict[str, Kind] = {}
        self._forgotten = 0

    def add(self, outcome: Outcome) -> None:
        """Counts a failure.

        Args:
            outcome: What became of a record; its `error` says what went wrong.
        """
        message = short(outcome.error or "")
        likeness = _likeness(message, outcome.video)
        if likeness in self._kinds:
            self._kinds[likeness].count += 1
            return
        if len(self._kinds) == _KINDS_KEPT:
            # the oldest of the rarest: what comes often will have come again by now
            rarest = min(self._kinds, key=lambda kind: self._kinds[kind].count)
            self._forgotten += self._kinds.pop(rarest).count
        self._kinds[likeness] = Kind(outcome.line, message, 1)

    def commonest(self, count: int) -> tuple[list[Kind], int]:
        """Returns the `count` kinds with the most failures, and how many failures are not in them.

        Past 50 kinds, what is rare is only counted.
        """
        kinds = sorted(self._kinds.values(), key=lambda kind: (-kind.count, kind.line))
        return kinds[:count], self._forgotten + sum(kind.count for kind in kinds[count:])


def short(message: str) -> str:
    """Returns the beginning of a message, if it is very long."""
    return message if len(message) <= _LONGEST else message[: _LONGEST - 1] + "…"


def _likeness(message: str, video: str) -> str:
    """What is the same in all messages of a kind."""
    for name in (video, PurePath(video).name):
        if name:
            message = message.replace(name, "VIDEO")
    return re.sub(r"\d+", "N", message)


Row = tuple[str, str]

_KINDS = 5


def count_rows(counters: Counters, seconds: float, answers: str | None) -> list[Row]:
    """Returns the counts of a run by their names.

    Args:
        counters: Of a run that is over.
        seconds: How long it took.
        answers: The file of answers; None where they went to stdout.
    """
    rows = [("answered", f"{counters.answered:,}"), ("failed", f"{counters.failed:,}")]
    if counters.earlier:
        rows.append(("answered earlier", f"{counters.earlier:,}"))
    if counters.left > 0:
        rows.append(("left", f"{counters.left:,}"))
    rows += [
        ("clips", f"{counters.clips_done:,} of {counters.clips:,}"),
        ("tokens", f"{counters.tokens:,}"),
        ("time", duration(seconds)),
    ]
    if counters.answered and seconds > 0:
        rows.append(("speed", per_second(counters.answered / seconds, "answers")))
    if answers is not None:
        rows.append(("written to", answers))
    return rows


def failure_rows(failures: Failures) -> list[Row]:
    """Returns the commonest kinds of failures: how many, and what the first of them was."""
    kinds, others = failures.commonest(_KINDS)
    rows = [
        (
            f"{kind.count:,}",
            f"line {kind.line}: {kind.message}"
            if kind.count == 1
            else f"the first at line {kind.line}: {kind.message}",
        )
        for kind in kinds
    ]
    return [*rows, (f"{others:,}", "other failures")] if others else rows


def stage_rows(counters: Counters, seconds: float) -> list[Row]:
    """Returns what each stage of a run took, with its share of the whole."""
    known = sum(counters.seconds.values())
    whole = max(seconds, known)
    stages = [*counters.seconds.items(), ("other", whole - known)]
    times = [duration(spent) for _, spent in stages]
    width = max(map(len, times))
    return [
        (name, f"{time:>{width}}  {100 * spent / whole if whole else 0:3.0f}%")
        for (name, spent), time in zip(stages, times, strict=True)
    ]


def duration(seconds: float) -> str:
    """Returns how long something took: "12.3 s", and from a minute on "1:05" or "2:03:04"."""
    return f"{seconds:.1f} s" if seconds < 59.95 else format_time(round(seconds))


def show_table(screen: Screen, title: str, rows: Iterable[Row], *, numbers: bool = False) -> None:
    """Prints a table of two columns on stderr.

    Args:
        screen: Where.
        title: A line above it; "" for none.
        rows: Names and values; they may hold anything.
        numbers: The first column holds numbers, which stand right.
    """
    cells = [(sanitize_line(name), sanitize_line(value)) for name, value in rows]
    if screen.animates:
        _draw(screen, title, cells, numbers)
        return
    if title:
        screen.error_line(title)
    width = max(len(name) for name, _ in cells)
    for name, value in cells:
        screen.error_line(f"{name:{'>' if numbers else '<'}{width}}  {value}")


def _draw(screen: Screen, title: str, cells: list[Row], numbers: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, justify="right" if numbers else "left")
    grid.add_column(overflow="fold")
    for name, value in cells:
        wrong = name == "failed" and value != "0"
        grid.add_row(
            Text(name, style="" if numbers else "dim"), Text(value, style="red" if wrong else "")
        )
    if title:
        screen.err.print(Text(title, style="bold"))
    screen.err.print(grid)
