"""The screen: answers go to stdout, every other word to stderr.

Colour, spinners and cursor codes are for terminals only, and Rich is imported only once one of
them is wanted. Text is never read as Rich markup, and text from outside goes through
`pandacli.terminal.text`.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from pandacli.errors import PandaError
from pandacli.terminal.report import Stopwatch, answers_json, frame_times, stats_rows
from pandacli.terminal.text import sanitize, sanitize_line, wrapped

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from pandacli.inference import Answer
    from pandacli.inference.answer import Stats
    from pandacli.video import Frames

_USUAL_COLUMNS = 80
_IN_ASCII = ("kitty", "iterm2", "sixel")  # pictures that any encoding carries
_YES, _NO = ("y", "yes"), ("n", "no")
_NAME = "panda: "
"""In front of every sentence that is not part of an answer."""


class Screen:
    """Where a command prints.

    Args:
        quiet: Leave out notices and spinners. Answers and errors still show.
        graphics: How pictures are drawn, one of `pandacli.terminal.capabilities.GRAPHICS`.
    """

    def __init__(self, *, quiet: bool = False, graphics: str = "auto") -> None:
        self.quiet = quiet
        self.graphics = graphics

    @cached_property
    def out(self) -> "Console":
        """Rich on stdout."""
        return _console(sys.stdout)

    @cached_property
    def err(self) -> "Console":
        """Rich on stderr."""
        return _console(sys.stderr)

    @property
    def stdout_is_terminal(self) -> bool:
        """Whether a person reads stdout as it comes."""
        return sys.stdout.isatty()

    def require_stdout(self) -> None:
        """Makes sure that answers have somewhere to go, before they are computed.

        Raises:
            UsageError: The caller has closed stdout.
        """
        self._write("")

    @property
    def animates(self) -> bool:
        """Whether stderr is a terminal on which something may move."""
        return not self.quiet and sys.stderr.isatty() and not self.err.is_dumb_terminal

    @property
    def is_interactive(self) -> bool:
        """Whether a person is there to answer a question."""
        return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()

    def confirm(self, question: str) -> bool:
        """Asks a question on stderr; all but a yes is a no."""
        return self._asked(f"{question} [y/N]") in _YES

    def ask_yes_no(self, question: str) -> bool | None:
        """Asks a question on stderr to which Enter says yes, until it is answered.

        Returns:
            The answer; None where there is none, because of Ctrl-D.

        Raises:
            KeyboardInterrupt: Ctrl-C.
        """
        while (answer := self._asked(f"{question} [Y/n]")) is not None:
            if answer in ("", *_YES):
                return True
            if answer in _NO:
                return False
        return None

    def confirm_overwrite(self, path: Path) -> bool:
        """Whether a file may be written: there is none of its name, or it may be replaced."""
        return not os.path.lexists(path) or self.confirm(f"{path} exists; replace it?")

    def _asked(self, question: str) -> str | None:
        """Returns what is typed after a question, in small letters; None for Ctrl-D."""
        from pandacli.terminal.keyboard import echo_on

        text = wrapped(sanitize_line(_NAME + question), columns(sys.stderr), len(_NAME))
        with suppress(OSError):
            sys.stderr.write(text + " ")
            sys.stderr.flush()
        with echo_on():
            try:
                line = sys.stdin.readline()
            except UnicodeDecodeError:
                return "?"
        if not line.endswith("\n"):  # Ctrl-D leaves the cursor behind the question
            self.error_line("")
        return line.strip().lower() if line else None

    @contextmanager
    def status(self, doing: str) -> Iterator[Callable[[str], None]]:
        """Shows that something slow is under way, and takes the words back when it is over.

        Yields what says other words from then on.
        """
        if self.quiet or not sys.stderr.isatty():
            yield lambda _: None
            return
        status = self.err.status(_dim(f"{sanitize_line(doing)}…"), spinner=spinner(sys.stderr))
        try:  # start is inside it: a signal while it draws must give the cursor back too
            status.start()
            yield lambda words: status.update(_dim(f"{sanitize_line(words)}…"))
        finally:
            status.stop()

    def notice(self, sentence: str, command: str | None = None) -> None:
        """Tells the user, on stderr, something about the answer that they should know.

        Args:
            sentence: In one line; a terminal gets it wrapped.
            command: What to run, on a line of its own.
        """
        if not self.quiet:
            self.error(sentence, command=command)

    def note(self, sentence: str, *, above: bool = False, indent: int = 0) -> None:
        """Says, dimly and on stderr, something that belongs to the conversation with the user.

        Args:
            sentence: One line.
            above: Begin it on a line of its own, whatever the cursor's place.
            indent: Of the lines after the first, where a terminal has to break it.
        """
        if above:
            self.error_line("")
        if sys.stderr.isatty():
            lines = wrapped(sanitize_line(sentence), columns(sys.stderr), indent)
            self.err.print(_dim(lines), soft_wrap=True)
        else:
            self.error_line(sentence)

    def error_line(self, text: str) -> None:
        """Prints one line on stderr, whatever is in `text`; nobody to read it is no error."""
        self._write_error(sanitize_line(text) + "\n")

    def error(self, message: str, *hints: str | None, command: str | None = None) -> None:
        """Says on stderr what went wrong and, under it, what to do and what to run.

        A terminal gets the sentences wrapped between words. The command is left whole, so that it
        can be copied.
        """
        self._sentence(_NAME + message)
        for hint in filter(None, hints):
            self._sentence(" " * len(_NAME) + hint)
        if command:
            self.error_line(" " * (len(_NAME) + 2) + command)

    def _sentence(self, text: str) -> None:
        line = sanitize_line(text)
        if sys.stderr.isatty():
            line = wrapped(line, columns(sys.stderr), len(_NAME))
        self._write_error(line + "\n")

    def _write_error(self, text: str) -> None:
        with suppress(OSError):
            sys.stderr.write(text)
            sys.stderr.flush()

    def heading(self, question: str) -> None:
        """Says which question the next answer is to, where a person reads both streams."""
        if self.stdout_is_terminal and sys.stderr.isatty() and not self.quiet:
            self.err.print(_dim(sanitize_line(question)), soft_wrap=True)

    def stream(self, pieces: Iterable[str], *, one_line: bool = False) -> None:
        """Writes an answer as it is decoded, and ends it with a newline.

        The words "thinking…" stand in for the first piece until it is there.

        Args:
            pieces: The answer in order; anything, control characters included.
            one_line: Line breaks in the answer become spaces.
        """
        remaining = iter(pieces)
        with self.status("thinking"):
            first = next(remaining, "")
        for piece in chain([first], remaining):
            shown = sanitize(piece.replace("\n", " ") if one_line else piece)
            self._write(shown)
        self._write("\n")

    def line(self, text: str) -> None:
        """Prints a line of our own on stdout; what it quotes from outside is made harmless."""
        self._write(sanitize(text) + "\n")

    def write(self, text: str) -> None:
        """Writes text to stdout as it is for a program, and made harmless for a terminal.

        Raises:
            OSError: It cannot be written.
        """
        sys.stdout.write(sanitize(text) if self.stdout_is_terminal else text)
        sys.stdout.flush()

    def _write(self, text: str) -> None:
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise PandaError(f"cannot write the answer: {error.strerror}") from error

    def json(self, video: str, model: str, frames: "Frames", answers: "Sequence[Answer]") -> None:
        """Prints one JSON object on stdout: on one line for programs, indented for people."""
        pretty = self.stdout_is_terminal
        self._write(answers_json(video, model, frames, answers, pretty=pretty) + "\n")

    def stats(self, stats: "Stats", frames: "Frames", waited: Stopwatch | None = None) -> None:
        """Prints what an answer cost on stderr, as named values in two columns."""
        rows = stats_rows(stats, frames, waited)
        if not sys.stderr.isatty():
            for name, value in rows:
                self.error_line(f"{name:<11}  {value}")
            return
        from rich.table import Table

        grid = Table.grid(padding=(0, 2))
        for name, value in rows:
            grid.add_row(_dim(name), value)
        self.err.print(grid)

    def question(self, question: str) -> None:
        """Shows a question on stdout, above its answer; its lines stand under each other."""
        shown = "> " + "\n  ".join(map(sanitize_line, question.split("\n")))
        if self.stdout_is_terminal:
            self.out.print(_dim(shown), soft_wrap=True)
        else:
            self.line(shown)

    @property
    def shows_pictures(self) -> bool:
        """Whether frames can be drawn on stdout, in whatever way."""
        return (
            self.graphics != "none"
            and self.stdout_is_terminal
            and self.out.color_system is not None
            and not self.out.no_color
            and (self.graphics in _IN_ASCII or encodes(sys.stdout, "▄"))
        )

    def frames(self, frames: "Frames") -> None:
        """Draws the frames with their times; says only the times where nothing can be drawn."""
        if not self.shows_pictures:
            self.line(f"frames at {frame_times(frames)}")
            return
        from pandacli.terminal.capabilities import cell_size, drawn_with
        from pandacli.terminal.frame_strip import FrameStrip

        cell = cell_size(sys.stdout)
        self.out.print(FrameStrip(frames, drawn_with(self.graphics, os.environ, cell), cell))


def columns(stream: TextIO) -> int:
    """How many cells a line of a terminal has; COLUMNS overrules what the terminal says."""
    with suppress(ValueError):
        if (told := int(os.environ.get("COLUMNS", ""))) > 0:
            return told
    try:
        return os.get_terminal_size(stream.fileno()).columns or _USUAL_COLUMNS
    except (OSError, ValueError):  # not a terminal, or not even a file
        return _USUAL_COLUMNS


def encodes(stream: TextIO, text: str) -> bool:
    """Whether a stream can show `text` as it is."""
    try:
        text.encode(stream.encoding or "utf-8")
    except (LookupError, UnicodeEncodeError):
        return False
    return True


def spinner(stream: TextIO) -> str:
    """The name of Rich's spinner whose characters a stream can show."""
    return "dots" if encodes(stream, "⠋") else "line"


def _console(stream: TextIO) -> "Console":
    from rich.console import Console

    # FORCE_COLOR and its kin must not put colours into a pipe.
    return Console(
        file=stream,
        force_terminal=stream.isatty(),
        markup=False,
        highlight=False,
        emoji=False,
    )


def _dim(text: str) -> "Text":
    from rich.text import Text

    return Text(text, style="dim")
