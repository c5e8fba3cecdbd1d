"""The screen: answers on stdout, everything else on stderr, and the echo of typed keys.

Colour, spinners and cursor codes are for terminals only, and Rich is imported only when one of them
is needed. Text is never read as Rich markup, and text from outside is sanitized.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from pandacli.errors import PandaError
from pandacli.terminal.report import Stopwatch, frame_times, stats_rows
from pandacli.terminal.text import colour, sanitize, sanitize_line, wrap

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from pandacli.inference.spec import Stats
    from pandacli.video import Frames

GRAPHICS = ("auto", "kitty", "iterm2", "sixel", "blocks", "none")
"""Values of `--graphics`: how pictures are drawn."""

_DEFAULT_WIDTH = 80
_PREFIX = "panda: "  # of notices, and of errors in a log


class Screen:
    """Where a command prints; `quiet` hides notices and spinners, `graphics` is of `GRAPHICS`."""

    def __init__(self, *, quiet: bool = False, graphics: str = "auto") -> None:
        self.quiet, self.graphics = quiet, graphics

    @cached_property
    def out(self) -> "Console":
        """Rich console on stdout."""
        return _console(sys.stdout)

    @cached_property
    def err(self) -> "Console":
        """Rich console on stderr."""
        return _console(sys.stderr)

    @property
    def stdout_is_terminal(self) -> bool:
        """Whether answers go to a terminal."""
        return sys.stdout.isatty()

    @property
    def animates(self) -> bool:
        """Whether stderr can show spinners and progress bars."""
        return not self.quiet and sys.stderr.isatty() and not self.err.is_dumb_terminal

    @property
    def is_interactive(self) -> bool:
        """Whether the user can be asked a question."""
        return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()

    def require_stdout(self) -> None:
        """Raise UsageError if the caller has closed stdout; to be called before anything slow."""
        self._write_answer("")

    # --- questions to the user

    def confirm(self, question: str) -> bool:
        """Ask a yes/no question on stderr; anything but yes is no."""
        return self._read_reply(f"{question} [y/N]") in ("y", "yes")

    def ask_yes_no(self, question: str) -> bool | None:
        """Ask until the reply is yes (or Enter) or no; None for Ctrl-D."""
        while (reply := self._read_reply(f"{question} [Y/n]")) is not None:
            if reply in ("", "y", "yes", "n", "no"):
                return not reply.startswith("n")
        return None

    def confirm_overwrite(self, path: Path) -> bool:
        """Whether a file may be written; asks if it exists."""
        return not os.path.lexists(path) or self.confirm(f"{path} exists; replace it?")

    def _read_reply(self, question: str) -> str | None:
        """Return what is typed after a question, in lower case; None for Ctrl-D."""
        self._write_error(_wrap_line(_PREFIX + question, len(_PREFIX)) + " ")
        with _terminal_modes(echo=True):
            try:
                line = sys.stdin.readline()
            except UnicodeDecodeError:
                return "?"
        if not line.endswith("\n"):  # after Ctrl-D the cursor is still behind the question
            self.error_line("")
        return line.strip().lower() if line else None

    # --- stderr

    @contextmanager
    def status(self, words: str) -> Iterator[Callable[[str], None]]:
        """Show a spinner for the block; yields a function that changes its words."""
        if self.quiet or not sys.stderr.isatty():
            yield lambda _: None
            return
        status = self.err.status(_dim(f"{sanitize_line(words)}…"), spinner=spinner(sys.stderr))
        try:  # start is inside: a signal while it draws must restore the cursor too
            status.start()
            yield lambda words: status.update(_dim(f"{sanitize_line(words)}…"))
        finally:
            status.stop()

    def notice(self, sentence: str, command: str | None = None) -> None:
        """Print what the user should know, unless quiet; see `error`."""
        if not self.quiet:
            self._print_message(_PREFIX, sentence, command=command)

    def note(self, sentence: str, *, indent: int = 0) -> None:
        """Print a dim line of a dialogue on stderr; wrapped lines are indented on a terminal."""
        if sys.stderr.isatty():
            self.err.print(_dim(_wrap_line(sentence, indent)), soft_wrap=True)
        else:
            self.error_line(sentence)

    def error_line(self, text: str) -> None:
        """Print one sanitized line on stderr."""
        self._write_error(sanitize_line(text) + "\n")

    def error(self, message: str, *hints: str | None, command: str | None = None) -> None:
        """Print on stderr what went wrong, what to do, and a command to run.

        Sentences are wrapped on a terminal; the command stays on one line, to be copied.
        """
        prefix = "error: " if sys.stderr.isatty() else _PREFIX  # a log needs the program's name
        self._print_message(prefix, message, *hints, command=command)

    def _print_message(
        self, prefix: str, message: str, *hints: str | None, command: str | None
    ) -> None:
        margin = " " * len(prefix)
        for line in (prefix + message, *(margin + hint for hint in hints if hint)):
            line = _wrap_line(line, len(prefix)) if sys.stderr.isatty() else sanitize_line(line)
            if line.startswith("error:"):
                line = colour("error:", "red", sys.stderr) + line[len("error:") :]
            self._write_error(line + "\n")
        if command:
            self.error_line(f"{margin}  {command}")

    def _write_error(self, text: str) -> None:
        with suppress(OSError):  # a closed stderr is no error
            sys.stderr.write(text)
            sys.stderr.flush()

    def heading(self, question: str) -> None:
        """Print a question above its answer, if both streams are terminals."""
        if self.stdout_is_terminal and sys.stderr.isatty() and not self.quiet:
            self.err.print(_dim(sanitize_line(question)), soft_wrap=True)

    def stats(self, stats: "Stats", frames: "Frames", watch: Stopwatch) -> None:
        """Print what an answer cost on stderr."""
        self.table(stats_rows(stats, frames, watch))

    def table(
        self,
        rows: Iterable[tuple[str, str]],
        title: str = "",
        *,
        numbers: bool = False,
        failures: Iterable[str] = (),
    ) -> None:
        """Print names and values in two columns on stderr, the values of `failures` in red."""
        cells = [(sanitize_line(name), sanitize_line(value)) for name, value in rows]
        if not sys.stderr.isatty() or self.err.is_dumb_terminal:
            if title:
                self.error_line(title)
            width = max(len(name) for name, _ in cells)
            for name, value in cells:
                self.error_line(f"{name:{'>' if numbers else '<'}{width}}  {value}")
            return
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(no_wrap=True, justify="right" if numbers else "left")
        grid.add_column(overflow="fold")
        for name, value in cells:
            color = "red" if name in failures else ""
            grid.add_row(Text(name, style="" if numbers else "dim"), Text(value, style=color))
        if title:
            self.err.print(Text(title, style="bold"))
        self.err.print(grid)

    # --- stdout

    def stream(self, pieces: Iterable[str], *, one_line: bool = False) -> None:
        """Print an answer while it is decoded, on one line if asked; first a spinner shows."""
        remaining = iter(pieces)
        with self.status("thinking"):
            first = next(remaining, "")
        for piece in chain([first], remaining):
            self._write_answer(sanitize(piece.replace("\n", " ") if one_line else piece))
        self._write_answer("\n")

    def line(self, text: str) -> None:
        """Print a sanitized line on stdout; it may hold newlines and tabs."""
        self._write_answer(sanitize(text) + "\n")

    def write(self, text: str) -> None:
        """Write text to stdout, exactly for programs, sanitized for a terminal; raises OSError."""
        sys.stdout.write(sanitize(text) if self.stdout_is_terminal else text)
        sys.stdout.flush()

    def _write_answer(self, text: str) -> None:
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise PandaError(f"cannot write the answer: {error.strerror}") from error

    def question(self, question: str) -> None:
        """Print a question on stdout, above its answer; its lines are aligned."""
        shown = "> " + "\n  ".join(map(sanitize_line, question.split("\n")))
        if self.stdout_is_terminal:
            self.out.print(_dim(shown), soft_wrap=True)
        else:
            self.line(shown)

    @property
    def shows_pictures(self) -> bool:
        """Whether frames can be drawn on stdout."""
        return (
            self.graphics != "none"
            and self.stdout_is_terminal
            and self.out.color_system is not None
            and not self.out.no_color
            # the sequences are ASCII, the half-blocks are not
            and (self.graphics in ("kitty", "iterm2", "sixel") or can_encode(sys.stdout, "▄"))
        )

    def frames(self, frames: "Frames") -> None:
        """Draw the frames with their times; print only the times if nothing can be drawn."""
        if not self.shows_pictures:
            self.line(f"frames at {frame_times(frames)}")
            return
        from pandacli.terminal.frame_strip import FrameStrip, cell_size, choose_protocol

        cell = cell_size(sys.stdout)
        self.out.print(FrameStrip(frames, choose_protocol(self.graphics, os.environ, cell), cell))


@contextmanager
def echo_off() -> Iterator[None]:
    """Hide typed keys for the block, so that output stays clean; the next reader still gets them.

    Does nothing if stdin, stdout and stderr are not all terminals (a pager may be using it), or in
    a background job.
    """
    # not sys.stdout and sys.stderr, which a spinner replaces
    streams = sys.stdin, sys.__stdout__, sys.__stderr__
    ours = all(stream is not None and stream.isatty() for stream in streams)
    with _terminal_modes(echo=False) if ours else nullcontext():
        yield


@contextmanager
def _terminal_modes(*, echo: bool) -> Iterator[None]:
    """Echo keys and read by line for the block, or neither; Ctrl-C interrupts in both cases."""
    try:
        import termios

        stream = sys.stdin.fileno()
        before = termios.tcgetattr(stream)
    except Exception:  # Windows, closed, or no terminal; termios.error is not an OSError
        yield
        return
    changed = before.copy()
    for index, flags in ((0, termios.ICRNL), (3, termios.ECHO | termios.ICANON)):
        changed[index] = before[index] | flags if echo else before[index] & ~flags

    def apply(modes: list[int | list[bytes | int]]) -> None:
        with suppress(OSError, termios.error):
            if os.tcgetpgrp(stream) == os.getpgrp():  # a background job would be stopped
                termios.tcsetattr(stream, termios.TCSANOW, modes)

    def restore(*_: object) -> None:
        with suppress(termios.error):  # after Ctrl-Z the shell has restored its own modes
            if termios.tcgetattr(stream)[3] & termios.ECHO:
                apply(changed)

    earlier = signal.signal(signal.SIGCONT, restore)
    try:
        apply(changed)
        yield
    finally:
        signal.signal(signal.SIGCONT, earlier)
        apply(before)


def _wrap_line(text: str, indent: int) -> str:
    """Sanitize and wrap a line for the width of stderr, which COLUMNS overrides."""
    columns = os.environ.get("COLUMNS", "")
    width = int(columns) if columns.isdecimal() else 0
    if not width:
        with suppress(OSError, ValueError):  # not a terminal, or not even a file
            width = os.get_terminal_size(sys.stderr.fileno()).columns
    return wrap(sanitize_line(text), width or _DEFAULT_WIDTH, indent)


def can_encode(stream: TextIO, text: str) -> bool:
    """Whether a stream's encoding has all of `text`."""
    try:
        text.encode(stream.encoding or "utf-8")
    except (LookupError, UnicodeEncodeError):
        return False
    return True


def spinner(stream: TextIO) -> str:
    """Return the name of a Rich spinner that a stream can encode."""
    return "dots" if can_encode(stream, "⠋") else "line"


def _console(stream: TextIO) -> "Console":
    from rich.console import Console

    terminal = stream.isatty()  # FORCE_COLOR must not put colour into a pipe
    return Console(file=stream, force_terminal=terminal, markup=False, highlight=False, emoji=False)


def _dim(text: str) -> "Text":
    from rich.text import Text

    return Text(text, style="dim")
