"""Shares: what is handed to a worker at a time, all of it about one clip."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from pandacli.batch.record_index import Group, Index
from pandacli.batch.records import BadLine, Question

LARGEST = 256
"""Questions in a share at most. Reading the frames and the prefix once more for the next share is
next to nothing beside so many answers, and several workers can have a part in a long clip."""


@dataclass(frozen=True)
class Share:
    """Questions about one clip, answered by one worker.

    Attributes:
        clip: The number of the clip, from 0.
        parts: Into how many shares its questions are cut.
        questions: The questions.
    """

    clip: int
    parts: int
    questions: list[Question | BadLine]


def shares(index: Index, largest: int = LARGEST) -> Iterator[Share]:
    """All that is open in an index, cut up, in its order; read as it is asked for.

    Args:
        index: What is to be answered.
        largest: The most questions in a share.
    """
    for clip, group in enumerate(index.groups()):
        questions, parts = iter(group), shares_of(group, largest)
        for _ in range(parts):
            yield Share(clip, parts, list(islice(questions, largest)))


def shares_of(group: Group, largest: int = LARGEST) -> int:
    """Into how many shares the questions of a clip are cut."""
    return -(-len(group) // largest)
