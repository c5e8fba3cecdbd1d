"""Bounded reads of small files, and atomic writes; a function that writes may raise an OSError.

Reading a device, a FIFO or an endless file must neither hang nor fill the memory. Content is synced
before a rename, which may reach the disk first: a file is whole or absent, even after a crash.
"""

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any, NoReturn

MAX_BYTES = 1 << 26  # the timestamps of a day of video are shorter than that
_ON_WINDOWS = os.name == "nt"


def read_bytes(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """The content of a regular file; an OSError if it is not one, or longer than `max_bytes`."""

    def open_without_waiting(path: str, flags: int) -> int:  # for the writer of a FIFO
        return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))

    with open(path, "rb", opener=open_without_waiting) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        # Python allocates what it is asked to read; only a growing file has more
        content = file.read(min(status.st_size, max_bytes) + 1)
        if status.st_size < len(content) <= max_bytes:
            content += file.read(max_bytes + 1 - len(content))
    if len(content) > max_bytes or status.st_size > max_bytes:
        raise OSError(errno.EFBIG, f"longer than {max_bytes} bytes", str(path))
    return content


def read_object(path: Path, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    return parse_object(read_bytes(path, max_bytes))


def parse_object(content: bytes | str) -> dict[str, Any]:
    """The object in a JSON text; a ValueError if it is not one (NaN and Infinity are not JSON)."""
    text = content if isinstance(content, str) else content.decode("utf-8")
    try:
        fields = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(fields, dict):
        raise ValueError("not a JSON object")
    return fields


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def replace_durably(written: Path, name: Path) -> None:
    """Sync a finished file, or a folder of finished files, and rename it within its folder."""
    for path in (*written.iterdir(), written) if written.is_dir() else (written,):
        sync(path)
    written.replace(name)
    sync(name.parent)


def atomic_write_text(path: Path, text: str) -> None:
    """Write or replace a small file."""
    # one name for each process: two must not write into the same file
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    file = partial.open("x", encoding="utf-8")
    try:
        with file:
            file.write(text)
        replace_durably(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, survive a power cut."""
    is_folder = path.is_dir()
    if is_folder and _ON_WINDOWS:  # where folders cannot be opened
        return
    descriptor = os.open(path, os.O_RDWR if _ON_WINDOWS else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        if not is_folder:  # some file systems cannot sync folders
            raise
    finally:
        os.close(descriptor)
