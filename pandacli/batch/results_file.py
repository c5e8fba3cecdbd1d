"""Where results are appended: a file that a later run resumes from, or a stream."""

import errno
import json
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from io import FileIO
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout
from numpy.typing import NDArray

from pandacli.batch.log import BackgroundSync, LineIndex, encode_line, index_lines
from pandacli.batch.output import unusable, writable_file
from pandacli.errors import ClipError, UsageError
from pandacli.file_io import replace_durably

CHECK_INTERVAL = 1.0
"""Seconds between checks that the file is still in its place."""

_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)


class ResultsFile:
    """The results of this run and of earlier ones, for one process at a time.

    A context manager: entering takes the lock, indexes the file, truncates a torn last line and
    removes failed records, which are retried. A SIGKILL loses nothing that `write` has returned
    from; a power cut loses about a second of it.

    Args:
        path: The file; created if it is missing.
        may_drop: As of `index_lines`.

    Attributes:
        done: (n,) the digests that earlier runs have answered, sorted, with repetitions.

    Raises:
        UsageError: On entering: the folder does not exist, the path is a folder or a device, the
            file is not a results file, or another run holds the lock.
        ClipError: On entering and leaving: the file cannot be read or written.
    """

    done: NDArray[np.uint64]

    def __init__(self, path: Path, may_drop: Callable[[int], bool] = lambda _: False) -> None:
        self.path = path
        self._may_drop = may_drop
        self._lines = LineIndex()
        self._file: FileIO | None = None
        self._created = False
        self._sync: BackgroundSync | None = None
        self._checked = 0.0
        self._sorted: tuple[NDArray[np.uint64], NDArray[np.int64]] | None = None
        self._next_match: dict[int, int] = {}

    def __enter__(self) -> Self:
        self._target = writable_file(self.path)
        try:
            self._lock = _acquire_lock(self._target, self.path)
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
            failed_empty = kind is not None and self._created and self._lines.end == 0
            self._close(delete=failed_empty)

    def write(self, line: dict[str, Any]) -> None:
        """Append one line; it survives the end of the process, however that ends.

        Args:
            line: The answer or the error, with the `digest` of its record in 16 hex digits.

        Raises:
            ClipError: The disk is full or fails, or the file was moved or changed; the lines
                written before are whole.
        """
        count, start, data = len(self._lines), self._lines.end, encode_line(line)
        if monotonic() - self._checked >= CHECK_INTERVAL:
            self._check_in_place()
        file, sync = self._opened
        try:
            _append(file, data)
            self._lines.add(int(line["digest"], 16), start, len(data))
        except BaseException as error:
            self._lines.truncate(count)
            with suppress(OSError):
                file.truncate(start)
            if isinstance(error, OSError):
                raise unusable(self.path, error) from error
            raise
        try:
            sync.notify()
        except OSError as error:
            raise unusable(self.path, error) from error

    def sync(self) -> None:
        """Wait until all lines are on the disk.

        Raises:
            ClipError: The disk is full or fails, or the file was moved or changed.
        """
        self._check_in_place()
        try:
            self._opened[1].flush()
        except OSError as error:
            raise unusable(self.path, error) from error

    def find(self, digest: int) -> dict[str, Any] | None:
        """Read the line of a record back, of this run or of an earlier one.

        For use once all lines are written. Called again with the same digest, it returns the next
        line with it, and the last one from then on.

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
            nth = min(self._next_match.get(digest, 0), count - 1)
            self._next_match[digest] = nth + 1
        return self._read(int(order[first + nth]))

    @property
    def _opened(self) -> tuple[FileIO, BackgroundSync]:
        if self._file is None or self._sync is None:
            raise ValueError("the results file is not open")
        return self._file, self._sync

    def _open(self) -> None:
        self._created = not self._target.exists()
        self._file = _open_append(self._target)
        with self._target.open("rb") as file:
            self._lines = index_lines(file, self.path, self._may_drop)
        if self._lines.has_gaps:
            _rewrite(self._target, self._file, self._lines)
            self._lines.compact()
            self._file = _open_append(self._target)
        end = self._lines.end
        self._file.truncate(end)
        if end and self._read_at(end - 1, 1) != b"\n":
            _append(self._file, b"\n")  # the last line lacks only its line break
            self._lines.length[-1] += 1
        _sync_folder(self._target.parent)
        self.done = np.sort(np.array(self._lines.digest, np.uint64))
        self._sync = BackgroundSync(self._file.fileno())

    def _close(self, delete: bool = False) -> None:
        try:
            if self._sync is not None:
                self._sync.stop()
                self._sync = None
            if self._file is not None:
                self._file.close()
            if delete:
                self._target.unlink(missing_ok=True)
        finally:
            _release_lock(self._lock, self._target)

    def _check_in_place(self) -> None:
        """Detect a deleted or changed file before hours of work go into it."""
        file, _ = self._opened
        ours = os.fstat(file.fileno())
        try:
            named = self._target.stat()
        except OSError as error:
            raise _moved(self.path) from error
        if not os.path.samestat(ours, named):
            raise _moved(self.path)
        if ours.st_size != self._lines.end:
            message = f"{self.path} was changed by another program while panda was writing it"
            raise ClipError(message, "run the same command again to resume")
        self._checked = monotonic()

    def _read(self, number: int) -> dict[str, Any]:
        try:
            raw = self._read_at(self._lines.start[number], self._lines.length[number])
            line: dict[str, Any] = json.loads(raw)
        except OSError as error:
            raise ClipError(f"cannot read {self.path}: {error.strerror}") from error
        except ValueError as error:
            raise ClipError(f"{self.path} was changed while panda was writing it") from error
        return line

    def _read_at(self, start: int, length: int) -> bytes:
        assert self._file is not None
        self._file.seek(start)  # appends go to the end whatever the position
        return self._file.read(length)


class ResultsStream:
    """Results as JSON lines to a pipe or terminal; there is nothing to resume from.

    Attributes:
        done: (0,) no earlier answers.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.done: NDArray[np.uint64] = np.zeros(0, np.uint64)

    def write(self, line: dict[str, Any]) -> None:
        """Send one line.

        Raises:
            BrokenPipeError: The reader has closed the pipe.
            ClipError: It cannot be written.
        """
        try:
            self._stream.write(encode_line(line))
            self._stream.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise ClipError(f"cannot write the answers: {error.strerror}") from error

    def sync(self) -> None:
        """Do nothing: every write is flushed."""


def _acquire_lock(file: Path, shown: Path) -> BaseFileLock:
    """Lock a file for this process; the system releases the lock when the process ends.

    Some network file systems have no locks. There a file with the process id is used: a stale one
    of this machine is ignored, one of another machine is not.

    Raises:
        UsageError: Another run holds the lock.
        OSError: The folder cannot be written.
    """
    path = file.with_name(f"{file.name}.lock")
    lock: BaseFileLock = FileLock(path, timeout=0, thread_local=False, fallback_to_soft=False)
    hint = "wait until it has ended, or name another file with -o"
    try:
        try:
            lock.acquire()
        except OSError as error:
            if isinstance(error, Timeout) or error.errno not in _NO_LOCKS:
                raise
            path.unlink(missing_ok=True)
            path = file.with_name(f"{file.name}.running")
            hint = f"if none is running on any machine, delete {path}"
            lock = SoftFileLock(path, timeout=0, thread_local=False)
            lock.acquire()
    except Timeout as error:
        message = f"{shown} is being written by another run of panda"
        raise UsageError(message, hint) from error
    return lock


def _release_lock(lock: BaseFileLock, file: Path) -> None:
    # unlinked while held: a process that has opened it already must not get a lock without a name
    with suppress(PermissionError):  # on Windows, where filelock unlinks it on release
        file.with_name(f"{file.name}.lock").unlink(missing_ok=True)
    lock.release()


def _open_append(file: Path) -> FileIO:
    return FileIO(file, "a+")


def _append(file: FileIO, data: bytes) -> None:
    """Write all of it; after a partial write, the next one raises the reason."""
    left = memoryview(data)
    while left:
        left = left[os.write(file.fileno(), left) :]


def _rewrite(target: Path, file: FileIO, lines: LineIndex) -> None:
    """Replace a file by one with these lines only, and close it; on failure it stays as it is."""
    partial = target.with_name(f"{target.name}.rewritten")
    try:
        with file, partial.open("wb") as new:
            with suppress(OSError):
                partial.chmod(stat.S_IMODE(os.fstat(file.fileno()).st_mode))
            for start, length in zip(lines.start, lines.length, strict=True):
                file.seek(start)
                new.write(file.read(length))
        replace_durably(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make the name of a new file survive a power cut."""
    with suppress(OSError):  # some file systems, and Windows, cannot sync a folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _moved(path: Path) -> ClipError:
    hint = "run the same command again, and leave the file in its place"
    return ClipError(f"{path} was deleted or replaced while panda was writing it", hint)
