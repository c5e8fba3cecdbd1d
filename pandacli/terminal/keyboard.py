"""What is typed while a program computes: kept off the screen, and not lost."""

import os
import signal
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any


@contextmanager
def echo_off() -> Iterator[None]:
    """Do not echo what is typed meanwhile; the next reader gets it as it was typed.

    Ctrl-C still interrupts. Nothing is done where stdin, stdout and stderr are not all the
    terminal (a pager behind the pipe has it then), or where a background job has no right to it.
    """
    if not all(stream is not None and stream.isatty() for stream in _streams()):
        yield
        return

    def hide(modes: list[Any]) -> None:
        modes[0] &= ~termios.ICRNL
        modes[3] &= ~(termios.ECHO | termios.ICANON)

    with _modes(hide):
        yield


@contextmanager
def echo_on() -> Iterator[None]:
    """Echo what is typed and take it line by line, also within `echo_off`."""

    def show(modes: list[Any]) -> None:
        modes[0] |= termios.ICRNL
        modes[3] |= termios.ECHO | termios.ICANON

    with _modes(show):
        yield


@contextmanager
def _modes(change: Callable[[list[Any]], None]) -> Iterator[None]:
    """Change the modes of the terminal at stdin for the block, if there is one."""
    try:
        stream = sys.stdin.fileno()
        before = termios.tcgetattr(stream)
    except (AttributeError, OSError, ValueError, termios.error):  # closed, or no terminal
        yield
        return
    changed = [*before[:6], list(before[6])]
    change(changed)

    def put(modes: list[Any]) -> None:
        with suppress(OSError, termios.error):
            # the terminal would stop a background job that touches it
            if os.tcgetpgrp(stream) == os.getpgrp():
                termios.tcsetattr(stream, termios.TCSANOW, modes)

    def continued(*_: object) -> None:
        # the shell has its own modes while the program is stopped by Ctrl-Z; a prompt echoes itself
        with suppress(termios.error):
            if termios.tcgetattr(stream)[3] & termios.ECHO:
                put(changed)

    earlier = signal.signal(signal.SIGCONT, continued)
    try:
        put(changed)
        yield
    finally:
        signal.signal(signal.SIGCONT, earlier)
        put(before)


def _streams() -> tuple[Any, Any, Any]:
    # not sys.stdout and sys.stderr, which a spinner replaces while it turns
    return sys.stdin, sys.__stdout__, sys.__stderr__
