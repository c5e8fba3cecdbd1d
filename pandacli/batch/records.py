"""A record: one question about one clip."""

from dataclasses import dataclass
from typing import Any

from pandacli.errors import PandaError


@dataclass(frozen=True)
class Record:
    """One question about one clip, as a file of questions has it.

    Attributes:
        line: Where it stands in the file, from 1: the line, or the number of the entry.
        fields: All that the file says of it, untouched and in its order.
        video: The file as it is written there.
        question: What is asked.
        start: First moment asked about, in seconds; None for the beginning.
        end: The moment to stop at, in seconds; None for the end.
        system: The system prompt; None for that of the run.
        max_tokens: The most tokens of answer; None for that of the run.
        part: Which question of its entry it is, from 0, where an entry has several.
        parts: How many questions its entry has.
    """

    line: int
    fields: dict[str, Any]
    video: str
    question: str
    start: float | None = None
    end: float | None = None
    system: str | None = None
    max_tokens: int | None = None
    part: int = 0
    parts: int = 1


class RecordError(PandaError):
    """A line of a file of questions that is no record; the rest of the file is answered.

    Attributes:
        fields: What the line says, where that much could be read; else None.
    """

    fields: dict[str, Any] | None = None
