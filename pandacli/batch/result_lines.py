"""The lines of our own answers file: what the question file says, then what came of it."""

import json
from typing import Any

from pandacli.batch.records import Record

OURS = frozenset(
    ("answer", "model", "finish_reason", "tokens", "seconds", "line", "error", "digest", "given")
)
"""Fields that are ours in every line; one that came with the question moves into `given`, so that
the right answer of a data set is never taken for what the model said."""

BAD_RECORD = "record"
"""The `kind` of the error of a line that is no record."""


def answer_line(
    record: Record,
    *,
    answer: str,
    model: str,
    finish_reason: str,
    tokens: int,
    seconds: float,
    digest: str,
) -> dict[str, Any]:
    """The line of a record that has been answered.

    Args:
        record: What was asked.
        answer: The answer.
        model: The name of the model.
        finish_reason: Why the answer ended, "stop" or "length".
        tokens: Tokens of the answer.
        seconds: What it took.
        digest: What the answer depends on, as 16 hex digits.
    """
    ours = {
        "answer": answer,
        "model": model,
        "finish_reason": finish_reason,
        "tokens": tokens,
        "seconds": round(seconds, 3),
        "digest": digest,
    }
    return _joined(record.fields, _told_otherwise(record) | ours)


def error_line(
    line: int,
    fields: dict[str, Any] | None,
    kind: str,
    message: str,
    digest: str,
    record: Record | None = None,
) -> dict[str, Any]:
    """The line of a record that has failed, or of a line that is none.

    Args:
        line: Where it stands in the file of questions.
        fields: What the file says of it; None where that cannot be read.
        kind: The kind of error; `BAD_RECORD` for a line that is no record.
        message: What is wrong, in one line.
        digest: As in `answer_line`.
        record: The record, if it is one; its question is told as in `answer_line`.
    """
    ours = {"line": line, "error": {"kind": kind, "message": message}, "digest": digest}
    if record is None:
        return _joined(fields or {}, ours)
    return _joined(record.fields, _told_otherwise(record) | ours)


def as_text(entry: dict[str, Any]) -> str:
    """A line of JSON, without the newline: plain ASCII, whatever the fields hold."""
    return json.dumps(entry)


def _told_otherwise(record: Record) -> dict[str, Any]:
    """The part, video and question, where the fields of a record do not say them as such."""
    told: dict[str, Any] = {"video": record.video, "question": record.question}
    if record.parts > 1:
        told = {"part": record.part} | told
    return {name: value for name, value in told.items() if record.fields.get(name) != value}


def _joined(fields: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    taken = fields.keys() & (OURS | ours.keys())
    if not taken:
        return fields | ours
    given = {name: value for name, value in fields.items() if name in taken}
    told = {name: value for name, value in fields.items() if name not in taken}
    return told | {"given": given} | ours
