"""Files that are there once they are whole."""

import os
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write a file of UTF-8 text, or replace one, in a single step that a power cut cannot halve.

    Raises:
        OSError: The file cannot be written.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
