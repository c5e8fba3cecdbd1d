"""Ctrl-C, SIGTERM, SIGHUP and SIGQUIT end the program in less than two seconds.

A signal raises an exception in the main thread, which unwinds what is open. That is not enough
where the main thread is in a decoder or a library that does not return, where a library swallows
the exception, or where something that is unwound waits. So each signal also wakes a thread, which
ends the process once the main thread has had its time.
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
GRACE = 1.0
"""Seconds that the main thread has to end the program."""

_TO_TIDY = 0.2  # seconds
_HANDLED = 0xFF  # no signal has this number
_TERMINATING = tuple(getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP", "SIGQUIT"))
_CODES = {number: TERMINATED for number in _TERMINATING if number} | {signal.SIGINT: INTERRUPTED}
_VISIBLE = b"\x1b[?25h\x1b[?2004l"  # the cursor; and pasted text is not marked any more


class Terminated(SystemExit):
    """What SIGTERM raises; of the kind that event loops let through."""


class _Watch:
    """The thread that ends the process where the main thread does not."""

    def __init__(self) -> None:
        self.ending: int | None = None  # the exit code, once it is certain
        self.patient: Callable[[], bool] = lambda: False  # see `be_patient`
        self._deadline = 0.0
        self._terminal = _terminal_settings()
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        start_new_thread(self._run, ())

    def listen(self) -> None:
        """Have signals wake the thread, also after an event loop has had them for itself."""
        with suppress(ValueError):  # in a thread other than the main one
            signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)

    def end(self, code: int) -> None:
        """Begin to count the seconds."""
        if self.ending is None:
            self._deadline = monotonic() + GRACE
            self.ending = code
            self.tell(0)

    def tell(self, number: int) -> None:
        """Wake the thread, as a signal with that number does."""
        with suppress(BlockingIOError):
            os.write(self._write, bytes([number]))

    def _run(self) -> None:
        heard_at, code, spared = 0.0, 0, False
        while True:
            due = [heard_at + GRACE] if heard_at else []
            due += [self._deadline] if self.ending is not None else []
            patience = max(0.0, min(due) - monotonic()) if due else None
            if select.select([self._read], [], [], patience)[0]:
                # a signal is written before its handler runs, so what it writes comes after
                for number in os.read(self._read, 512):
                    if number == _HANDLED:
                        heard_at, spared = 0.0, False
                    elif number == signal.SIGINT and not spared and self.patient():
                        spared = True  # once: the next Ctrl-C counts the seconds
                    elif number in _CODES and not heard_at:
                        heard_at, code = monotonic(), _CODES[signal.Signals(number)]
            now = monotonic()
            if self.ending is not None and now >= self._deadline:
                self.exit(self.ending)
            if heard_at and now >= heard_at + GRACE:
                self.exit(code)

    def exit(self, code: int) -> NoReturn:
        """End the process, having given the terminal back."""
        import threading

        with suppress(Exception):
            tidying = threading.Thread(target=unlink_semaphores, daemon=True)
            tidying.start()
            tidying.join(_TO_TIDY)
            _restore_terminal(self._terminal)
        os._exit(code)


_watch: _Watch | None = None


def install() -> None:
    """Handle the signals from here on; those that the caller ignores, as `nohup`, stay ignored."""
    global _watch
    if hasattr(signal, "pthread_sigmask"):  # not Windows, where select takes no pipes
        _watch = _Watch()
    for number in _CODES:
        if number == signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt if number == signal.SIGINT else _terminate)
    listen()


def listen() -> None:
    """Handle signals as before, after a prompt has been shown: its event loop keeps them."""
    if _watch is not None:
        _watch.listen()


def ending() -> int | None:
    """The exit code, where a signal is ending the program."""
    return _watch.ending if _watch is not None else None


def end(code: int) -> None:
    """Give the main thread its seconds to end the program with `code`."""
    if _watch is not None:
        _watch.end(code)


def be_patient(wanted: Callable[[], bool]) -> None:
    """While `wanted` is true, let a Ctrl-C wait for its handler however long that takes.

    A prefill may be one call of seconds, and what is to be finished must not be lost. A second
    Ctrl-C ends the program in any case. `wanted` is called in another thread.
    """
    if _watch is not None:
        _watch.patient = wanted


def survive() -> None:
    """Called by a handler of SIGINT after which the program goes on."""
    if _watch is not None:
        _watch.tell(_HANDLED)


def interrupt(_signal: int, frame: FrameType | None) -> None:
    """The handler of SIGINT that ends the program.

    Raises:
        KeyboardInterrupt: The first time; what follows must not disturb the unwinding.
    """
    survive()
    if ending() is None:
        end(INTERRUPTED)
        _exit_within_import(frame)
        raise KeyboardInterrupt


@contextmanager
def interrupts_do_not_end() -> Iterator[None]:
    """Let KeyboardInterrupt be raised in the block as often as Ctrl-C is pressed.

    One that leaves the block ends the program.
    """

    def stop(_signal: int, frame: FrameType | None) -> NoReturn:
        survive()
        if _within_import(frame):
            end(INTERRUPTED)
            _exit_within_import(frame)
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


def unlink_semaphores() -> None:
    """Remove what multiprocessing would remove at the end of the interpreter, before `os._exit`.

    Progress bars of libraries have a semaphore; one that is left is complained of on stderr.
    """
    if (util := sys.modules.get("multiprocessing.util")) is not None:
        with suppress(Exception):
            util._run_finalizers(0)


def leave() -> None:
    """Nothing is left to unwind: signals end the process at once, and Ctrl-C is ignored."""
    for number in _CODES:
        if signal.getsignal(number) is not signal.SIG_IGN:
            ignored = number == signal.SIGINT
            signal.signal(number, signal.SIG_IGN if ignored else signal.SIG_DFL)


def _terminate(_signal: int, frame: FrameType | None) -> None:
    survive()
    if ending() is None:
        end(TERMINATED)
        _exit_within_import(frame)
        # An exception unwinds the spinner, which gives the terminal its cursor back.
        raise Terminated(TERMINATED)


def _exit_within_import(frame: FrameType | None) -> None:
    """End the process at once if the main thread is importing a module.

    Compiled modules call Python while they are initialised, and C++ aborts the process on an
    exception that it does not expect there.
    """
    if _watch is not None and _watch.ending is not None and _within_import(frame):
        _watch.exit(_watch.ending)


def _within_import(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _terminal_settings() -> list[Any] | None:
    try:
        import termios

        return termios.tcgetattr(0)
    except (ImportError, OSError, ValueError):
        return None
    except Exception:  # termios.error is not an OSError
        return None


def _restore_terminal(settings: list[Any] | None) -> None:
    if settings is not None and not _in_background(0):
        import termios

        # moved to the background just now, the process would be stopped
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
        termios.tcsetattr(0, termios.TCSANOW, settings)
    if os.isatty(2) and not _in_background(2) and select.select([], [2], [], 0)[1]:
        os.write(2, _VISIBLE + b"\n")


def _in_background(descriptor: int) -> bool:
    """Whether the terminal at `descriptor` belongs to another job now."""
    try:
        return os.tcgetpgrp(descriptor) != os.getpgrp()
    except (AttributeError, OSError):  # Windows, or not our controlling terminal
        return False
