"""A Python process that calls functions for this one, and can be killed in the middle of a call.

The pools of the standard library are not used. They keep the writing end of their own pipes open,
so a process killed while it sends is waited for without end; their semaphores are reported as
leaked where a signal ends the program; and they run the main script again in each process.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import TypeVar

_Result = TypeVar("_Result")

_STARTED = "started"
_TO_DIE = 1.0  # seconds; a process in an uninterruptible read of a dead disk outlives SIGKILL


class ProcessDiedError(Exception):
    """The process ended in the middle of a call.

    Attributes:
        code: Its exit code; of a signal, the number of it below zero. None if it cannot be told.
        started: Whether it had come as far as to take calls.
    """

    def __init__(self, code: int | None, *, started: bool = True) -> None:
        super().__init__(f"the process ended with {code}")
        self.code = code
        self.started = started


class WorkerProcess:
    """One process, started at once. It ends with this one, however this one ends.

    Its calls are made by one thread; any thread may kill it.
    """

    def __init__(self) -> None:
        ours, theirs = Pipe()
        self._connection = ours
        self._started = False
        try:
            with theirs:  # closed here: the death of the process is an end of file for us
                self._process = subprocess.Popen(
                    [sys.executable, *_warning_flags(), "-c", _program(theirs.fileno())],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,  # stdout carries answers only
                    pass_fds=[theirs.fileno()],
                    process_group=0,  # what the keyboard sends is for the main process alone
                )
        except BaseException:
            ours.close()
            raise

    def call(self, function: Callable[..., _Result], *arguments: object) -> _Result:
        """Returns what a function of a module returns there.

        Raises:
            ProcessDiedError: It was killed, or the function brought it down.
            Exception: Whatever the function raised.
        """
        try:
            if not self._started:
                self._started = self._connection.recv() == _STARTED
            self._connection.send((function, arguments))
            succeeded, outcome = self._connection.recv()
        except (EOFError, OSError) as error:
            raise ProcessDiedError(self._exit_code(), started=self._started) from error
        if not succeeded:
            raise outcome
        result: _Result = outcome
        return result

    def kill(self) -> None:
        """End it at once, whatever it is doing; a call under way raises ProcessDiedError."""
        self._process.kill()

    def close(self) -> None:
        """Kill it and let go of it; not while a call is under way."""
        self.kill()
        self._exit_code()
        self._connection.close()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _exit_code(self) -> int | None:
        try:
            return self._process.wait(_TO_DIE)
        except subprocess.TimeoutExpired:
            return None


def serve(descriptor: int) -> None:
    """The main function of the process: make the calls that come in, until none come any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with Connection(descriptor) as connection:
        connection.send(_STARTED)
        while True:
            try:
                function, arguments = connection.recv()
            except (EOFError, OSError):
                return
            try:
                outcome = True, function(*arguments)
            except Exception as error:
                outcome = False, error
            connection.send(outcome)


def _end_with_parent() -> None:
    sys.stdin.buffer.read()  # nothing is ever written: the end comes when the parent has ended
    os._exit(1)


def _program(descriptor: int) -> str:
    return (
        f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import serve; serve({descriptor})"
    )


def _warning_flags() -> list[str]:
    options = sys.warnoptions or ["ignore"]
    if any(option.startswith("error") for option in options):
        options = ["default"]  # as in the main process: a library's warning is no error
    return [f"-W{option}" for option in options]
