"""How far a run is: what a person who looks at it now wants to know.

How many of a thing there are in a second, of late.

Of late, because a model that was loading for minutes says nothing of how fast it is. Answers come
in batches, so a pace is measured from one moment at which some came to another.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from pandacli.batch.counters import Counters, Outcome
from pandacli.video.clip import format_time

WINDOW = 30.0
"""Seconds that are looked back on."""

_FEWEST = 4  # moments that are kept however old they are: a batch may take longer than the window
_TOGETHER = 0.5  # seconds that make one moment, so that few of them need to be kept


@dataclass
class _Moment:
    first: float
    last: float
    count: int


class Pace:
    """Counts what comes, and says how fast it does."""

    def __init__(self) -> None:
        self._moments: deque[_Moment] = deque()
        self._longest_gap = 0.0

    def add(self, now: float) -> None:
        """One more has come.

        Args:
            now: Seconds of a clock that is never put back.
        """
        moments = self._moments
        if moments and now - moments[-1].first < _TOGETHER:
            moments[-1].last = now
            moments[-1].count += 1
            return
        if moments:
            self._longest_gap = max(self._longest_gap, now - moments[-1].last)
        moments.append(_Moment(now, now, 1))
        while len(moments) > _FEWEST and moments[0].last < now - WINDOW:
            moments.popleft()

    def per_second(self, now: float) -> float | None:
        """Returns how many come in a second; None where that cannot be told yet."""
        moments = list(self._moments)
        if len(moments) < 2:
            return None
        began = moments[0].last
        # A silence no longer than one before it belongs to the rhythm; a longer one slows down.
        until = max(moments[-1].last, now - self._longest_gap)
        return sum(moment.count for moment in moments[1:]) / (until - began)


STOPPING = "finishing the answers in flight; Ctrl-C again stops at once"

_STILL = 2.0  # seconds without an answer after which one wonders what is going on


class Moment:
    """The counters of a run with its pace; it is written to by one thread and read by another.

    Args:
        counters: Grows while the run goes on.
        clock: Seconds; never put back.

    Attributes:
        latest: The last question that was answered.
        failure: The last one that has failed.
        stopping: Whether the user has asked the run to end.
    """

    def __init__(self, counters: Counters, clock: Callable[[], float]) -> None:
        self.counters = counters
        self.clock = clock
        self.latest: Outcome | None = None
        self.failure: Outcome | None = None
        self.stopping = False
        self._doing = ""
        self._moved = clock()
        self._paces = Lock()
        self._answers = Pace()
        self._questions = Pace()

    def update(self, outcome: Outcome) -> None:
        """A record is done."""
        now = self._moved = self.clock()
        with self._paces:
            if outcome.error is None:
                self.latest = outcome
                self._answers.add(now)
            else:
                self.failure = outcome
            # Bad lines are found in no time, before the first answer: they say nothing of the pace.
            if self.latest:
                self._questions.add(now)

    def set_doing(self, words: str) -> None:
        """Something begins that may take long."""
        self._doing = words

    @property
    def doing(self) -> str:
        """What is under way; "" where nothing is known of it."""
        return STOPPING if self.stopping else self._doing

    @property
    def still(self) -> bool:
        """Whether nothing has come for a while."""
        return self.latest is None or self.clock() - self._moved > _STILL

    @property
    def dealt_with(self) -> int:
        """Questions that are no longer open."""
        return self.counters.records - max(0, self.counters.left)

    @property
    def answers_per_second(self) -> float | None:
        """How many answers come in a second, of late; None where that cannot be told yet."""
        with self._paces:
            return self._answers.per_second(self.clock())

    @property
    def time_left(self) -> str | None:
        """How long it will still take, as "1:05" or "2:03:04"; None where that cannot be told."""
        with self._paces:
            pace = self._questions.per_second(self.clock())
        left = self.counters.left
        return format_time(round(left / pace)) if pace and left > 0 else None


def per_second(pace: float, unit: str = "") -> str:
    """Returns a pace as "4.2/s", "0.042/s" or "1240 answers/s"."""
    digits = 0 if pace >= 100 else 1 if pace >= 1 else 3
    return f"{pace:.{digits}f}{' ' * bool(unit)}{unit}/s"
