"""Where answers can be written, and why they cannot."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from pandacli.errors import ClipError, UsageError


def refuse_same(path: Path, other: Path, what: str) -> None:
    """Keep the answers from being written into another file of the run.

    Args:
        path: Where answers are to go.
        other: The other file.
        what: What that holds, in the plural.

    Raises:
        UsageError: Both are one file, by whatever names.
    """
    try:
        same = path.samefile(other)
    except OSError:  # one of them is not there
        same = os.path.realpath(path) == os.path.realpath(other)
    if same:
        raise UsageError(f"{path} is the file of the {what}", "name another file with -o")


def refuse_foreign(
    path: Path, journal: Path, what: str, is_ours: Callable[[BinaryIO], bool]
) -> None:
    """Keep a file that is not an earlier output from being replaced: a clip, say.

    Args:
        path: Where the output is to go.
        journal: The file that answers are written to one by one; without it there was no run.
        what: What is written, such as "csv".
        is_ours: Whether a file begins as that does.

    Raises:
        UsageError: It is there, and neither empty nor an earlier output.
        ClipError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            if not os.fstat(file.fileno()).st_size or (journal.exists() and is_ours(file)):
                return
    except FileNotFoundError:
        return
    except OSError as error:
        raise ClipError(f"cannot read {path}: {error.strerror}") from error
    raise UsageError(
        f"{path} already exists and is not an earlier output in the format {what}",
        "name another file with -o",
    )


def writable_file(path: Path) -> Path:
    """The file that a path means, behind symbolic links; it need not be there yet.

    Raises:
        UsageError: It is no file, or its folder is not there.
        ClipError: It cannot be looked at.
    """
    file = Path(os.path.realpath(path))
    try:
        mode = file.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        if file.parent.is_dir():
            return file
        raise UsageError(f"there is no folder {path.parent}", "make it first") from None
    except OSError as error:
        raise unusable(path, error) from error
    if stat.S_ISDIR(mode):
        raise UsageError(f"{path} is a folder", "name a file with -o")
    if not stat.S_ISREG(mode):
        raise UsageError(f"{path} is no file on a disk", "-o - writes to stdout")
    return file


def unusable(path: Path | str, error: OSError) -> ClipError:
    """What a failure of the disk, or of the system, means to the user.

    Args:
        path: What could not be written.
        error: Why.
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "make room and run the same command again; it goes on from what is there"
        return ClipError(f"the disk of {path} is full", hint)
    return ClipError(f"cannot write {path}: {error.strerror}")
