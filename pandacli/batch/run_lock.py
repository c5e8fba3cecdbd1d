"""One run at a time: the lock beside a file of answers."""

import errno
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from pandacli.errors import UsageError

_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)


class RunLock:
    """The right to write a file, for one process.

    The system takes the lock back when a process ends, however it ends. Where a file system has
    no locks, as some of networks, a file with the number of the process stands for it; one that
    a dead process of this machine has left is no obstacle, one of another machine is.

    Args:
        path: The file to be written, without symbolic links.
        shown: The file as it was asked for, for messages.
    """

    def __init__(self, path: Path, shown: Path) -> None:
        self._shown = shown
        self._file = path.with_name(f"{path.name}.lock")
        self._stand_in = path.with_name(f"{path.name}.running")
        self._lock: BaseFileLock | None = None

    def acquire(self) -> None:
        """Take the lock, without waiting.

        Raises:
            UsageError: Another run has it.
            OSError: The folder cannot be written.
        """
        lock: BaseFileLock = FileLock(
            self._file, timeout=0, thread_local=False, fallback_to_soft=False
        )
        try:
            self._take(lock, "wait until it has ended, or name another file with -o")
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            self._file.unlink(missing_ok=True)  # it is of no use to anybody here
            lock = SoftFileLock(self._stand_in, timeout=0, thread_local=False)
            self._take(lock, f"if none is running on any machine, delete {self._stand_in}")
        self._lock = lock

    def release(self) -> None:
        """Let the next run have it, and leave nothing behind."""
        if self._lock is None:
            return
        # While it is still ours: whoever has opened it already finds it without a name once the
        # lock is free, and does not take it.
        self._file.unlink(missing_ok=True)
        self._lock.release()
        self._lock = None

    def _take(self, lock: BaseFileLock, hint: str) -> None:
        try:
            lock.acquire()
        except Timeout as error:
            message = f"{self._shown} is being written by another run of panda"
            raise UsageError(message, hint) from error
