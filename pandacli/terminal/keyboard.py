"""Echo of typed keys: off while the program computes, so that output stays clean; nothing is lost.

Without `termios` (Windows) the echo stays as it is.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any


@contextmanager
def echo_off() -> Iterator[None]:
    """Hide typed keys for the block; the next reader still gets them.

    Ctrl-C interrupts as usual. Does nothing if stdin, stdout and stderr are not all terminals (a
    pager may be using it), or in a background job.
    """
    # not sys.stdout and sys.stderr, which a spinner replaces
    streams = sys.stdin, sys.__stdout__, sys.__stderr__
    if not all(stream is not None and stream.isatty() for stream in streams):
        yield
        return

    def hide(modes: list[Any]) -> None:
        import termios

        modes[0] &= ~termios.ICRNL
        modes[3] &= ~(termios.ECHO | termios.ICANON)

    with _changed_modes(hide):
        yield


@contextmanager
def echo_on() -> Iterator[None]:
    """Echo keys and read by line for the block, also within `echo_off`."""

    def show(modes: list[Any]) -> None:
        import termios

        modes[0] |= termios.ICRNL
        modes[3] |= termios.ECHO | termios.ICANON

    with _changed_modes(show):
        yield


@contextmanager
def _changed_modes(change: Callable[[list[Any]], None]) -> Iterator[None]:
    """Change the terminal modes of stdin for the block, if it is a terminal."""
    try:
        import termios
    except ImportError:
        yield
        return
    try:
        stream = sys.stdin.fileno()
        before = termios.tcgetattr(stream)
    except (AttributeError, OSError, ValueError, termios.error):  # closed, or no terminal
        yield
        return
    changed = [*before[:6], list(before[6])]
    change(changed)

    def apply(modes: list[Any]) -> None:
        with suppress(OSError, termios.error):
            # a background job would be stopped
            if os.tcgetpgrp(stream) == os.getpgrp():
                termios.tcsetattr(stream, termios.TCSANOW, modes)

    def continued(*_: object) -> None:
        # after Ctrl-Z the shell has restored its own modes
        with suppress(termios.error):
            if termios.tcgetattr(stream)[3] & termios.ECHO:
                apply(changed)

    earlier = signal.signal(signal.SIGCONT, continued)
    try:
        apply(changed)
        yield
    finally:
        signal.signal(signal.SIGCONT, earlier)
        apply(before)
