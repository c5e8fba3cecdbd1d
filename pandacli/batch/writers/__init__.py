"""Results of a run in the formats of `pandacli.batch.formats`; here what all writers share."""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from pandacli.batch.readers.conversations import is_request
from pandacli.batch.records import BadLine, Record

if TYPE_CHECKING:
    from pandacli.batch.readers.questions import Questions

Line = dict[str, Any]
"""A line of the results file."""

_IDS = ("question_id", "id", "custom_id", "qid", "vid_id", "q_uid")
_OF_REQUEST = ("method", "url", "body")


class Results:
    """The records of a file, each with its line of the results file.

    Iterating yields each record (None for a bad line) with its line, where it has one.

    Attributes:
        questions: The questions.
        delimiter: The character between the cells of a table.
        notices: What a user who scores the answers should know, a sentence each; writers add to it.
    """

    def __init__(
        self,
        questions: "Questions",
        digests: Sequence[int],
        find: Callable[[int], Line | None],
        delimiter: str,
    ) -> None:
        self.questions, self.delimiter = questions, delimiter
        self.notices: list[str] = []
        self._digests, self._find = digests, find

    def __iter__(self) -> Iterator[tuple[Record | None, Line]]:
        """Records and lines in the order of the questions."""
        for record, digest in zip(self.questions.records, self._digests, strict=True):
            line = self._find(digest)
            if line is not None:
                yield None if isinstance(record, BadLine) else record, line

    def records(self) -> Iterator[Record]:
        """All valid records, with a result or without."""
        return (record for record in self.questions.records if isinstance(record, Record))

    def answers(self) -> Iterator[tuple[Record, str]]:
        """The records that have an answer, and the answer."""
        for record, line in self:
            if record is not None and "error" not in line:
                yield record, line["answer"]

    def answered_pairs(self) -> Iterator[tuple[Record, list[str]]]:
        """The first record of each entry of which all questions have an answer, and these."""
        for _, group in groupby(self.answers(), lambda answer: answer[0].line):
            answers = list(group)
            if len(answers) == answers[0][0].parts:
                yield answers[0][0], [answer for _, answer in answers]


def own_fields(record: Record) -> dict[str, Any]:
    """The fields of a record that are written again; of a request, its id only."""
    if not is_request(record.fields):
        return record.fields
    return {k: v for k, v in record.fields.items() if k not in _OF_REQUEST}


def record_id(record: Record) -> str:
    """The id of a record, under any known name in any case; else its line."""
    fields = {name: value for name, value in record.fields.items() if is_scalar(value)}
    folded = {name.casefold(): value for name, value in fields.items()}
    found = next((each[name] for each in (fields, folded) for name in _IDS if name in each), None)
    found = record.line if found is None else found
    return f"{found}_{record.part + 1}" if record.parts > 1 else str(found)


def is_scalar(value: Any) -> bool:
    """Whether a value can be an id or an answer: a non-empty string, a number or a boolean."""
    return isinstance(value, str | int | float) and value != ""
