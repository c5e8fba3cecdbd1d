"""Files that are there whole or not at all, whatever ends the program: a kill or a power cut.

A rename may reach the disk before what was written does. So content is sent there first, and then
gets its name.
"""

import os
from pathlib import Path


def settle(written: Path, name: Path) -> None:
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


def write_text(path: Path, text: str) -> None:
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
        settle(partial, path)
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
