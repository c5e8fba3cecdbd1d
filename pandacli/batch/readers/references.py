"""The right answers of a data set, which lie in a file of their own beside its questions."""

import re
from pathlib import Path
from typing import Any

from pandacli.batch.readers.arrays import elements
from pandacli.batch.readers.json_parsing import parse
from pandacli.batch.readers.source import Source, opened
from pandacli.batch.records import RecordError
from pandacli.errors import ClipError

_PARTNERS = (
    (re.compile(r"(?<![a-z])q(?![a-z])", re.IGNORECASE), "a", "A"),
    (re.compile(r"questions", re.IGNORECASE), "answers", "Answers"),
    (re.compile(r"question", re.IGNORECASE), "answer", "Answer"),
)
_HEAD = 1 << 16
_PREDICTED = (b'"pred"', b'"digest"')


def partner(questions: Path) -> Path | None:
    """The file of answers that belongs to one of questions, by its name: test_a.json beside
    test_q.json; None where there is none.
    """
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


class RightAnswers:
    """The entries of a file of answers, found by `question_id`, or by their place where the ids
    are missing or not unique. They are held in memory.

    Args:
        path: A JSON array, or one JSON object a line.

    Raises:
        ClipError: It cannot be read, or is something else.
    """

    def __init__(self, path: Path) -> None:
        with opened(path) as source:
            self._by_place = _entries(source)
        ids = [_id(entry) for entry in self._by_place]
        unique = None not in ids and len(set(ids)) == len(ids)
        self._by_id = dict(zip(ids, self._by_place, strict=True)) if unique else None

    def joined(self, fields: dict[str, Any], place: int) -> dict[str, Any]:
        """The fields of a question, with those of its answer that it has not itself.

        Args:
            fields: The question.
            place: Which question of its file it is, from 0.
        """
        found: dict[str, Any] = {}
        if self._by_id is not None:
            found = self._by_id.get(_id(fields), {})
        elif place < len(self._by_place):
            found = self._by_place[place]
        return fields | {name: value for name, value in found.items() if name not in fields}


def _is_predicted(answers: Path) -> bool:
    """Whether the answers are those of a model, such as an earlier run has left there."""
    try:
        with answers.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:  # told when it is opened to be read
        return False
    return any(name in head for name in _PREDICTED)


def _entries(source: Source) -> list[dict[str, Any]]:
    first = next(source.lines(), (0, 0, b""))[2]
    if first.lstrip().startswith(b"["):
        raws = enumerate(elements(source), 1)
    else:
        raws = ((line, raw) for _, line, raw in source.lines())  # type: ignore[assignment]
    entries = []
    for number, raw in raws:
        try:
            entries.append(parse(raw))
        except RecordError as error:
            raise ClipError(
                f"{source.name} is no file of answers: entry {number}: {error.message}",
                'it holds a list of objects like {"question_id": "1", "answer": "yes"}',
            ) from None
    return entries


def _id(fields: dict[str, Any]) -> str | None:
    value = fields.get("question_id")
    return None if value is None else str(value)
