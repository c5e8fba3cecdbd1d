"""Results of records: lines of the results file, outcomes for the display, and counters."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from pandacli.batch.records import Record

Line = dict[str, Any]
"""A line of a results file: the fields of its record, then those of the result."""

RESULT_FIELDS = frozenset(
    ("answer", "model", "finish_reason", "tokens", "seconds", "line", "error", "digest", "given")
)
"""Fields that always belong to the result. A record's own field of such a name moves into `given`,
so that a reference answer is never mistaken for the model's."""

BAD_RECORD = "record"
"""The error kind of a line that is not a valid record."""


def answer_line(
    record: Record,
    *,
    answer: str,
    model: str,
    finish_reason: str,
    tokens: int,
    seconds: float,
    digest: str,
) -> Line:
    """The line of an answered record.

    Args:
        finish_reason: "stop" or "length".
        tokens: Tokens of the answer.
        seconds: Time from the start of the question to its last token.
        digest: Of the record and the settings, as 16 hex digits.
    """
    result = {
        "answer": answer,
        "model": model,
        "finish_reason": finish_reason,
        "tokens": tokens,
        "seconds": round(seconds, 3),
        "digest": digest,
    }
    return _merge(record.fields, _resolved_fields(record) | result)


def error_line(
    line: int,
    fields: Line | None,
    kind: str,
    message: str,
    digest: str,
    record: Record | None = None,
) -> Line:
    """The line of a failed record, or of a line that is not a record.

    Args:
        line: Its line number in the file of questions.
        fields: Its fields there; None where they cannot be parsed.
        kind: The kind of error; `BAD_RECORD` for a line that is not a record.
        digest: As in `answer_line`.
        record: The record, where the line is one.
    """
    result = {"line": line, "error": {"kind": kind, "message": message}, "digest": digest}
    if record is None:
        return _merge(fields or {}, result)
    return _merge(record.fields, _resolved_fields(record) | result)


def _resolved_fields(record: Record) -> Line:
    """The part, video and question, where the record's fields have other names or values."""
    resolved: Line = {"video": record.video, "question": record.question}
    if record.parts > 1:
        resolved = {"part": record.part} | resolved
    return {name: value for name, value in resolved.items() if record.fields.get(name) != value}


def _merge(fields: Line, result: Line) -> Line:
    clashing = fields.keys() & (RESULT_FIELDS | result.keys())
    if not clashing:
        return fields | result
    given = {name: value for name, value in fields.items() if name in clashing}
    kept = {name: value for name, value in fields.items() if name not in clashing}
    return kept | {"given": given} | result


@dataclass(frozen=True)
class Outcome:
    """The result of one record, once its line is written."""

    line: int  # the record's line number in its file, from 1
    video: str  # as the record names it; "" for a line that is not a record
    question: str  # "" for a line that is not a record
    answer: str | None  # None where it failed
    error: str | None  # the message; None where it was answered
    written: Line  # its line in the results file


@dataclass
class Counters:
    """The progress of a run; invalid lines count as records that fail."""

    records: int = 0  # in the file
    earlier: int = 0  # answered by earlier runs
    answered: int = 0  # in this run, as all below
    failed: int = 0
    clips: int = 0  # with open questions
    clips_done: int = 0
    tokens: int = 0  # of the answers
    # by stage, in order of execution; frames are prefetched by other processes, so "frames" is
    # only the time spent waiting for them
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def left(self) -> int:
        """Records without a result."""
        return self.records - self.earlier - self.answered - self.failed

    def spend(self, stage: str, seconds: float) -> None:
        """Add to the time of a stage."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time in the context to that of a stage."""
        started = perf_counter()
        yield
        self.spend(stage, perf_counter() - started)
