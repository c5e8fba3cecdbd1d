"""What `panda batch` shows on stderr: progress while it runs, then a summary and its failures."""

import re
import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import PurePath
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Self

from pandacli.batch.results import Counters, Outcome
from pandacli.terminal.console import Screen
from pandacli.terminal.progress import (
    STOPPING,
    BatchPanel,
    BatchProgress,
    CheckProgress,
    live_view,
    per_second,
    shorten,
)
from pandacli.video.clip import format_time

if TYPE_CHECKING:
    from pandacli.batch.check import Counts

Row = tuple[str, str]

_INTERVAL = 10.0  # seconds between two log lines
_POLL = 0.2  # seconds
_MAX_KINDS = 50  # of failures that are kept
_SHOWN_KINDS = 5


class LogLines:
    """Writes a progress line every ten seconds, from a thread: a signal handler must not write."""

    def __init__(self, screen: Screen, progress: BatchProgress | CheckProgress) -> None:
        self._screen, self._progress = screen, progress
        self._due = progress.clock() + _INTERVAL
        self._last = ""
        self._stopping_shown = False
        self._ended = Event()
        self._thread = Thread(target=self._watch, daemon=True, name="panda batch lines")

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._write()

    def poll(self) -> None:
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

    A live view on a terminal, a line every ten seconds elsewhere; with `--quiet` only failures, at
    the end. `stats` adds the time of each stage, `answers` names the results file. With
    `lines_to_stdout` answers go to stdout as they come; on the same terminal they would garble a
    live view. `clock` is monotonic, in seconds.
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
        self._screen, self._counters, self._clock = screen, counters, clock
        self._stats, self._answers = stats, answers
        self._began = self._ended = clock()
        self._progress = BatchProgress(counters, clock)
        self._failures = FailureCounts()
        self._view: AbstractContextManager[Any] = nullcontext()
        if screen.animates and not (lines_to_stdout and screen.stdout_is_terminal):
            self._view = live_view(screen, BatchPanel(self._progress))
        elif not screen.quiet:
            self._view = LogLines(screen, self._progress)

    def __enter__(self) -> Self:
        self._view.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._ended = self._clock()
        self._view.__exit__(*error)

    def update(self, outcome: Outcome) -> None:
        """Note that a record is done; draws nothing."""
        self._progress.update(outcome)
        if outcome.error is not None:
            self._failures.add(outcome)

    def set_step(self, step: str) -> None:
        """Note what the run does now, such as "loading video-panda-7b"."""
        self._progress.waiting.say(step)

    def set_stopping(self) -> None:
        """Note that the user asked the run to stop; safe in a signal handler."""
        self._progress.stopping = True

    def summary(self) -> None:
        """Print counts, failures and, if asked for, the time of each stage."""
        screen, counters, seconds = self._screen, self._counters, self._ended - self._began
        with suppress(OSError):  # a closed stderr is no error
            if not screen.quiet:
                screen.table(_count_rows(counters, seconds, self._answers))
            if counters.failed:
                if not screen.quiet:
                    screen.error_line("")
                screen.table(self._failures.rows(), "failures", numbers=True)
            if self._stats and not screen.quiet:
                screen.error_line("")
                screen.table(stage_rows(counters, seconds), "time")

    def resume_hint(self, command: Sequence[str]) -> None:
        """Print how many questions an interrupted run has left, and the command that resumes it."""
        left, records = self._counters.left, self._counters.records
        if left > 0:
            sentence = f"{left} of {records} questions are left; resume with:"
            self._screen.notice(sentence, shlex.join(command))


class CheckDisplay:
    """Shows how far a check is: a bar on a terminal, elsewhere a line every ten seconds."""

    def __init__(
        self, screen: Screen, counts: "Counts", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._screen, self._progress = screen, CheckProgress(counts, clock)
        self._view: AbstractContextManager[Any] = nullcontext()

    def __enter__(self) -> Self:
        if self._screen.animates:
            self._view = live_view(self._screen, self._progress)
        elif not self._screen.quiet:
            self._view = LogLines(self._screen, self._progress)
        self._view.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._view.__exit__(*error)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Draw nothing in the block, which may write on the same terminal."""
        if not (self._screen.animates and self._screen.stdout_is_terminal):
            yield
            return
        self.__exit__(None, None, None)
        try:
            yield
        finally:
            self.__enter__()


class FailureCounts:
    """Counts failures, in bounded memory; a kind differs only in numbers and the video's name."""

    def __init__(self) -> None:
        self._kinds: Counter[str] = Counter()
        self._first: dict[str, tuple[int, str]] = {}  # line and message of the first of each kind
        self._total = 0

    def add(self, outcome: Outcome) -> None:
        kind = message = shorten(outcome.error or "")
        for name in filter(None, (outcome.video, PurePath(outcome.video).name)):
            kind = kind.replace(name, "VIDEO")
        kind = re.sub(r"\d+", "N", kind)
        if kind not in self._kinds and len(self._kinds) == _MAX_KINDS:
            # the oldest of the rarest: a frequent kind has been seen again by now
            rarest = min(self._kinds, key=self._kinds.__getitem__)
            del self._kinds[rarest], self._first[rarest]
        self._total += 1
        self._kinds[kind] += 1
        self._first.setdefault(kind, (outcome.line, message))

    def rows(self) -> list[Row]:
        """Return the count and the first message of the most common kinds, and of all others."""
        rows, others = [], self._total
        for kind, count in self._kinds.most_common(_SHOWN_KINDS):
            line, message = self._first[kind]
            first = "the first at " if count > 1 else ""
            rows.append((f"{count:,}", f"{first}line {line}: {message}"))
            others -= count
        return [*rows, (f"{others:,}", "other failures")] if others else rows


def _count_rows(counters: Counters, seconds: float, answers: str | None) -> list[tuple[str, ...]]:
    speed = counters.answered / seconds if seconds > 0 else 0
    rows: list[tuple[str, ...]] = [
        ("answered", f"{counters.answered:,}"),
        ("failed", "", f"{counters.failed:,}") if counters.failed else ("failed", "0"),
        ("answered earlier", f"{counters.earlier:,}" if counters.earlier else ""),
        ("left", f"{counters.left:,}" if counters.left > 0 else ""),
        ("clips", f"{counters.clips_done:,} of {counters.clips:,}"),
        ("tokens", f"{counters.tokens:,}"),
        ("time", duration(seconds)),
        ("speed", per_second(speed, "answers") if speed else ""),
        ("written to", answers or ""),
    ]
    return [row for row in rows if any(row[1:])]


def stage_rows(counters: Counters, seconds: float) -> list[Row]:
    """Return the time of each stage and its share of the run."""
    known = sum(counters.seconds.values())
    whole = max(seconds, known)
    stages = counters.seconds | {"other": whole - known}
    width = max(len(duration(spent)) for spent in stages.values())
    return [
        (name, f"{duration(spent):>{width}}  {100 * spent / whole if whole else 0:3.0f}%")
        for name, spent in stages.items()
    ]


def duration(seconds: float) -> str:
    """Return a duration as "12.3 s", and from a minute on as "1:05" or "2:03:04"."""
    return f"{seconds:.1f} s" if seconds < 59.95 else format_time(round(seconds))
