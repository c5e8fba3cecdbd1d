"""Reference answers of a data set, in a file beside its questions."""

import re
from pathlib import Path
from typing import Any

from pandacli.batch.readers.json_entries import json_array, json_lines
from pandacli.batch.readers.source import opened
from pandacli.batch.records import RecordError
from pandacli.errors import ClipError

_PARTNERS = (
    (re.compile(r"(?<![a-z])q(?![a-z])", re.IGNORECASE), "a", "A"),
    (re.compile(r"questions", re.IGNORECASE), "answers", "Answers"),
    (re.compile(r"question", re.IGNORECASE), "answer", "Answer"),
)
_REFERENCES_HEAD = 1 << 16
_PREDICTED = (b'"pred"', b'"digest"')


def find_references(questions: Path) -> Path | None:
    """The file of answers beside a file of questions, by its name: test_a.json for test_q.json."""
    if questions.suffix.lower() == ".parquet":  # answers are read from JSON only
        return None
    for pattern, small, capital in _PARTNERS:
        for found in reversed(list(pattern.finditer(questions.stem))):
            other = capital if found[0][0].isupper() else small
            stem = questions.stem[: found.start()] + other + questions.stem[found.end() :]
            answers = questions.with_name(stem + questions.suffix)
            if answers.is_file() and not _is_predicted(answers):
                return answers
    return None


class References:
    """Reference answers by `question_id`, or by position where ids are missing or repeat.

    Args:
        path: A JSON array, or one JSON object a line; all of it is held in memory.

    Raises:
        ClipError: It cannot be read, or is something else.
    """

    def __init__(self, path: Path) -> None:
        self._entries = _read(path)
        ids = [_id(entry) for entry in self._entries]
        unique = None not in ids and len(set(ids)) == len(ids)
        self._by_id = dict(zip(ids, self._entries, strict=True)) if unique else None

    def join(self, fields: dict[str, Any], position: int) -> dict[str, Any]:
        """The fields of a question, with those of its reference that it lacks.

        Args:
            fields: The question.
            position: Its index in the file, from 0.
        """
        found: dict[str, Any] = {}
        if self._by_id is not None:
            found = self._by_id.get(_id(fields), {})
        elif position < len(self._entries):
            found = self._entries[position]
        return fields | {name: value for name, value in found.items() if name not in fields}


def _is_predicted(answers: Path) -> bool:
    """Whether a model gave the answers, such as an earlier run."""
    try:
        with answers.open("rb") as file:
            head = file.read(_REFERENCES_HEAD)
    except OSError:  # reported when it is opened to be read
        return False
    return any(name in head for name in _PREDICTED)


def _read(path: Path) -> list[dict[str, Any]]:
    read = []
    with opened(path) as source:
        is_array = source.head(_REFERENCES_HEAD).lstrip().startswith(b"[")
        for number, fields in (json_array if is_array else json_lines)(source):
            if isinstance(fields, RecordError):
                raise ClipError(
                    f"{source.name} is no file of answers: entry {number}: {fields.message}",
                    'it holds a list of objects like {"question_id": "1", "answer": "yes"}',
                )
            read.append(fields)
    return read


def _id(fields: dict[str, Any]) -> str | None:
    value = fields.get("question_id")
    return None if value is None else str(value)
