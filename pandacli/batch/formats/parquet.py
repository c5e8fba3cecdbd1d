"""Questions in Parquet, as most data sets of Hugging Face are: its rows, as JSON on one line."""

import json
import math
from collections.abc import Iterator
from typing import Any

from pandacli.batch.formats.source import Source
from pandacli.errors import ClipError, UsageError

MAGIC = b"PAR1"
"""What such a file begins with."""

_AT_A_TIME = 1024  # rows


def rows(source: Source) -> Iterator[dict[str, Any]]:
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
    for row in rows(source):
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
