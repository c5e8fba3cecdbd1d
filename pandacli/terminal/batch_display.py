"""What is told of a run of `panda batch`, on stderr.

How far a run is, as a line every few seconds: for log files and for terminals without a cursor.

The lines are written by a thread of their own, so that they come also while nothing is done, and
so that a signal handler only needs to leave word.
"""

import shlex
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Event, Thread
from types import TracebackType
from typing import Protocol, Self

from pandacli.batch.counters import Counters, Outcome
from pandacli.terminal.batch_progress import STOPPING, Moment, per_second
from pandacli.terminal.batch_summary import (
    Failures,
    count_rows,
    failure_rows,
    short,
    show_table,
    stage_rows,
)
from pandacli.terminal.console import Screen

EVERY = 10.0
"""Seconds between two lines."""

_LOOK = 0.2


class Lines:
    """Writes lines on stderr until it is stopped.

    Args:
        screen: Where they are written.
        moment: How far the run is.
    """

    def __init__(self, screen: Screen, moment: Moment) -> None:
        self._screen = screen
        self._moment = moment
        self._due = moment.clock() + EVERY
        self._said = ""
        self._said_stopping = False
        self._over = Event()
        self._thread = Thread(target=self._watch, daemon=True, name="panda batch lines")

    def start(self) -> None:
        """Begins to write."""
        self._thread.start()

    def stop(self) -> None:
        """Writes how far the run has come, and no more."""
        self._over.set()
        self._thread.join()
        self._say()

    def look(self) -> None:
        """Writes a line if it is time for one."""
        if self._moment.stopping and not self._said_stopping:
            self._said_stopping = True
            self._screen.notice(STOPPING)
        if self._moment.clock() >= self._due:
            self._due = self._moment.clock() + EVERY
            self._say()

    def _watch(self) -> None:
        while not self._over.wait(_LOOK):
            self.look()

    def _say(self) -> None:
        line = progress_line(self._moment)
        if line and line != self._said:
            self._screen.notice(line)
        self._said = line


def progress_line(moment: Moment) -> str:
    """Returns how far a run is, in one line; "" where nothing is known yet."""
    counters = moment.counters
    words = []
    if counters.records:
        words.append(f"{counters.earlier + counters.answered} of {counters.records} answered")
    if counters.failed:
        why = (
            f" ({short(moment.failure.error or '')})"
            if moment.failure and counters.left > 0
            else ""
        )
        words.append(f"{counters.failed} failed{why}")
    if counters.left > 0:
        if pace := moment.answers_per_second:
            words.append(per_second(pace))
        if left := moment.time_left:
            words.append(f"about {left} left")
        if moment.still and moment.doing and not moment.stopping:
            words.append(moment.doing)
    elif not counters.records and moment.doing:
        words.append(moment.doing)
    return ", ".join(words)


class _View(Protocol):
    def start(self) -> None: ...

    def stop(self) -> None: ...


class BatchDisplay:
    """Shows how a run gets on; a context manager around it.

    On a terminal it is a picture, elsewhere a line every ten seconds. With `--quiet`, only
    failures are reported, at the end.

    Args:
        screen: Where it is shown.
        counters: Grows while the run goes on.
        stats: Say at the end what each stage took.
        answers: The file of answers as the user knows it; None where there is none.
        lines_to_stdout: Whether answers go to stdout as they come. A picture on the same terminal
            would garble them, so that lines are written instead.
        clock: Seconds; never put back.
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
        self._lines_to_stdout = lines_to_stdout
        self._clock = clock
        self._began = self._ended = clock()
        self._moment = Moment(counters, clock)
        self._failures = Failures()
        self._view = self._chosen_view()

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
        """A record is done, and counted in the counters. It draws nothing: it may come often."""
        self._moment.update(outcome)
        if outcome.error is not None:
            self._failures.add(outcome)

    def doing(self, words: str) -> None:
        """Something begins that may take long, as "loading video-panda-7b"."""
        self._moment.set_doing(words)

    def stopping(self) -> None:
        """The user wants the run to end. It only leaves word, so a signal handler may call it."""
        self._moment.stopping = True

    def summary(self) -> None:
        """Says, once the run is over, what it came to."""
        with suppress(OSError):  # nobody to read it
            if not self._screen.quiet:
                self._show_counts()
            if self._counters.failed:
                self._show_failures()
            if self._stats and not self._screen.quiet:
                self._show_stages()

    def resume_hint(self, command: Sequence[str]) -> None:
        """Says, after an interruption, how many questions are left and how to go on.

        Args:
            command: The words of the command line that goes on.
        """
        left, records = self._counters.left, self._counters.records
        if left > 0:
            self._screen.notice(
                f"{left} of {records} questions are left; resume with:",
                shlex.join(command),
            )

    def _chosen_view(self) -> _View | None:
        if self._screen.quiet:
            return None
        garbles = self._lines_to_stdout and self._screen.stdout_is_terminal
        if not self._screen.animates or garbles:
            return Lines(self._screen, self._moment)
        from pandacli.terminal.batch_live import MovingPicture

        return MovingPicture(self._screen, self._moment)

    def _show_counts(self) -> None:
        show_table(self._screen, "", count_rows(self._counters, self._seconds, self._answers))

    def _show_failures(self) -> None:
        if not self._screen.quiet:
            self._screen.error_line("")
        show_table(self._screen, "failures", failure_rows(self._failures), numbers=True)

    def _show_stages(self) -> None:
        self._screen.error_line("")
        show_table(self._screen, "time", stage_rows(self._counters, self._seconds))

    @property
    def _seconds(self) -> float:
        return self._ended - self._began
