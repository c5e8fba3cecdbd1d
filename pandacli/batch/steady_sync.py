"""What was written reaches the disk about a second later, however long nothing more is written."""

import os
from threading import Event, Thread

EVERY = 1.0
"""Seconds from a write until it is sent to the disk."""


class SteadySync:
    """Sends a file that grows to its disk from time to time, beside the work.

    Args:
        descriptor: The open file.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._failure: OSError | None = None
        self._written = Event()
        self._stopped = Event()
        self._thread = Thread(target=self._sync_steadily, name="panda-sync", daemon=True)
        self._thread.start()

    def wrote(self) -> None:
        """Something was written.

        Raises:
            OSError: Something written earlier could not be sent to the disk.
        """
        self._written.set()
        if self._failure is not None:
            raise self._failure

    def now(self) -> None:
        """Send all of it to the disk, and wait for it.

        Raises:
            OSError: The disk is full or fails, now or earlier.
        """
        if self._failure is not None:
            raise self._failure
        self._written.clear()
        os.fsync(self._descriptor)

    def stop(self) -> None:
        """No more; the file may be closed."""
        self._stopped.set()
        self._written.set()
        self._thread.join()

    def _sync_steadily(self) -> None:
        while self._failure is None:
            self._written.wait()
            if self._stopped.wait(EVERY):
                return
            self._written.clear()
            try:
                os.fsync(self._descriptor)
            except OSError as error:
                self._failure = error
