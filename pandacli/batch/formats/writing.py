"""The answers of a run in the shape that other people's scoring scripts read."""

from collections.abc import Callable, Iterator
from typing import Any, TextIO

from pandacli.batch.answer_lines import as_text
from pandacli.batch.digest import line_digest
from pandacli.batch.formats.answer_table import AnswerTable
from pandacli.batch.formats.questions import Questions
from pandacli.batch.formats.responses import response
from pandacli.batch.formats.scored import generic_entry, pair_entry, qa_entry
from pandacli.batch.records import Record, RecordError
from pandacli.errors import UsageError

OUTPUT_FORMATS = ("jsonl", "qa", "qa-lines", "generic", "consistency", "csv", "openai")
"""The shapes that are written:

    jsonl         ours, in the order in which the answers come: the file that they are written to
                  one by one
    qa            a JSON array of {"id", "video_name", "question", "answer", "pred"}; `Q` and `A`
                  say the question and the right answer again, as Video-ChatGPT's script for these
                  data sets reads them so
    qa-lines      the same with one object a line, as Video-LLaVA's script reads it
    generic       a JSON array of {"video_name", "Q", "A", "pred"}
    consistency   a JSON array of {"video_name", "Q1", "Q2", "A", "pred1", "pred2"}
    csv           the columns of the questions, then ours
    openai        responses of OpenAI's Batch API
"""

Line = dict[str, Any]

_PYTHON = (str, int, float)
_ARRAYS = {"qa": qa_entry, "generic": generic_entry}


def check_shape(questions: Questions, format: str) -> None:  # noqa: A002 (the option's name)
    """See that these questions can be answered in a shape.

    Raises:
        UsageError: There is no such shape, or the questions lack what it needs.
    """
    if format not in OUTPUT_FORMATS:
        raise UsageError(
            f"there is no output format {format!r}", f"formats are {', '.join(OUTPUT_FORMATS)}"
        )
    if format == "consistency" and not questions.in_pairs:
        raise UsageError(f"{questions.name} does not have two questions an entry: Q1 and Q2")


def write_answers(
    questions: Questions,
    format: str,  # noqa: A002 (the option's name)
    digest_of: Callable[[Record], int],
    find: Callable[[int], Line | None],
    out: TextIO,
) -> None:
    """Write all answers of a run, in the order of the questions, one at a time.

    What has no answer is left out, as no scoring script expects it. Only csv and openai have a
    place for errors, and tell of what has failed.

    Args:
        questions: The questions.
        format: One of `OUTPUT_FORMATS`, but not jsonl, which the others are made from.
        digest_of: The digest of a record; see `record_hash`.
        find: The line of our own answers file with a digest, or None.
        out: Where to; a file is opened with `newline=""`.

    Raises:
        UsageError: See `check_shape`.
        ClipError: The questions cannot be read any more.
        OSError: There is no writing to `out`.
    """
    check_shape(questions, format)
    walk = _Walk(questions, digest_of, find)
    if format == "csv":
        table = AnswerTable(questions, out)
        for record, line in walk.lines():
            table.write(record, line)
    elif format == "openai":
        for record, line in walk.lines():
            out.write(as_text(response(record, line)) + "\n")
    elif format == "qa-lines":
        for entry in _entries(walk, "qa"):
            out.write(as_text(_for_python(entry)) + "\n")
    else:
        entries = _pairs(walk) if format == "consistency" else _entries(walk, format)
        _write_array(entries, out)


class _Walk:
    """The records of a file with what came of them."""

    def __init__(
        self,
        questions: Questions,
        digest_of: Callable[[Record], int],
        find: Callable[[int], Line | None],
    ) -> None:
        self._questions = questions
        self._digest_of = digest_of
        self._find = find

    def lines(self) -> Iterator[tuple[Record | None, Line]]:
        """Each record, None for a line that is none, and its line."""
        for entry in self._entries():
            yield from entry

    def answered(self) -> Iterator[list[tuple[Record, str]]]:
        """The records of each entry that have an answer, and the answer."""
        for entry in self._entries():
            yield [
                (record, line["answer"])
                for record, line in entry
                if record is not None and "error" not in line
            ]

    def _entries(self) -> Iterator[list[tuple[Record | None, Line]]]:
        """The lines of each entry, as far as it has any."""
        for _, number, raw in self._questions.entries():
            entry: list[tuple[Record | None, int]]
            try:
                records = self._questions.records(raw, number)
                entry = [(record, self._digest_of(record)) for record in records]
            except RecordError:
                entry = [(None, line_digest(raw))]
            found = ((record, self._find(digest)) for record, digest in entry)
            yield [(record, line) for record, line in found if line is not None]


def _for_python(entry: Line) -> Line:
    # the script evaluates each line as Python, which knows no null, true or false
    return {name: value for name, value in entry.items() if type(value) in _PYTHON}


def _entries(walk: _Walk, format: str) -> Iterator[Line]:  # noqa: A002
    for entry in walk.answered():
        for record, answer in entry:
            yield _ARRAYS[format](record, answer)


def _pairs(walk: _Walk) -> Iterator[Line]:
    for entry in walk.answered():
        if entry and len(entry) == entry[0][0].parts:
            yield pair_entry(entry[0][0], [answer for _, answer in entry])


def _write_array(entries: Iterator[Line], out: TextIO) -> None:
    out.write("[")
    comma = "\n"
    for entry in entries:
        out.write(comma + as_text(entry))
        comma = ",\n"
    out.write("\n]\n")
