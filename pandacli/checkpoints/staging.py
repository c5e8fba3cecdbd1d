"""Artifacts that are being made, and what is left of unfinished or damaged ones.

PANDA_HOME/copies/<digest>-<form>.partial/       what is there so far
PANDA_HOME/copies/<digest>-<form>.partial.lock   locked while it is being made; names the model
"""

import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pandacli.checkpoints import artifacts
from pandacli.errors import ModelError
from pandacli.file_io import parse_object, read_bytes

_PARTIAL = ".partial"
_NAME = re.compile(r"[0-9a-f]{16}-(?P<form>\w+)(\.partial)?")
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # as on some network file systems
_NOTE_BYTES = 1 << 16  # longer than any path
_LOCK_SECONDS = 0.5  # to wait for a lock: other processes take it briefly to test it


@dataclass(frozen=True)
class Leftover:
    """The folder of an unfinished or damaged artifact that no process is working on."""

    model: str | None  # the name or folder of the model it was made from, if still known
    form: str
    folder: Path
    bytes: int

    @property
    def quant(self) -> str | None:
        return artifacts.QUANTS.get(self.form)


@contextmanager
def staging_folder(digest: str, form: str, model: str) -> Iterator[Path]:
    """The folder in which an artifact is made, for one process at a time; may raise an OSError.

    After an interruption its content stays, unless another version of panda goes on.
    """
    folder = artifacts.artifact_folder(digest, form)
    staging = folder.with_name(folder.name + _PARTIAL)
    staging.parent.mkdir(parents=True, exist_ok=True)

    def claim(descriptor: int) -> None:
        note = _parse_note(os.read(descriptor, _NOTE_BYTES))
        if note.get("format") != artifacts.FORMAT and staging.exists():
            shutil.rmtree(staging)
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, json.dumps({"format": artifacts.FORMAT, "model": model}).encode())

    with _locked(staging, model, claim):
        staging.mkdir(exist_ok=True)
        try:
            yield staging
        finally:
            with suppress(OSError):
                staging.rmdir()  # empty: nothing was begun
            if not staging.exists():
                _remove_lock(staging)


def leftovers() -> list[Leftover]:
    """Every unfinished or damaged artifact that is not being made right now."""
    found = []
    for folder in sorted(artifacts.artifacts_folder().glob("*-*")):
        name = _NAME.fullmatch(folder.name)
        if not name or folder.is_symlink() or not folder.is_dir():
            continue
        if _is_readable(folder) or _is_locked(folder):
            continue
        note: dict[str, Any] = {}
        with suppress(OSError):
            note = _parse_note(read_bytes(_lock_path(folder), _NOTE_BYTES))
        model = note.get("model") or artifacts.read_manifest(folder).get("model")
        with suppress(OSError):  # just finished or removed by another process
            size = sum(path.lstat().st_size for path in folder.iterdir())
            known = model if isinstance(model, str) else None
            found.append(Leftover(known, name["form"], folder, size))
    return found


def remove_leftover(leftover: Leftover) -> None:
    if leftover.folder.suffix != _PARTIAL:
        artifacts.remove_folder(leftover.folder)
        return
    with _locked(leftover.folder, str(leftover.model)):
        artifacts.remove_folder(leftover.folder)
        _remove_lock(leftover.folder)


def _is_readable(folder: Path) -> bool:
    try:
        return folder.suffix != _PARTIAL and bool(artifacts.read_artifact(folder))
    except ModelError:
        return False


def _is_locked(staging: Path) -> bool:
    try:
        if not _lock_path(staging).is_file():
            return False
        with _locked(staging, timeout=0):
            if not staging.exists():  # finished just now: the lock file may be ours
                _remove_lock(staging)
    except (ModelError, OSError):
        return True
    return False


@contextmanager
def _locked(
    staging: Path,
    model: str = "",
    on_acquired: Callable[[int], None] | None = None,
    timeout: float = _LOCK_SECONDS,
) -> Iterator[None]:
    """Hold the lock of a staging folder; the system releases it if the process dies."""
    from filelock import FileLock, Timeout

    lock = FileLock(
        _lock_path(staging),
        timeout=timeout,
        thread_local=False,
        fallback_to_soft=False,
        preserve_lock_file=True,
        on_acquired=on_acquired,
    )
    try:
        held = lock.acquire()
    except Timeout as error:
        message = f"another panda is quantising {model} right now"
        raise ModelError(message, "wait until it is done") from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        _remove_lock(staging)
        message = f"no file can be locked in {staging.parent}"
        raise ModelError(message, "set PANDA_HOME to a folder on another disk") from error
    with held:
        yield


def _lock_path(staging: Path) -> Path:
    return staging.with_name(staging.name + ".lock")


def _remove_lock(staging: Path) -> None:
    with suppress(PermissionError):  # Windows deletes no open file
        _lock_path(staging).unlink(missing_ok=True)


def _parse_note(content: bytes) -> dict[str, Any]:
    try:
        return parse_object(content)
    except ValueError:
        return {}
