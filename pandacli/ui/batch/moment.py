"""How far a run is: what a person who looks at it now wants to know."""

from collections.abc import Callable
from threading import Lock

from pandacli.batch.tally import Outcome, Tally
from pandacli.ui.batch.pace import Pace
from pandacli.video.clip import format_time

STOPPING = "finishing the answers in flight; Ctrl-C again stops at once"

_STILL = 2.0  # seconds without an answer after which one wonders what is going on


class Moment:
    """The tally of a run with its pace; it is written to by one thread and read by another.

    Args:
        tally: Grows while the run goes on.
        clock: Seconds; never put back.

    Attributes:
        latest: The last question that was answered.
        failure: The last one that has failed.
        stopping: Whether the user has asked the run to end.
    """

    def __init__(self, tally: Tally, clock: Callable[[], float]) -> None:
        self.tally = tally
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
        return self.tally.records - max(0, self.tally.left)

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
        left = self.tally.left
        return format_time(round(left / pace)) if pace and left > 0 else None


def per_second(pace: float, unit: str = "") -> str:
    """Returns a pace as "4.2/s", "0.042/s" or "1240 answers/s"."""
    digits = 0 if pace >= 100 else 1 if pace >= 1 else 3
    return f"{pace:.{digits}f}{' ' * bool(unit)}{unit}/s"
