"""Handlers with which Ctrl-C, SIGTERM, SIGHUP and SIGQUIT end the program within two seconds.

A signal raises an exception in the main thread. A library that does not return or swallows the
exception, or a `finally` that blocks, would prevent the end, so each signal also wakes a watchdog
thread, which ends the process after a grace period; not on Windows, where no pipe can wake it.
"""

import os
import select
import signal
import sys
from _thread import start_new_thread  # importing threading takes longer than showing the help
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from types import FrameType
from typing import Any, NoReturn

INTERRUPTED = 130
TERMINATED = 143
GRACE = 1.0  # seconds that the main thread has to end the program

_CLEANUP_SECONDS = 0.2
_HANDLED = 0xFF  # not a signal number: a handler has run
_TERMINATING = tuple(getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP", "SIGQUIT"))
_CODES: dict[int, int] = dict.fromkeys(filter(None, _TERMINATING), TERMINATED)
_CODES[signal.SIGINT] = INTERRUPTED
_RESET = b"\x1b[?25h\x1b[?2004l"  # show the cursor, end bracketed paste


class Terminated(SystemExit):
    """Raised by SIGTERM; event loops let a `SystemExit` through."""


class _Watchdog:
    """A thread that ends the process if the main thread does not; does nothing until started."""

    def __init__(self) -> None:
        self.ending: tuple[float, int] | None = None  # deadline and exit code, once decided
        self.wanted: Callable[[], bool] = lambda: False  # see `be_patient`
        self._terminal: list[Any] | None = None  # its settings
        self._read = self._write = -1

    def start(self) -> None:
        with suppress(Exception):  # termios.error is not an OSError
            import termios

            self._terminal = termios.tcgetattr(0)
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        start_new_thread(self._run, ())

    def listen(self) -> None:
        """Wake the thread on signals; again after the event loop of a prompt took them over."""
        with suppress(ValueError):  # not started, or not the main thread
            signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)

    def end(self, code: int) -> None:
        """Start the grace period, after which the program ends with `code`."""
        if self.ending is None and self._write >= 0:
            self.ending = monotonic() + GRACE, code
            self.tell(0)

    def tell(self, number: int) -> None:
        if self._write >= 0:
            with suppress(BlockingIOError):
                os.write(self._write, bytes([number]))

    def _run(self) -> None:
        unhandled: tuple[float, int] | None = None  # deadline and exit code of a signal
        deferred = False
        while True:
            due = [end for end in (self.ending, unhandled) if end is not None]
            timeout = max(0.0, min(due)[0] - monotonic()) if due else None
            if select.select([self._read], [], [], timeout)[0]:
                # the number of a signal is written before its handler writes _HANDLED
                for number in os.read(self._read, 512):
                    if number == _HANDLED:
                        unhandled, deferred = None, False
                    elif number == signal.SIGINT and not deferred and self.wanted():
                        deferred = True  # once: the next Ctrl-C starts the grace period
                    elif number in _CODES and unhandled is None:
                        unhandled = monotonic() + GRACE, _CODES[number]
            for end in (self.ending, unhandled):
                if end is not None and monotonic() >= end[0]:
                    self.exit(end[1])

    def exit(self, code: int) -> NoReturn:
        """End the process after restoring the terminal."""
        import threading

        with suppress(Exception):
            cleanup = threading.Thread(target=unlink_semaphores, daemon=True)
            cleanup.start()
            cleanup.join(_CLEANUP_SECONDS)
            _restore_terminal(self._terminal)
        os._exit(code)


_watchdog = _Watchdog()
listen, end = _watchdog.listen, _watchdog.end


def install() -> None:
    """Install the handlers; signals that the caller ignores, as `nohup` does, stay ignored."""
    if hasattr(signal, "pthread_sigmask"):  # not Windows
        _watchdog.start()
    for number in _CODES:
        if number == signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    listen()


def ending() -> int | None:
    """Return the exit code if a signal is ending the program."""
    return _watchdog.ending[1] if _watchdog.ending else None


def be_patient(wanted: Callable[[], bool]) -> None:
    """While `wanted()` is true, give the handler of the first Ctrl-C unlimited time.

    A prefill can be one call of seconds, and answers in flight must not be lost. A second Ctrl-C
    starts the grace period in any case. `wanted` is called in the watchdog thread.
    """
    _watchdog.wanted = wanted


def survive() -> None:
    """Tell the watchdog that a handler has run and the program continues."""
    _watchdog.tell(_HANDLED)


def interrupt(number: int, frame: FrameType | None) -> None:
    """The handler that ends the program; raises for the first signal only."""
    survive()
    if ending() is None:
        code = _CODES[number]
        end(code)
        _exit_within_import(frame, code)
        # an exception unwinds the spinner, which restores the cursor
        raise KeyboardInterrupt if number == signal.SIGINT else Terminated(code)


@contextmanager
def interrupts_do_not_end() -> Iterator[None]:
    """Raise KeyboardInterrupt in the block on each Ctrl-C; one that leaves it ends the program."""

    def stop(_signal: int, frame: FrameType | None) -> NoReturn:
        survive()
        _exit_within_import(frame, INTERRUPTED)
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, stop)
    try:
        yield
    except KeyboardInterrupt:
        end(INTERRUPTED)
        raise
    finally:
        signal.signal(signal.SIGINT, before)
        listen()


@contextmanager
def left_to_an_event_loop() -> Iterator[None]:
    """Let the handlers that a server installs in the block end it, however long that takes."""
    signal.set_wakeup_fd(-1)
    try:
        yield
    finally:
        listen()


def leave() -> None:
    """Let signals end the process at once from here on, and ignore Ctrl-C."""
    for number in _CODES:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_IGN if number == signal.SIGINT else signal.SIG_DFL)


def unlink_semaphores() -> None:
    """Run the exit handlers of multiprocessing, which `os._exit` skips.

    Its resource tracker would warn about the semaphores of progress bars.
    """
    if (util := sys.modules.get("multiprocessing.util")) is not None:
        with suppress(Exception):
            util._run_finalizers(0)


def _exit_within_import(frame: FrameType | None, code: int) -> None:
    """End the process at once during an import: C++ initialisers abort on an exception."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            _watchdog.exit(code)
        frame = frame.f_back


def _restore_terminal(settings: list[Any] | None) -> None:
    if settings is not None and not _in_background(0):
        import termios

        # a job that has just been moved to the background would be stopped
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
        termios.tcsetattr(0, termios.TCSANOW, settings)
    if os.isatty(2) and not _in_background(2) and select.select([], [2], [], 0)[1]:
        os.write(2, _RESET + b"\n")


def _in_background(descriptor: int) -> bool:
    """Whether the terminal at `descriptor` belongs to another job."""
    try:
        return os.tcgetpgrp(descriptor) != os.getpgrp()
    except (AttributeError, OSError):  # Windows, or not our controlling terminal
        return False
