"""How far a run is, as a line every few seconds: for log files and for terminals without a cursor.

The lines are written by a thread of their own, so that they come also while nothing is done, and
so that a signal handler only needs to leave word.
"""

from threading import Event, Thread

from pandacli.ui.batch.failures import short
from pandacli.ui.batch.moment import STOPPING, Moment, per_second
from pandacli.ui.console import Screen

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
    tally = moment.tally
    words = []
    if tally.records:
        words.append(f"{tally.earlier + tally.answered} of {tally.records} answered")
    if tally.failed:
        why = f" ({short(moment.failure.error or '')})" if moment.failure and tally.left > 0 else ""
        words.append(f"{tally.failed} failed{why}")
    if tally.left > 0:
        if pace := moment.answers_per_second:
            words.append(per_second(pace))
        if left := moment.time_left:
            words.append(f"about {left} left")
        if moment.still and moment.doing and not moment.stopping:
            words.append(moment.doing)
    elif not tally.records and moment.doing:
        words.append(moment.doing)
    return ", ".join(words)
