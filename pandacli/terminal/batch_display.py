"""What `panda batch` shows on stderr: progress while it runs, then a summary and its failures."""

import re
import shlex
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePath
from threading import Event, Thread
from types import TracebackType
from typing import TYPE_CHECKING, Self

from pandacli.batch.results import Counters, Outcome
from pandacli.terminal.batch_progress import STOPPING, BatchProgress, per_second, shorten
from pandacli.terminal.console import Screen
from pandacli.video.clip import format_time

if TYPE_CHECKING:
    from pandacli.terminal.batch_progress import LiveView

Row = tuple[str, str]

_INTERVAL = 10.0  # seconds between two log lines
_POLL = 0.2  # seconds
_MAX_KINDS = 50  # of failures that are kept
_SHOWN_KINDS = 5


class LogLines:
    """Writes a progress line every ten seconds: for log files and terminals without a cursor.

    A thread writes them, so that they come while the run is busy and a signal handler only has to
    set a flag.
    """

    def __init__(self, screen: Screen, progress: BatchProgress) -> None:
        self._screen = screen
        self._progress = progress
        self._due = progress.clock() + _INTERVAL
        self._last = ""
        self._stopping_shown = False
        self._ended = Event()
        self._thread = Thread(target=self._watch, daemon=True, name="panda batch lines")

    def start(self) -> None:
        """Start to write."""
        self._thread.start()

    def stop(self) -> None:
        """Write a last line and end."""
        self._ended.set()
        self._thread.join()
        self._write()

    def poll(self) -> None:
        """Write a line if one is due."""
        if self._progress.stopping and not self._stopping_shown:
            self._stopping_shown = True
            self._screen.notice(STOPPING)
        if self._progress.clock() >= self._due:
            self._due = self._progress.clock() + _INTERVAL
            self._write()

    def _watch(self) -> None:
        while not self._ended.wait(_POLL):
            self.poll()

    def _write(self) -> None:
        line = self._progress.line()
        if line and line != self._last:
            self._screen.notice(line)
        self._last = line


class BatchDisplay:
    """Shows a run while it goes on; a context manager around it.

    A live view on a terminal, a line every ten seconds elsewhere. With `--quiet` only failures are
    reported, at the end.

    Args:
        screen: Where it is shown.
        counters: Of the run, as it goes on.
        stats: Report the time of each stage at the end.
        answers: The results file as the user knows it; None if there is none.
        lines_to_stdout: Whether answers go to stdout as they come; on the same terminal a live view
            would garble them, so that lines are written instead.
        clock: Monotonic, in seconds.
    """

    def __init__(
        self,
        screen: Screen,
        counters: Counters,
        *,
        stats: bool = False,
        answers: str | None,
        lines_to_stdout: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._screen = screen
        self._counters = counters
        self._stats = stats
        self._answers = answers
        self._clock = clock
        self._began = self._ended = clock()
        self._progress = BatchProgress(counters, clock)
        self._failures = FailureCounts()
        self._view = self._choose_view(lines_to_stdout and screen.stdout_is_terminal)

    def _choose_view(self, stdout_is_shared: bool) -> "LogLines | LiveView | None":
        if self._screen.quiet:
            return None
        if stdout_is_shared or not self._screen.animates:
            return LogLines(self._screen, self._progress)
        from pandacli.terminal.batch_progress import LiveView

        return LiveView(self._screen, self._progress)

    def __enter__(self) -> Self:
        self._began = self._clock()
        if self._view:
            self._view.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended = self._clock()
        if self._view:
            self._view.stop()

    def update(self, outcome: Outcome) -> None:
        """Note that a record is done; draws nothing."""
        self._progress.update(outcome)
        if outcome.error is not None:
            self._failures.add(outcome)

    def set_step(self, words: str) -> None:
        """Note what the run does now, such as "loading video-panda-7b"."""
        self._progress.set_step(words)

    def set_stopping(self) -> None:
        """Note that the user asked the run to stop; safe in a signal handler."""
        self._progress.stopping = True

    def summary(self) -> None:
        """Print counts, failures and, if asked for, the time of each stage."""
        screen, seconds = self._screen, self._ended - self._began
        with suppress(OSError):  # a closed stderr is no error
            if not screen.quiet:
                screen.table(
                    count_rows(self._counters, seconds, self._answers),
                    failures=["failed"] if self._counters.failed else [],
                )
            if self._counters.failed:
                if not screen.quiet:
                    screen.error_line("")
                screen.table(self._failures.rows(), "failures", numbers=True)
            if self._stats and not screen.quiet:
                screen.error_line("")
                screen.table(stage_rows(self._counters, seconds), "time")

    def resume_hint(self, command: Sequence[str]) -> None:
        """Print how many questions an interrupted run has left, and the command that resumes it."""
        left, records = self._counters.left, self._counters.records
        if left > 0:
            self._screen.notice(
                f"{left} of {records} questions are left; resume with:", shlex.join(command)
            )


@dataclass
class FailureKind:
    """Failures whose messages differ only in numbers and the video's name.

    Attributes:
        line: Line of the first one in the questions file.
        message: Of the first one.
        count: How many there are.
    """

    line: int
    message: str
    count: int


class FailureCounts:
    """Counts failures by kind, in bounded memory."""

    def __init__(self) -> None:
        self._kinds: dict[str, FailureKind] = {}
        self._evicted = 0

    def add(self, outcome: Outcome) -> None:
        """Count a failure."""
        message = shorten(outcome.error or "")
        pattern = message
        for name in (outcome.video, PurePath(outcome.video).name):
            if name:
                pattern = pattern.replace(name, "VIDEO")
        pattern = re.sub(r"\d+", "N", pattern)
        if pattern in self._kinds:
            self._kinds[pattern].count += 1
            return
        if len(self._kinds) == _MAX_KINDS:
            # the oldest of the rarest: a frequent kind has been seen again by now
            rarest = min(self._kinds, key=lambda kind: self._kinds[kind].count)
            self._evicted += self._kinds.pop(rarest).count
        self._kinds[pattern] = FailureKind(outcome.line, message, 1)

    def most_common(self, count: int) -> tuple[list[FailureKind], int]:
        """Return the `count` most common kinds, and the number of all other failures."""
        kinds = sorted(self._kinds.values(), key=lambda kind: (-kind.count, kind.line))
        return kinds[:count], self._evicted + sum(kind.count for kind in kinds[count:])

    def rows(self) -> list[Row]:
        """Return a row for each of the most common kinds: its count and its first message."""
        kinds, others = self.most_common(_SHOWN_KINDS)
        rows = [
            (
                f"{kind.count:,}",
                f"{'the first at ' if kind.count > 1 else ''}line {kind.line}: {kind.message}",
            )
            for kind in kinds
        ]
        return [*rows, (f"{others:,}", "other failures")] if others else rows


def count_rows(counters: Counters, seconds: float, answers: str | None) -> list[Row]:
    """Return the counts of a finished run.

    Args:
        counters: Of the run.
        seconds: Its duration.
        answers: The results file; None if results went to stdout.
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


def stage_rows(counters: Counters, seconds: float) -> list[Row]:
    """Return the time of each stage and its share of the run."""
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
    """Return a duration as "12.3 s", and from a minute on as "1:05" or "2:03:04"."""
    return f"{seconds:.1f} s" if seconds < 59.95 else format_time(round(seconds))
