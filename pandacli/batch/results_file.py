"""The file of answers: each line is on the disk whole or not at all, and a run goes on from it."""

import json
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pandacli.batch.log import BackgroundSync, Lines, encoded, read_lines
from pandacli.batch.output import unusable, writable_file
from pandacli.batch.run_lock import RunLock
from pandacli.errors import ClipError
from pandacli.file_io import replace_durably

LOOK_EVERY = 1.0
"""Seconds after which it is looked again whether the file is still where it was."""


class ResultsFile:
    """The answers of this run and of those before it, for one process at a time.

    Used as a context manager: it takes the lock, reads what is there, cuts off a torn line and
    takes out the records that failed, as they are tried again. A kill loses nothing that `write`
    has returned from; a power cut at most about a second of it.

    Args:
        path: The file; it is made if it is missing.
        may_drop: As of `read_lines`.

    Attributes:
        done: The digests that earlier runs have answered, sorted; as often as they have.

    Raises:
        UsageError: On entering: there is no such folder, it is a folder or a device, it is no
            file of answers, or another run has it.
        ClipError: On entering and leaving: it cannot be read or written.
    """

    done: NDArray[np.uint64]

    def __init__(self, path: Path, may_drop: Callable[[int], bool] = lambda _: False) -> None:
        self.path = path
        self._may_drop = may_drop
        self._lines = Lines()
        self._descriptor = -1
        self._made = False
        self._sync: BackgroundSync | None = None
        self._looked = 0.0
        self._sorted: tuple[NDArray[np.uint64], NDArray[np.int64]] | None = None
        self._found: dict[int, int] = {}

    def __enter__(self) -> Self:
        self._file = writable_file(self.path)
        self._lock = RunLock(self._file, self.path)
        try:
            self._lock.acquire()
        except OSError as error:
            raise unusable(f"{self.path.parent}{os.sep}", error) from error
        try:
            self._open()
        except BaseException as error:
            self._close()
            if isinstance(error, OSError):
                raise unusable(self.path, error) from error
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.sync()
        except ClipError:
            if kind is None:
                raise
        finally:
            if kind is not None and self._made and self._lines.end == 0:
                self._file.unlink(missing_ok=True)  # nothing came of it
            self._close()

    def write(self, line: dict[str, Any]) -> None:
        """Add one line; it survives the end of the process, however it ends.

        Args:
            line: The answer, or the error, with the `digest` of its record in 16 digits.

        Raises:
            ClipError: The disk is full or fails, or the file is not where it was; what has been
                written before is whole.
        """
        count, start, data = len(self._lines), self._lines.end, encoded(line)
        if monotonic() - self._looked >= LOOK_EVERY:
            self._look()
        try:
            _append(self._descriptor, data)
            self._lines.add(int(line["digest"], 16), start, len(data))
        except BaseException as error:
            self._lines.cut(count)
            with suppress(OSError):
                os.ftruncate(self._descriptor, start)
            if isinstance(error, OSError):
                raise unusable(self.path, error) from error
            raise
        try:
            self._syncing.wrote()
        except OSError as error:
            raise unusable(self.path, error) from error

    def sync(self) -> None:
        """Wait until all lines are on the disk.

        Raises:
            ClipError: The disk is full or fails, or the file is not where it was.
        """
        self._look()
        try:
            self._syncing.now()
        except OSError as error:
            raise unusable(self.path, error) from error

    def find(self, digest: int) -> dict[str, Any] | None:
        """Read a line again, of this run or of an earlier one; for when all are written.

        Args:
            digest: That of its record. Asked for again, it gives the next line with it, and the
                last one from then on.

        Raises:
            ClipError: The file cannot be read.
        """
        if self._sorted is None or len(self._sorted[0]) != len(self._lines):
            digests = np.array(self._lines.digest, np.uint64)
            order = np.argsort(digests, kind="stable")
            self._sorted = digests[order], order
        digests, order = self._sorted
        wanted = np.uint64(digest)
        first = int(np.searchsorted(digests, wanted))
        count = int(np.searchsorted(digests, wanted, "right")) - first
        if count == 0:
            return None
        nth = 0
        if count > 1:
            nth = min(self._found.get(digest, 0), count - 1)
            self._found[digest] = nth + 1
        return self._read(int(order[first + nth]))

    @property
    def _syncing(self) -> BackgroundSync:
        if self._sync is None:
            raise ValueError("the file of answers is not open")
        return self._sync

    def _open(self) -> None:
        self._made = not self._file.exists()
        self._descriptor = _opened(self._file)
        with os.fdopen(self._descriptor, "rb", closefd=False) as file:
            self._lines = read_lines(file, self.path, self._may_drop)
        if self._lines.gaps:
            _rewrite(self._file, self._descriptor, self._lines)
            self._lines.close_up()
            reopened = _opened(self._file)
            self._let_go()
            self._descriptor = reopened
        end = self._lines.end
        os.ftruncate(self._descriptor, end)
        if end and os.pread(self._descriptor, 1, end - 1) != b"\n":
            _append(self._descriptor, b"\n")  # all of the last line is there but its end
            self._lines.length[-1] += 1
        _sync_name(self._file)
        self.done = np.sort(np.array(self._lines.digest, np.uint64))
        self._sync = BackgroundSync(self._descriptor)

    def _close(self) -> None:
        try:
            if self._sync is not None:
                self._sync.stop()
                self._sync = None
            self._let_go()
        finally:
            self._lock.release()

    def _let_go(self) -> None:
        """Close the file, once: its number may soon be that of another file."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _look(self) -> None:
        """Finds out before hours of work go into a file that nobody can open any more."""
        ours = os.fstat(self._descriptor)
        try:
            named = self._file.stat()
        except OSError as error:
            raise _gone(self.path) from error
        if not os.path.samestat(ours, named):
            raise _gone(self.path)
        if ours.st_size != self._lines.end:
            message = f"{self.path} was changed by another program while panda was writing it"
            raise ClipError(message, "run the same command again; it goes on from what is there")
        self._looked = monotonic()

    def _read(self, number: int) -> dict[str, Any]:
        start, length = self._lines.start[number], self._lines.length[number]
        try:
            line: dict[str, Any] = json.loads(os.pread(self._descriptor, length, start))
        except OSError as error:
            raise ClipError(f"cannot read {self.path}: {error.strerror}") from error
        except ValueError as error:
            raise ClipError(f"{self.path} was changed while panda was writing it") from error
        return line


def _opened(file: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    return os.open(file, flags, 0o666)


def _sync_name(file: Path) -> None:
    """Keeps a power cut from taking the whole of a new file."""
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        with suppress(OSError):  # some file systems have no such thing for folders
            os.fsync(folder)
    finally:
        os.close(folder)


def _rewrite(file: Path, descriptor: int, lines: Lines) -> None:
    """Replaces a file by one of these lines alone; it stays as it is if that fails."""
    partial = file.with_name(f"{file.name}.rewritten")
    try:
        with partial.open("wb") as new:
            with suppress(OSError):
                os.fchmod(new.fileno(), stat.S_IMODE(os.fstat(descriptor).st_mode))
            for start, length in zip(lines.start, lines.length, strict=True):
                new.write(os.pread(descriptor, length, start))
        replace_durably(partial, file)
    finally:
        partial.unlink(missing_ok=True)


def _append(descriptor: int, data: bytes) -> None:
    """Writes all of it; the second part of a write in two says why it was no whole one."""
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def _gone(path: Path) -> ClipError:
    hint = "run the same command again, and leave the file in its place"
    return ClipError(f"{path} was deleted or replaced while panda was writing it", hint)
