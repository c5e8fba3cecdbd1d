"""Where results are appended: a file that a later run resumes from, or a stream."""

import errno
import json
import os
import stat
from array import array
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from io import FileIO
from itertools import accumulate
from pathlib import Path
from time import monotonic
from typing import Any, BinaryIO, Self

import numpy as np
from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout
from numpy.typing import NDArray

from pandacli.batch.log import BackgroundSync, LineIndex, encode_line, index_lines
from pandacli.errors import ClipError, UsageError
from pandacli.file_io import replace_durably, sync

CHECK_INTERVAL = 1.0  # seconds between checks that the file is still in its place

_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)


class ResultsFile:
    """The results of this run and of earlier ones, for one process at a time.

    A context manager: entering takes the lock, creates or indexes the file, truncates a torn last
    line and removes failed records, which are retried. A SIGKILL loses no line after `write` has
    returned; a power cut loses about a second of them.

    Entering raises UsageError if the path cannot be used, another run holds the lock, or the file
    is not a results file (`may_drop` is as of `index_lines`). All methods raise ClipError if the
    file cannot be read or written, or was moved or changed.
    """

    done: NDArray[np.uint64]  # (n,) answered by earlier runs: digests, sorted, with repetitions
    _file: FileIO
    _sync: BackgroundSync

    def __init__(self, path: Path, may_drop: Callable[[int], bool] = lambda _: False) -> None:
        self.path, self._may_drop = path, may_drop
        self._lines = LineIndex()
        self._unused = False
        self._checked = 0.0
        self._sorted: tuple[NDArray[np.uint64], NDArray[np.int64]] | None = None
        self._next_match: dict[int, int] = {}

    def __enter__(self) -> Self:
        self._target = writable_file(self.path)
        with ExitStack() as closing:
            with _os_errors(f"{self.path.parent}{os.sep}"):
                closing.enter_context(_locked(self._target, self.path))
            with _os_errors(self.path):
                self._open(closing)
            self._closing = closing.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._unused = kind is not None and self._created and self._lines.end == 0
        with self._closing:
            try:
                self.sync()
            except ClipError:
                if kind is None:
                    raise

    def write(self, line: dict[str, Any]) -> None:
        """Append one line, with its `digest`; after an error, the lines before are whole."""
        count, start, data = len(self._lines), self._lines.end, encode_line(line)
        if monotonic() - self._checked >= CHECK_INTERVAL:
            self._check_in_place()
        with _os_errors(self.path):
            try:
                _append(self._file, data)
                self._lines.add(int(line["digest"], 16), start, len(data))
            except BaseException:
                self._lines.truncate(count)
                with suppress(OSError):
                    self._file.truncate(start)
                raise
            self._sync.notify()

    def sync(self) -> None:
        """Wait until all lines are on the disk."""
        self._check_in_place()
        with _os_errors(self.path):
            self._sync.flush()

    def find(self, digest: int) -> dict[str, Any] | None:
        """Read a line back, once all are written; each further call, the next with its digest."""
        if self._sorted is None or len(self._sorted[0]) != len(self._lines):
            digests = np.array(self._lines.digest, np.uint64)
            order = np.argsort(digests, kind="stable")
            self._sorted = digests[order], order
        digests, order = self._sorted
        wanted = np.uint64(digest)
        first = int(np.searchsorted(digests, wanted))
        end = int(np.searchsorted(digests, wanted, "right"))
        if first == end:
            return None
        number = self._next_match.get(digest, first)
        if end - first > 1:
            self._next_match[digest] = min(number + 1, end - 1)
        at = int(order[number])
        try:
            raw = self._read_at(self._lines.start[at], self._lines.length[at])
            line: dict[str, Any] = json.loads(raw)
        except OSError as error:
            raise ClipError(f"cannot read {self.path}: {error.strerror}") from error
        except ValueError as error:
            raise ClipError(f"{self.path} was changed while panda was writing it") from error
        return line

    def _open(self, closing: ExitStack) -> None:
        self._created = not self._target.exists()
        closing.callback(self._delete_if_unused)
        self._file = closing.enter_context(FileIO(self._target, "a+"))
        with self._target.open("rb") as file:
            self._lines = lines = index_lines(file, self.path, self._may_drop)
        if lines.end != sum(lines.length):  # there are other bytes between them
            _rewrite(self._target, self._file, lines)
            lines.start = array("Q", accumulate(lines.length[:-1], initial=0))
            self._file = closing.enter_context(FileIO(self._target, "a+"))
        self._file.truncate(lines.end)
        if lines.end and self._read_at(lines.end - 1, 1) != b"\n":
            _append(self._file, b"\n")  # the last line lacks only its line break
            lines.length[-1] += 1
        with suppress(OSError):  # a folder that cannot be opened
            sync(self._target.parent)
        self.done = np.sort(np.array(lines.digest, np.uint64))
        self._sync = BackgroundSync(self._file.fileno())
        closing.callback(self._sync.stop)

    def _delete_if_unused(self) -> None:
        if self._unused:
            self._target.unlink(missing_ok=True)

    def _check_in_place(self) -> None:
        """Detect a deleted or changed file before hours of work go into it."""
        ours = os.fstat(self._file.fileno())
        try:
            in_place, cause = os.path.samestat(ours, self._target.stat()), None
        except OSError as error:
            in_place, cause = False, error
        if not in_place:
            message = f"{self.path} was deleted or replaced while panda was writing it"
            hint = "run the same command again, and leave the file in its place"
            raise ClipError(message, hint) from cause
        if ours.st_size != self._lines.end:
            message = f"{self.path} was changed by another program while panda was writing it"
            raise ClipError(message, "run the same command again to resume")
        self._checked = monotonic()

    def _read_at(self, start: int, length: int) -> bytes:
        self._file.seek(start)  # appends go to the end whatever the position
        return self._file.read(length)


class ResultsStream:
    """Results as JSON lines to a pipe or terminal; there is nothing to resume from."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.done: NDArray[np.uint64] = np.zeros(0, np.uint64)

    def write(self, line: dict[str, Any]) -> None:
        """Send one line; raises BrokenPipeError if the reader has closed the pipe."""
        try:
            self._stream.write(encode_line(line))
            self._stream.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise ClipError(f"cannot write the answers: {error.strerror}") from error

    def sync(self) -> None:
        """Every write is flushed already."""


@contextmanager
def _os_errors(path: Path | str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = "free some space and run the same command again to resume"
            raise ClipError(f"the disk of {path} is full", hint) from error
        raise ClipError(f"cannot write {path}: {error.strerror}") from error


@contextmanager
def _locked(file: Path, shown: Path) -> Iterator[None]:
    """Lock a file for this process, or raise UsageError; the lock ends with the process.

    Some network file systems have no locks. There a file with the process id is used: a stale one
    of this machine is ignored, one of another machine is not.
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
            soft = file.with_name(f"{file.name}.running")
            hint = f"if none is running on any machine, delete {soft}"
            lock = SoftFileLock(soft, timeout=0, thread_local=False)
            lock.acquire()
    except Timeout as error:
        raise UsageError(f"{shown} is being written by another run of panda", hint) from error
    try:
        yield
    finally:
        # unlinked while held: a process that has opened it must not get a lock without a name
        with suppress(PermissionError):  # on Windows, where filelock unlinks it on release
            path.unlink(missing_ok=True)
        lock.release()


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


def writable_file(path: Path) -> Path:
    """Resolve symbolic links to a regular file, which need not exist yet; or raise."""
    file = Path(os.path.realpath(path))
    try:
        mode = file.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        if file.parent.is_dir():
            return file
        raise UsageError(f"there is no folder {path.parent}", "create it first") from None
    except OSError as error:
        raise ClipError(f"cannot write {path}: {error.strerror}") from error
    if stat.S_ISDIR(mode):
        raise UsageError(f"{path} is a folder", "name a file with -o")
    if not stat.S_ISREG(mode):
        raise UsageError(f"{path} is no file on a disk", "-o - writes to stdout")
    return file
