"""Rows of CSV (comma, semicolon or tab) and of Parquet, each as the fields of one entry."""

import csv
import math
import os
import re
from collections import Counter, deque
from collections.abc import Iterator
from itertools import chain, islice, zip_longest
from pathlib import PurePath
from typing import Any, NamedTuple

from pandacli.batch.readers.entries import MOST_BYTES, TOO_LONG, Entry, Source, checked_fields
from pandacli.batch.readers.fields import names_in
from pandacli.batch.records import RecordError
from pandacli.errors import ClipError, UsageError

DELIMITERS = ",;\t"
PARQUET_MAGIC = b"PAR1"

_MAX_SHOWN = 200  # bytes of a header in a message
_PARQUET_BATCH = 1024  # rows


def is_table(source: Source) -> bool:
    """Whether a file is CSV by its suffix, or by a header with a video and a question."""
    return PurePath(source.name).suffix.lower() in (".csv", ".tsv") or _header(source) is not None


class Table:
    """The entries of a CSV file, or ClipError without a header; a bad row costs one line only."""

    def __init__(self, source: Source) -> None:
        header = _header(source)
        if header is None:
            message = f"{source.name} has no header with a video and a question{_columns(source)}"
            raise ClipError(message, "the first line of a table names its columns: video,question")
        self._source, self._header = source, header
        self.delimiter = header.delimiter
        counts = Counter(header.cells)
        self.columns = tuple(counts)
        if double := next((cell for cell, count in counts.items() if cell and count > 1), None):
            raise ClipError(f"{source.name} has the column {double!r} twice", "rename one of them")

    def __iter__(self) -> Iterator[Entry]:
        lines = _RowLines(islice(self._source.lines(blank=True), self._header.line, None))
        reader = csv.reader(lines, delimiter=self.delimiter, strict=True)
        names = self._header.cells
        while True:
            lines.row.clear()
            try:
                cells = next(reader)
            except StopIteration:
                return
            except (csv.Error, RecordError) as error:
                fields: dict[str, Any] | RecordError = RecordError(f"not a row of a table: {error}")
                lines.pushed_back.extendleft(reversed(lines.row[1:]))
            else:
                if not any(cell.strip() for cell in cells):
                    continue
                if len(cells) > len(names):
                    fields = RecordError(f"a row of {len(cells)} cells under {len(names)} columns")
                else:
                    fields = checked_fields(dict(zip_longest(names, cells, fillvalue="")))
            yield lines.row[0][0], fields


class _RowLines:
    """Lines for `csv.reader`; those behind a rejected one can be pushed back."""

    def __init__(self, lines: Iterator[tuple[int, bytes]]) -> None:
        self._lines = lines
        self.row: list[tuple[int, bytes]] = []
        self.pushed_back: deque[tuple[int, bytes]] = deque()

    def __iter__(self) -> "_RowLines":
        return self

    def __next__(self) -> str:
        number, raw = self.pushed_back.popleft() if self.pushed_back else next(self._lines)
        self.row.append((number, raw))
        if len(raw) > MOST_BYTES:
            raise RecordError(TOO_LONG)
        try:
            return raw.decode("utf-8") + "\n"
        except UnicodeDecodeError as error:
            raise RecordError(f"not UTF-8 at byte {error.start + 1}") from None


class _Header(NamedTuple):
    line: int
    delimiter: str
    cells: list[str]


def _header(source: Source) -> _Header | None:
    """The first line as a header; None where it names no video and no question."""
    number, line = next(source.lines(), (0, b""))
    if len(line) > MOST_BYTES:
        return None
    for delimiter in DELIMITERS:
        try:
            row = next(csv.reader([line.decode("utf-8")], delimiter=delimiter), [])
        except (csv.Error, UnicodeDecodeError):
            continue
        cells = [cell.strip() for cell in row]
        if names_in(tuple(cells)) is not None:
            return _Header(number, delimiter, cells)
    return None


def _columns(source: Source) -> str:
    """The columns that there are, for the end of a message."""
    _, line = next(source.lines(), (0, b""))
    try:
        cells = re.split(f"[{DELIMITERS}]", line[:_MAX_SHOWN].decode("utf-8").strip())
    except UnicodeDecodeError:
        return ""
    return f": its columns are {', '.join(cells)}" if len(cells) > 1 else ""


def parquet_rows(source: Source) -> Iterator[Entry]:
    """The rows of a Parquet file; bytes are left out, and what JSON lacks is a string."""
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        message = f"{source.name} is Parquet, which takes pyarrow to read"
        raise UsageError(message, "install it with: pip install 'pandacli[eval]'") from error
    try:
        stream = os.fdopen(os.dup(source.file.fileno()), "rb")
        with stream, parquet.ParquetFile(stream) as file:
            rows = chain.from_iterable(b.to_pylist() for b in file.iter_batches(_PARQUET_BATCH))
            for number, row in enumerate(rows, 1):
                yield number, checked_fields(_json_value(row))
    except (ArrowException, OSError, ValueError) as error:
        problem = str(error).partition("\n")[0]
        raise ClipError(f"{source.name} cannot be read as Parquet: {problem}") from error


def _json_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _json_value(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_json_value(inner) for inner in value]
    if isinstance(value, bytes) or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value if isinstance(value, str | int | float | None) else str(value)
