"""The answers of a run in the shape that other people's scoring scripts read."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, BinaryIO, TextIO

from pandacli.batch.readers.json_parsing import MOST_BYTES
from pandacli.batch.readers.questions import Questions
from pandacli.batch.records import Record, RecordError, line_digest
from pandacli.batch.result_lines import as_text
from pandacli.batch.writers.benchmarks import (
    generic_entry,
    has_right_answer,
    pair_entry,
    qa_entry,
    unique_ids,
)
from pandacli.batch.writers.tables import OURS, AnswerTable, response
from pandacli.errors import UsageError

OUTPUT_FORMATS = (
    *("jsonl", "qa", "qa-lines", "generic", "generic-lines", "consistency", "consistency-lines"),
    *("csv", "openai"),
)
"""The shapes that are written:

    jsonl         ours, in the order in which the answers come: the file that they are written to
                  one by one
    qa            a JSON array of {"id", "video_name", "question", "answer", "pred"}; `Q` and `A`
                  say the question and the right answer again, as Video-ChatGPT's script for these
                  data sets reads them so
    generic       a JSON array of {"video_name", "Q", "A", "pred"}
    consistency   a JSON array of {"video_name", "Q1", "Q2", "A", "pred1", "pred2"}
    csv           the columns of the questions, then ours
    openai        responses of OpenAI's Batch API

`qa-lines`, `generic-lines` and `consistency-lines` have the entries of the arrays one a line, as
the scripts of Video-LLaVA and Video-Panda read them: each line is a literal of Python. Questions
in pairs are written in pairs in `qa-lines` too.
"""

Line = dict[str, Any]

_PYTHON = (str, int, float)
_LINES = "-lines"
_ESCAPED = re.compile("[\ud800-\udfff\x85\u2028\u2029]")  # and what may end a line
_KEYS = {
    "qa": {"id", "video_name", "question", "Q", "pred"},
    "generic": {"video_name", "Q", "pred"},
    "consistency": {"video_name", "pred1", "pred2"},
    "openai": {"id", "custom_id", "response", "error"},
}


def check_shape(questions: Questions, format: str) -> None:  # noqa: A002 (the option's name)
    """See that these questions can be answered in a shape.

    Raises:
        UsageError: There is no such shape, or the questions lack what it needs.
    """
    if format not in OUTPUT_FORMATS:
        raise UsageError(
            f"there is no output format {format!r}", f"formats are {', '.join(OUTPUT_FORMATS)}"
        )
    if format.removesuffix(_LINES) == "consistency" and not questions.in_pairs:
        raise UsageError(f"{questions.name} does not have two questions an entry: Q1 and Q2")


def is_in_shape(file: BinaryIO, format: str) -> bool:  # noqa: A002 (the option's name)
    """Whether a file begins as `write_answers` begins one of this shape.

    Args:
        file: The file, at its beginning; not much more than an entry is read.
        format: One of `OUTPUT_FORMATS`, but not jsonl.
    """
    first = file.readline(MOST_BYTES)
    if format == "csv":
        return _is_header(first + file.readline(MOST_BYTES))
    shape = format.removesuffix(_LINES)
    if shape == format != "openai":
        if first != b"[\n":
            return False
        first = file.readline(MOST_BYTES).rstrip(b",\n")
        if first == b"]":
            return True
    try:
        entry = json.loads(first)
    except (ValueError, RecursionError):
        return False
    shapes = ("qa", "consistency") if shape == "qa" else (shape,)
    return isinstance(entry, dict) and any(_KEYS[each] <= entry.keys() for each in shapes)


def _is_header(head: bytes) -> bool:
    """Whether a table begins with a header whose last columns are ours, by whatever names."""
    for delimiter in ",;\t":
        try:
            header = next(csv.reader(io.StringIO(head.decode(), newline=""), delimiter=delimiter))
        except (UnicodeDecodeError, csv.Error, StopIteration):
            continue
        columns = [re.sub(r"^panda_|(?<=.)_\d+$", "", cell) for cell in header[-len(OURS) :]]
        if columns[:1] == ["pred"]:
            columns[0] = "answer"
        if tuple(columns) == OURS:
            return True
    return False


def write_answers(
    questions: Questions,
    format: str,  # noqa: A002 (the option's name)
    digest_of: Callable[[Record], int],
    find: Callable[[int], Line | None],
    out: TextIO,
    *,
    delimiter: str | None = None,
) -> list[str]:
    """Write all answers of a run, in the order of the questions, one at a time.

    What has no answer is left out, as no scoring script expects it. Only csv and openai have a
    place for errors, and tell of what has failed.

    Args:
        questions: The questions.
        format: One of `OUTPUT_FORMATS`, but not jsonl, which the others are made from.
        digest_of: The digest of a record; see `record_hash`.
        find: The line of our own answers file with a digest, or None.
        out: Where to; a file is opened with `newline=""`.
        delimiter: What keeps the cells of a table apart; None for that of the questions.

    Returns:
        What a user who scores the answers should know, a sentence each.

    Raises:
        UsageError: See `check_shape`.
        ClipError: The questions cannot be read any more.
        OSError: There is no writing to `out`.
    """
    check_shape(questions, format)
    walk = _Walk(questions, digest_of, find)
    if format == "csv":
        table = AnswerTable(questions, out, delimiter)
        for record, line in walk.lines():
            table.write(record, line)
    elif format == "openai":
        for record, line in walk.lines():
            out.write(as_text(response(record, line)) + "\n")
    else:
        return _write_scored(walk, format, out)
    return []


def _write_scored(walk: "_Walk", format: str, out: TextIO) -> list[str]:  # noqa: A002
    shape = format.removesuffix(_LINES)
    if shape == "consistency" or (format == "qa-lines" and walk.in_pairs):
        entries = _pairs(walk)
    elif shape == "qa":
        entries = _entries(walk, walk.qa_entry)
    else:
        entries = _entries(walk, generic_entry)
    if shape == format:
        _write_array(entries, out)
    else:
        for entry in entries:
            out.write(_as_literal(entry) + "\n")
    return walk.notices


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
        self._id_of: Callable[[Record], str] | None = None
        self.in_pairs = questions.in_pairs
        self.notices: list[str] = []

    def qa_entry(self, record: Record, answer: str) -> Line:
        """An entry with an id that no other has."""
        if self._id_of is None:
            self._id_of, repeated = unique_ids(self._records)
            if repeated:
                self.notices.append(
                    'the ids of the questions repeat: "id" is the video with the id'
                )
        return qa_entry(record, answer, self._id_of(record))

    def lines(self) -> Iterator[tuple[Record | None, Line]]:
        """Each record, None for a line that is none, and its line."""
        for entry in self._entries():
            yield from entry

    def answered(self) -> Iterator[list[tuple[Record, str]]]:
        """The records of each entry that have an answer, and the answer."""
        without = 0
        for entry in self._entries():
            found = [
                (record, line["answer"])
                for record, line in entry
                if record is not None and "error" not in line
            ]
            without += sum(not has_right_answer(record) for record, _ in found)
            yield found
        if without:
            self.notices.append(
                f"{without:,} answers have no right answer beside them, which scoring scripts need"
                f' ("answer" or "A" in the questions, or --answers FILE)'
            )

    def _records(self) -> Iterator[Record]:
        for _, number, raw in self._questions.entries():
            with suppress(RecordError):
                yield from self._questions.records(raw, number)

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


def _as_literal(entry: Line) -> str:
    """An entry as a literal of Python, which knows no null, true or false.

    Lone surrogates are escaped, but no other character: Python does not join the pairs by which
    JSON escapes an emoji.
    """
    known = {name: value for name, value in entry.items() if type(value) in _PYTHON}
    return _ESCAPED.sub(
        lambda found: f"\\u{ord(found[0]):04x}", json.dumps(known, ensure_ascii=False)
    )


def _entries(walk: _Walk, entry_of: Callable[[Record, str], Line]) -> Iterator[Line]:
    for entry in walk.answered():
        for record, answer in entry:
            yield entry_of(record, answer)


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
