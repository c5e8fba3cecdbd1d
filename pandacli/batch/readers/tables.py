"""Rows of CSV (comma, semicolon or tab) and of Parquet, each as the fields of one entry."""

import csv
import math
import os
import re
from collections import deque
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import PurePath
from typing import Any, NamedTuple

from pandacli.batch.readers.entries import MOST_BYTES, TOO_LONG, Entry, Source, checked_fields
from pandacli.batch.readers.fields import names_in
from pandacli.batch.records import RecordError
from pandacli.errors import ClipError, UsageError

DELIMITERS = ",;\t"
PARQUET_MAGIC = b"PAR1"

_TABLES = (".csv", ".tsv")
_SHOWN = 200  # bytes of a header in a message
_PARQUET_BATCH = 1024  # rows


class _Header(NamedTuple):
    line: int
    delimiter: str
    cells: list[str]


def is_table(source: Source) -> bool:
    """Whether a file is CSV by its suffix, or by a header with a video and a question."""
    suffix = PurePath(source.name).suffix.lower()
    return suffix in _TABLES or _header(source) is not None


class Table:
    """The rows under the header of a CSV file; iterating yields them as entries.

    A row that cannot be read costs one line: an unclosed quote does not take the following rows.

    Attributes:
        columns: The names in the header.
        delimiter: The character between cells.

    Raises:
        ClipError: There is no usable header.
    """

    def __init__(self, source: Source) -> None:
        header = _header(source)
        if header is None:
            raise ClipError(
                f"{source.name} has no header with a video and a question{_columns(source)}",
                "the first line of a table names its columns: video,question",
            )
        self._source, self._header = source, header
        self.delimiter = header.delimiter
        self.columns = tuple(dict.fromkeys(header.cells))
        named = [cell for cell in header.cells if cell]
        if len(set(named)) < len(named):
            double = next(cell for cell in named if named.count(cell) > 1)
            raise ClipError(f"{source.name} has the column {double!r} twice", "rename one of them")

    def __iter__(self) -> Iterator[Entry]:
        """Each row with the number of its first line."""
        lines = _RowLines(self._source, self._header.line)
        reader = csv.reader(lines, delimiter=self.delimiter, strict=True)
        while True:
            line = lines.begin_row()
            try:
                cells = next(reader)
            except StopIteration:
                return
            except (csv.Error, RecordError) as error:
                lines.reject_row()
                yield line, RecordError(f"not a row of a table: {error}")
                continue
            if any(cell.strip() for cell in cells):
                yield line, self._fields(cells)

    def _fields(self, cells: list[str]) -> dict[str, Any] | RecordError:
        names = self._header.cells
        if len(cells) > len(names):
            return RecordError(f"a row of {len(cells)} cells under {len(names)} columns")
        missing = [""] * (len(names) - len(cells))
        return checked_fields(dict(zip(names, cells + missing, strict=True)))


def parquet_rows(source: Source) -> Iterator[Entry]:
    """The rows of a Parquet file; bytes are left out, and what JSON lacks is a string.

    Raises:
        UsageError: pyarrow is not installed.
        ClipError: The file is damaged.
    """
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise UsageError(
            f"{source.name} is Parquet, which takes pyarrow to read",
            "install it with: pip install pyarrow",
        ) from error
    try:
        with (
            os.fdopen(os.dup(source.file.fileno()), "rb") as stream,
            parquet.ParquetFile(stream) as file,
        ):
            rows = chain.from_iterable(b.to_pylist() for b in file.iter_batches(_PARQUET_BATCH))
            for number, row in enumerate(rows, 1):
                yield number, checked_fields({n: _json_value(v) for n, v in row.items()})
    except (ArrowException, OSError, ValueError) as error:
        problem = str(error).partition("\n")[0]
        raise ClipError(f"{source.name} cannot be read as Parquet: {problem}") from error


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
        cells = re.split(f"[{DELIMITERS}]", line[:_SHOWN].decode("utf-8").strip())
    except UnicodeDecodeError:
        return ""
    return f": its columns are {', '.join(cells)}" if len(cells) > 1 else ""


class _RowLines:
    """Lines for `csv.reader`, which can be fed again when a row is rejected."""

    def __init__(self, source: Source, after: int) -> None:
        self._line = after
        self._lines = islice(source.lines(blank=True), after, None)
        self._row: list[bytes] = []
        self._pushed_back: deque[bytes] = deque()

    def __iter__(self) -> "_RowLines":
        return self

    def begin_row(self) -> int:
        """The number of the next line, which begins a row."""
        self._row.clear()
        return self._line + 1

    def reject_row(self) -> None:
        """Reject the first line of the row; feed the others again."""
        others = self._row[1:]
        self._pushed_back.extendleft(reversed(others))
        self._line -= len(others)

    def __next__(self) -> str:
        raw = self._pushed_back.popleft() if self._pushed_back else next(self._lines)[1]
        self._line += 1
        self._row.append(raw)
        if len(raw) > MOST_BYTES:
            raise RecordError(TOO_LONG)
        try:
            return raw.decode("utf-8") + "\n"
        except UnicodeDecodeError as error:
            raise RecordError(f"not UTF-8 at byte {error.start + 1}") from None


def _json_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _json_value(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_json_value(inner) for inner in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return None if isinstance(value, bytes) else str(value)
