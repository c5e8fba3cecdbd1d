"""Copies that are being made, and what is left of those that were not finished or are damaged.

    PANDA_HOME/copies/<start of the digest>-<form>.partial/       what there is of it so far
    PANDA_HOME/copies/<start of the digest>-<form>.partial.lock   locked while it is being made;
                                                                  says of which model

Nothing here imports torch.
"""

import errno
import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from pandacli.checkpoints.artifacts import (
    FORMAT,
    QUANTS,
    artifact_folder,
    artifacts_folder,
    read_artifact,
    read_manifest,
    remove_folder,
)
from pandacli.errors import ModelError
from pandacli.file_io import parse_object, read_object

_SUFFIX = ".partial"
_NAME = re.compile(r"[0-9a-f]{16}-(?P<form>\w+)(\.partial)?")
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # as on some file systems of networks
_NOTE_LENGTH = 1 << 16  # characters; a path has at most 4096
_PATIENCE = 0.5  # seconds to wait for a lock, which others may hold for a look at it


@dataclass(frozen=True)
class Leftover:
    """A folder of a copy that cannot be used, and that nobody is working on.

    Args:
        model: The name or folder it was made from; None where nothing says that any more.
        form: As of `Copy`.
        folder: Where it lies.
        bytes: What its files take on the disk.
    """

    model: str | None
    form: str
    folder: Path
    bytes: int

    @property
    def quant(self) -> str | None:
        """What `--quant` calls its form; None for a form that this panda does not know."""
        return QUANTS.get(self.form)


@contextmanager
def staging_folder(digest: str, form: str, model: str) -> Iterator[Path]:
    """The folder in which the copy in a form of a checkpoint is made, for one process at a time.

    Whatever ends the work, what is in it stays, for the next to go on with; but not what another
    version of panda has begun.

    Raises:
        ModelError: Another process is making the same copy.
        OSError: The folder cannot be made.
    """
    final = artifact_folder(digest, form)
    work = final.with_name(final.name + _SUFFIX)
    work.parent.mkdir(parents=True, exist_ok=True)
    with _locked(work, model) as lock:
        lock.seek(0)
        if _note(lock.read(_NOTE_LENGTH)).get("format") != FORMAT and work.exists():
            shutil.rmtree(work)
        lock.truncate(0)
        lock.write(json.dumps({"format": FORMAT, "model": model}))
        lock.flush()
        work.mkdir(exist_ok=True)
        try:
            yield work
        finally:
            with suppress(OSError):
                work.rmdir()  # where nothing was begun, or all of it is finished elsewhere
            if not work.exists():
                _lock_path(work).unlink(missing_ok=True)


def leftovers() -> list[Leftover]:
    """What is left of copies that are not whole; those being made right now are left out."""
    found = []
    for folder in sorted(artifacts_folder().glob("*-*")):
        name = _NAME.fullmatch(folder.name)
        if not name or folder.is_symlink() or not folder.is_dir():
            continue  # nothing of panda's
        if not (_is_whole(folder) or _is_worked_on(folder)):
            model = _note_beside(folder).get("model") or read_manifest(folder).get("model")
            known = model if isinstance(model, str) else None
            with suppress(OSError):  # just now someone has finished it, or removed it
                size = sum(path.lstat().st_size for path in folder.iterdir())
                found.append(Leftover(known, name["form"], folder, size))
    return found


def remove_leftover(left: Leftover) -> None:
    """Delete what is left of a copy.

    Raises:
        ModelError: It may not be deleted, or someone has begun to work on it.
    """
    if left.folder.suffix != _SUFFIX:
        remove_folder(left.folder)
        return
    with _locked(left.folder, str(left.model)):
        remove_folder(left.folder)
        _lock_path(left.folder).unlink(missing_ok=True)


def _is_whole(folder: Path) -> bool:
    if folder.suffix == _SUFFIX:
        return False
    try:
        read_artifact(folder)
    except ModelError:
        return False
    return True


def _lock_path(work: Path) -> Path:
    return work.with_name(work.name + ".lock")


@contextmanager
def _locked(work: Path, model: str) -> Iterator[TextIO]:
    """Hold the lock of a folder, which ends with the process however it ends."""
    path = _lock_path(work)
    deadline = time.monotonic() + _PATIENCE
    while True:
        with path.open("a+", encoding="utf-8", errors="replace") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise ModelError(
                        f"another panda is quantising {model} right now", "wait until it is done"
                    ) from error
                time.sleep(0.05)
                continue
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                path.unlink(missing_ok=True)  # it is of no use to anybody here
                raise ModelError(
                    f"no file can be locked in {work.parent}",
                    "set PANDA_HOME to a folder on another disk",
                ) from error
            if _is_at(path, lock):  # who held it before may have deleted it
                yield lock
                return


def _is_at(path: Path, file: TextIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _is_worked_on(work: Path) -> bool:
    try:
        if not _lock_path(work).is_file():  # opening a FIFO would wait
            return False
        with _lock_path(work).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _note_beside(work: Path) -> dict[str, Any]:
    try:
        return read_object(_lock_path(work), _NOTE_LENGTH)
    except (OSError, ValueError):
        return {}


def _note(text: str) -> dict[str, Any]:
    try:
        return parse_object(text)
    except ValueError:
        return {}
