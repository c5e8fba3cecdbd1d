"""Results of records: lines of the results file, outcomes for the display, and counters."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from pandacli.batch.records import BadLine, Question, RecordError
from pandacli.errors import ClipError, DeviceError, PandaError, UsageError

Line = dict[str, Any]  # of a results file: the fields of its record, then those of the result
Result = tuple[Question | BadLine, Line]

# A record's own field of such a name moves into `given`, so that a reference answer is never
# mistaken for the model's.
_RESULT_FIELDS = frozenset(
    (
        *("answer", "model", "finish_reason", "tokens", "seconds", "blind", "mirror"),
        *("line", "error", "digest", "given"),
    )
)

_KINDS = {RecordError: "record", ClipError: "clip", UsageError: "question", DeviceError: "memory"}


def error_line(question: Question | BadLine, error: PandaError) -> Line:
    """The line of a record that failed, or of a line that is not a record."""
    line = question.line if isinstance(question, BadLine) else question.record.line
    return result_line(question, {"line": line, "error": error_fields(error)})


def error_fields(error: PandaError) -> Line:
    """The kind and the message of an error, for JSON."""
    message = f"{error.message}; {error.hint}" if error.hint else error.message
    kind = next((kind for cls, kind in _KINDS.items() if isinstance(error, cls)), "other")
    return {"kind": kind, "message": message}


def error_lines(questions: Iterable[Question], error: PandaError) -> Iterator[Result]:
    """Records that failed for one reason."""
    return ((question, error_line(question, error)) for question in questions)


def result_line(question: Question | BadLine, result: Line) -> Line:
    """The line of a record: its fields, then those of its result and its digest."""
    result = result | {"digest": f"{question.digest:016x}"}
    if isinstance(question, BadLine):
        fields = question.error.fields or {}
    else:
        record, fields = question.record, question.record.fields
        resolved: Line = {"part": record.part} if record.parts > 1 else {}
        resolved |= {"video": record.video, "question": record.question}
        # only where the record's fields have other names or values
        result = {k: value for k, value in resolved.items() if fields.get(k) != value} | result
    if clashing := fields.keys() & (_RESULT_FIELDS | result.keys()):
        given = {name: value for name, value in fields.items() if name in clashing}
        kept = {name: value for name, value in fields.items() if name not in clashing}
        fields = kept | {"given": given}
    return fields | result


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
    # by stage, in order of execution; "frames" is the time spent waiting for the prefetcher
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def left(self) -> int:
        """Records without a result."""
        return self.records - self.earlier - self.answered - self.failed

    def spend(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time in the context to that of a stage."""
        started = perf_counter()
        yield
        self.spend(stage, perf_counter() - started)
