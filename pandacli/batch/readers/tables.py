"""Questions in a table: CSV with a header, its cells apart by comma, semicolon or tab.

Questions in Parquet, as most data sets of Hugging Face are: its rows, as JSON on one line.
"""

import csv
import json
import math
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Self

from pandacli.batch.readers.fields import Names, names_in
from pandacli.batch.readers.json_parsing import MOST_BYTES, TOO_LONG
from pandacli.batch.readers.source import Source
from pandacli.batch.records import RecordError
from pandacli.errors import ClipError, UsageError

_DELIMITERS = ",;\t"
_SHOWN = 200  # bytes of a header in a message


@dataclass(frozen=True)
class Header:
    """The first row of a table.

    Attributes:
        line: Where it stands.
        delimiter: What keeps its cells apart.
        cells: The cells.
        names: Which of them are the video and the question.
    """

    line: int
    delimiter: str
    cells: list[str]
    names: Names


def header_of(source: Source) -> Header | None:
    """The header of a table; None where the first line names no video and no question."""
    first = next(source.lines(), None)
    if first is None or len(first[2]) > MOST_BYTES:
        return None
    try:
        text = first[2].decode("utf-8")
    except UnicodeDecodeError:
        return None
    for delimiter in _DELIMITERS:
        try:
            cells = [cell.strip() for cell in next(csv.reader([text], delimiter=delimiter))]
        except csv.Error:
            continue
        names = names_in(cells)
        if names is not None:
            return Header(first[1], delimiter, cells, names)
    return None


def checked_header(source: Source) -> Header:
    """The header of a file that must be a table.

    Raises:
        ClipError: It has none that can be used.
    """
    header = header_of(source)
    if header is None:
        raise ClipError(
            f"{source.name} has no header with a video and a question{_columns(source)}",
            "the first line of a table names its columns: video,question",
        )
    named = [cell for cell in header.cells if cell]
    if len(set(named)) < len(named):
        double = next(cell for cell in named if named.count(cell) > 1)
        raise ClipError(f"{source.name} has the column {double!r} twice", "rename one of them")
    return header


def _columns(source: Source) -> str:
    """What stands behind the complaint: the columns that there are, if they can be read."""
    first = next(source.lines(), (0, 0, b""))[2][:_SHOWN]
    try:
        cells = re.split(f"[{_DELIMITERS}]", first.decode("utf-8").strip())
    except UnicodeDecodeError:
        return ""
    return f": its columns are {', '.join(cells)}" if len(cells) > 1 else ""


def rows(source: Source, header: Header) -> Iterator[tuple[int, dict[str, str] | str]]:
    """The rows under a header.

    What is no row costs one line: a quote that is never closed would take the next ones with it.

    Args:
        source: The file.
        header: Its header.

    Yields:
        The line that a row begins on, and its cells by the names of their columns; a text says
        why something is no row.
    """
    lines = _Lines(source, header.line)
    reader = csv.reader(lines, delimiter=header.delimiter, strict=True)
    while True:
        line = lines.begin_row()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except (csv.Error, RecordError) as error:
            lines.end_row_at_once()
            yield line, f"not a row of a table: {error}"
            continue
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) > len(header.cells):
            yield line, f"a row of {len(cells)} cells under {len(header.cells)} columns"
            continue
        missing = [""] * (len(header.cells) - len(cells))
        yield line, dict(zip(header.cells, cells + missing, strict=True))


class _Lines:
    """Lines as the reader of a table wants them; one that is no text fails alone."""

    def __init__(self, source: Source, after: int) -> None:
        self._line = after
        self._lines = islice(source.lines(blank=True), after, None)
        self._row: list[bytes] = []
        self._again: deque[bytes] = deque()

    def __iter__(self) -> Self:
        return self

    def begin_row(self) -> int:
        """Where the row begins that the next lines are of."""
        self._row.clear()
        return self._line + 1

    def end_row_at_once(self) -> None:
        """Have the row be its first line only; the others come again."""
        others = self._row[1:]
        self._again.extendleft(reversed(others))
        self._line -= len(others)

    def __next__(self) -> str:
        raw = self._again.popleft() if self._again else next(self._lines)[2]
        self._line += 1
        self._row.append(raw)
        if len(raw) > MOST_BYTES:
            raise RecordError(TOO_LONG)
        try:
            return raw.decode("utf-8") + "\n"
        except UnicodeDecodeError as error:
            raise RecordError(f"not UTF-8 at byte {error.start + 1}") from None


def as_entry(row: dict[str, str] | str) -> bytes:
    """A row, or what is wrong with it, as JSON on one line."""
    return json.dumps(row).encode()


MAGIC = b"PAR1"
"""What such a file begins with."""

_AT_A_TIME = 1024  # rows


def parquet_rows(source: Source) -> Iterator[dict[str, Any]]:
    """The rows of a file, as objects that can be written as JSON.

    Raises:
        UsageError: pyarrow, which reads them, is not installed.
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
        with source.stream() as stream, parquet.ParquetFile(stream) as file:
            for batch in file.iter_batches(_AT_A_TIME):
                yield from ({n: _plain(v) for n, v in row.items()} for row in batch.to_pylist())
    except (ArrowException, OSError, ValueError) as error:
        problem = str(error).partition("\n")[0]
        raise ClipError(f"{source.name} cannot be read as Parquet: {problem}") from error


def entries(source: Source) -> Iterator[bytes]:
    """The rows, each as JSON on one line."""
    for row in parquet_rows(source):
        yield json.dumps(row).encode()


def _plain(value: Any) -> Any:
    """A value that JSON has; the bytes of pictures and videos are left out."""
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return None if isinstance(value, bytes) else str(value)
