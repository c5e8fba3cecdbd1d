"""What went wrong in a run, and how often: three thousand missing videos are one thing.

Failures that differ only in the name of the video and in numbers are of one kind.
"""

import re
from dataclasses import dataclass
from pathlib import PurePath

from pandacli.batch.tally import Outcome

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
