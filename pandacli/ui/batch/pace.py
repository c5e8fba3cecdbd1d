"""How many of a thing there are in a second, of late.

Of late, because a model that was loading for minutes says nothing of how fast it is. Answers come
in batches, so a pace is measured from one moment at which some came to another.
"""

from collections import deque
from dataclasses import dataclass

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
