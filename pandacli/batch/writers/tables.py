"""Results as a table: the columns of the questions, then those of the results."""

import csv
import io
import json
import re
from typing import Any, BinaryIO, TextIO

from pandacli.batch.readers.entries import MOST_BYTES
from pandacli.batch.readers.tables import DELIMITERS
from pandacli.batch.records import Record
from pandacli.batch.writers import Results, own_fields

_RESULT = ("answer", "model", "finish_reason", "tokens", "seconds", "error")
_RENAMED = {"answer": "pred"}


def is_result_table(file: BinaryIO) -> bool:
    """Whether a file begins with a header whose last columns are those of the results."""
    head = file.readline(MOST_BYTES) + file.readline(MOST_BYTES)
    for delimiter in DELIMITERS:
        try:
            header = next(csv.reader(io.StringIO(head.decode(), newline=""), delimiter=delimiter))
        except (UnicodeDecodeError, csv.Error, StopIteration):
            continue
        last = [re.sub(r"^panda_|(?<=.)_\d+$", "", cell) for cell in header[-len(_RESULT) :]]
        if last[:1] == ["pred"]:
            last[0] = "answer"
        if tuple(last) == _RESULT:
            return True
    return False


def write_table(results: Results, out: TextIO) -> None:
    """Write a header and a row for each result.

    A column of the questions keeps its name; a result column of the same name is renamed, to `pred`
    for the answer. Fields of questions that are not a table become columns in the order in which
    they appear.
    """
    columns = list(results.questions.columns) or _all_fields(results)
    if results.questions.in_pairs:
        columns += [name for name in ("part", "question") if name not in columns]
    taken = set(columns)
    writer = _RowWriter(out, results.delimiter)
    writer.write(columns + [_free_name(name, taken) for name in _RESULT])
    for record, line in results:
        fields = line | line.get("given", {}) if record is None else _fields(record)
        failed = "error" in line
        values = ["" if failed else line[name] for name in _RESULT[:-1]]
        error = f"{line['error']['kind']}: {line['error']['message']}" if failed else ""
        writer.write([fields.get(name) for name in columns] + values + [error])


class _RowWriter:
    def __init__(self, out: TextIO, delimiter: str) -> None:
        self._plain = csv.writer(out, delimiter=delimiter, lineterminator="\n")
        # a lone carriage return would end a row, but is not quoted on its own by every Python
        self._quoted = csv.writer(
            out, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL
        )

    def write(self, values: list[Any]) -> None:
        cells = [_cell(value) for value in values]
        writer = self._quoted if any("\r" in cell for cell in cells) else self._plain
        writer.writerow(cells)


def _all_fields(results: Results) -> list[str]:
    columns: dict[str, None] = {}
    for record in results.records():
        columns |= dict.fromkeys(_fields(record))
    return list(columns)


def _fields(record: Record) -> dict[str, Any]:
    fields = own_fields(record)
    asked: dict[str, Any] = {}
    if fields is not record.fields:
        asked = {"video": record.video, "question": record.question}
    if record.parts > 1:
        asked = {"part": record.part, "question": record.question}
    return fields | asked


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value)
    # JSON can hold unpaired surrogates, which cannot be written
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _free_name(name: str, taken: set[str]) -> str:
    wanted = [name, _RENAMED.get(name, f"panda_{name}")]
    numbered = (f"panda_{name}_{number}" for number in range(1, len(taken) + 2))
    free = next(each for each in (*wanted, *numbered) if each not in taken)
    taken.add(free)
    return free
