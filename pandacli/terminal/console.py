"""The screen: answers on stdout, everything else on stderr, and the echo of typed keys."""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from pandacli.errors import PandaError
from pandacli.terminal.text import (
    cells,
    colour,
    fit,
    sanitize,
    sanitize_json,
    sanitize_line,
    wrap,
)
from pandacli.video.clip import format_times

if TYPE_CHECKING:
    from rich.console import Console

    from pandacli.inference.spec import Scores
    from pandacli.video import Frames

GRAPHICS = ("auto", "kitty", "iterm2", "sixel", "blocks", "none")  # of `--graphics`

_DEFAULT_WIDTH = 80
_FPS = 8  # of a spinner: drawing takes less than 1 % of a core
_MAX_BARS = 80  # columns of a choice with its bar
_PERCENT = 12  # columns of its probability and the space around it
_LOW_COVERAGE = 0.01
_PREFIX = "panda: "  # of notices, and of errors in a log


class Screen:
    """Where a command prints; `quiet` hides notices and spinners, `graphics` is of `GRAPHICS`."""

    def __init__(self, *, quiet: bool = False, graphics: str = "auto") -> None:
        self.quiet, self.graphics = quiet, graphics

    @cached_property
    def out(self) -> "Console":
        return _console(sys.stdout)

    @cached_property
    def err(self) -> "Console":
        return _console(sys.stderr)

    @property
    def stdout_is_terminal(self) -> bool:
        return sys.stdout.isatty()

    @property
    def animates(self) -> bool:
        """Whether stderr can show spinners and progress bars."""
        return not self.quiet and _moves_cursor(sys.stderr)

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
        if not self.animates:
            yield lambda _: None
            return
        from pandacli.terminal.waiting import Waiting

        waiting = Waiting(words)
        dots = spinner(sys.stderr)
        status = self.err.status(waiting, spinner=dots, refresh_per_second=_FPS)
        try:  # start is inside: a signal while it draws must restore the cursor too
            status.start()
            yield waiting.say
        finally:
            status.stop()

    def notice(self, sentence: str, command: str | None = None) -> None:
        """Print what the user should know, unless quiet; see `error`."""
        if not self.quiet:
            self._print_message(_PREFIX, sentence, command=command)

    def note(self, sentence: str, *, indent: int = 0) -> None:
        """Print a dim line of a dialogue on stderr; wrapped lines are indented on a terminal."""
        self._write_error(colour(_wrap_line(sentence, indent), "dim", sys.stderr) + "\n")

    def error_line(self, text: str) -> None:
        """Print one sanitized line on stderr."""
        self._write_error(sanitize_line(text) + "\n")

    def error(self, message: str, *hints: str | None, command: str | None = None) -> None:
        """Print what went wrong, what to do, and a command to copy, which is never wrapped."""
        prefix = "error: " if sys.stderr.isatty() else _PREFIX  # a log needs the program's name
        self._print_message(prefix, message, *hints, command=command)

    def _print_message(self, prefix: str, *lines: str | None, command: str | None) -> None:
        margin = " " * len(prefix)
        text = "\n".join(_wrap_line(margin + line, len(margin)) for line in lines if line)
        label = colour(prefix[:-1], "red" if prefix != _PREFIX else "", sys.stderr)
        self._write_error(f"{label} {text[len(prefix) :]}\n")
        if command:
            self.error_line(f"{margin}  {command}")

    def _write_error(self, text: str) -> None:
        with suppress(OSError):  # a closed stderr is no error
            sys.stderr.write(text)
            sys.stderr.flush()

    def heading(self, question: str) -> None:
        """Print a question above its answer, if both streams are terminals."""
        if self.stdout_is_terminal and sys.stderr.isatty() and not self.quiet:
            self._write_error(colour(sanitize_line(question), "dim", sys.stderr) + "\n")

    def table(
        self,
        rows: Iterable[tuple[str, ...]],
        title: str = "",
        *,
        numbers: bool = False,
        on_stdout: bool = False,
        width: int = 0,
    ) -> None:
        """Print names, at least `width` wide, and values; a third item of a row is a problem."""
        cells = [tuple(map(sanitize_line, row)) for row in rows]
        if not _moves_cursor(sys.stdout if on_stdout else sys.stderr):
            print_line = self.line if on_stdout else self.error_line
            if title:
                print_line(title)
            width = max(width, *(len(name) for name, *_ in cells), 0)
            for name, *values in cells:
                value = " - ".join(filter(None, values))
                print_line(f"{name:{'>' if numbers else '<'}{width}}  {value}".rstrip())
            return
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 2, 0, 0))
        if numbers:
            grid.add_column(justify="right", no_wrap=True, min_width=width)
        else:
            grid.add_column(style="dim", no_wrap=True, min_width=width)
        grid.add_column(overflow="fold")
        for name, value, *problems in cells:
            text = Text(value)
            for problem in filter(None, problems):
                text.append("\n" + problem if value else problem, "red")
            grid.add_row(name, text)
        console = self.out if on_stdout else self.err
        if title:
            console.print(title, style="bold")
        console.print(grid)

    # --- stdout

    def stream(self, pieces: Iterable[str], *, one_line: bool = False) -> None:
        """Print an answer while it is decoded, on one line if asked; first a spinner shows."""
        remaining = iter(pieces)
        with self.status("thinking"):
            first = next(remaining, "")
        for piece in chain([first], remaining):
            self._write_answer(sanitize(piece.replace("\n", " ") if one_line else piece))
        self._write_answer("\n")

    def line(self, text: str, style: str = "") -> None:
        """Print a sanitized line on stdout; it may hold newlines and tabs."""
        self._write_answer(colour(sanitize(text), style, sys.stdout) + "\n")

    def json(self, record: Any, *, one_line: bool = False) -> None:
        """Print JSON on stdout, indented on a terminal, in ASCII where stdout is not UTF-8."""
        indent = 2 if self.stdout_is_terminal and not one_line else None
        utf8 = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().startswith("utf")
        self.line(sanitize_json(json.dumps(record, indent=indent, ensure_ascii=not utf8)))

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
        self.line("> " + "\n  ".join(map(sanitize_line, question.split("\n"))), "dim")

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

    def choice_bars(self, scores: "Scores") -> None:
        """Draw a bar for the probability of each choice on stderr, if that is a terminal."""
        if self.quiet or not sys.stderr.isatty():
            return
        block = "█" if can_encode(sys.stderr, "█") else "#"
        columns = min(_stderr_columns(), _MAX_BARS)
        names = [sanitize_line(choice.text) for choice in scores.choices]
        width = min(max(map(cells, names)), max((columns - _PERCENT) // 2, 0))
        room = max(columns - width - _PERCENT - 1, 0)  # a full line may wrap
        for name, choice in zip(names, scores.choices, strict=True):
            bar = block * round(choice.probability * room)
            self.error_line(f"  {fit(name, width)}  {choice.probability:6.1%}  {bar}".rstrip())
        if scores.coverage < _LOW_COVERAGE:
            self.note(f"the probability of all choices together is {scores.coverage:.1g}")

    def chart(self, lines: Callable[[int, bool], Iterable[str]]) -> None:
        """Draw on stderr, if that is a terminal; `lines` gets the columns, and if it has blocks."""
        if not self.quiet and sys.stderr.isatty():
            for line in lines(_stderr_columns() - 1, can_encode(sys.stderr, "█")):
                self.error_line(line)

    def frames(self, frames: "Frames", captions: Sequence[str] = ()) -> None:
        """Draw the frames with their times; print only the times if nothing can be drawn.

        `captions` stand under them instead of the times.
        """
        if not self.shows_pictures:
            self.line(f"frames at {', '.join(format_times(frames.times))}")
            return
        from pandacli.terminal.frame_strip import FrameStrip, cell_size, choose_protocol

        cell = cell_size(sys.stdout)
        protocol = choose_protocol(self.graphics, os.environ, cell)
        self.out.print(FrameStrip(frames, protocol, cell, captions))


@contextmanager
def echo_off() -> Iterator[None]:
    """Hide typed keys for the block, in the foreground; the next reader still gets them."""
    # all three: else a pager may read keys; not sys.stdout and sys.stderr, which a spinner replaces
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
    text = sanitize_line(text)
    return wrap(text, _stderr_columns(), indent) if sys.stderr.isatty() else text


def _stderr_columns() -> int:
    columns = os.environ.get("COLUMNS", "")
    width = int(columns) if columns.isdecimal() else 0
    with suppress(OSError, ValueError):  # ValueError: not even a file
        width = width or os.get_terminal_size(sys.stderr.fileno()).columns
    return width or _DEFAULT_WIDTH


def _moves_cursor(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


def can_encode(stream: TextIO, text: str) -> bool:
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
