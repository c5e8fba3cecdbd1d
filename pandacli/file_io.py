"""Small files from outside, read within bounds: only regular files, only up to a size, strict JSON.

A path may be a link to a device, a FIFO or a file without end. Reading it must neither hang nor
fill the memory, so every JSON file that panda reads goes through here. No heavy imports.

Files that are there whole or not at all, whatever ends the program: a kill or a power cut.

A rename may reach the disk before what was written does. So content is sent there first, and then
gets its name.
"""

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any, NoReturn

MOST = 1 << 26
"""The largest small file, in bytes: the timestamps of a day of video are shorter than that."""


def read_bytes(path: Path, most: int = MOST) -> bytes:
    """The content of a regular file.

    Raises:
        OSError: It cannot be read, is not a regular file, or is longer than `most` bytes.
    """
    # without O_NONBLOCK, opening a FIFO waits for a writer
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            # Python sets aside what it is asked to read; more comes only of a file that grows
            content = file.read(min(status.st_size, most) + 1)
            if status.st_size < len(content) <= most:
                content += file.read(most + 1 - len(content))
    finally:
        os.close(descriptor)
    if len(content) > most or status.st_size > most:
        raise OSError(errno.EFBIG, f"longer than {most} bytes", str(path))
    return content


def read_object(path: Path, most: int = MOST) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        OSError: As `read_bytes`.
        ValueError: The file is not JSON (NaN and Infinity are not), is nested too deeply, or holds
            anything but an object.
    """
    return parse_object(read_bytes(path, most))


def parse_object(content: bytes | str) -> dict[str, Any]:
    """The object in a JSON text.

    Raises:
        ValueError: As `read_object`.
    """
    text = content if isinstance(content, str) else content.decode("utf-8")
    try:
        fields = json.loads(text, parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(fields, dict):
        raise ValueError("not a JSON object")
    return fields


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def replace_durably(written: Path, name: Path) -> None:
    """Give what was written its name, once all of it is on the disk.

    Args:
        written: A finished file, or a folder of finished files.
        name: What it is to be called, in the same folder; a file of that name is replaced.

    Raises:
        OSError: The disk is full or fails, or the file cannot be renamed.
    """
    for path in (*written.iterdir(), written) if written.is_dir() else (written,):
        _sync(path)
    written.replace(name)
    _sync(name.parent)


def atomic_write_text(path: Path, text: str) -> None:
    """Write a small file, or replace it.

    Raises:
        OSError: It cannot be written.
    """
    # by its process: two at once must not write into one file
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    file = partial.open("x", encoding="utf-8")  # never a file that is there
    try:
        with file:
            file.write(text)
        replace_durably(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():  # some file systems have no such thing for folders
            raise
    finally:
        os.close(descriptor)
