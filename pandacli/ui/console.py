"""The screen: answers go to stdout, every other word to stderr.

Colour, spinners and cursor codes are for terminals only, and Rich is imported only once one of
them is wanted. Text is never read as Rich markup, and text from outside goes through
`pandacli.ui.harmless`.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, TextIO

from pandacli.errors import PandaError
from pandacli.ui.harmless import harmless, harmless_line
from pandacli.ui.report import answers_json, stats_rows, times_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from pandacli.engine import Answer
    from pandacli.video import Frames


class Screen:
    """Where a command prints.

    Args:
        quiet: Leave out notices and spinners. Answers and errors still show.
        graphics: How pictures are drawn, one of `pandacli.ui.terminal.GRAPHICS`.
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
    def answers_to_terminal(self) -> bool:
        """Whether a person reads stdout as it comes."""
        return sys.stdout.isatty()

    @property
    def draws(self) -> bool:
        """Whether stderr is a terminal on which something may move."""
        return not self.quiet and sys.stderr.isatty() and not self.err.is_dumb_terminal

    @property
    def can_ask(self) -> bool:
        """Whether a person is there to answer a question."""
        return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()

    def confirm(self, question: str) -> bool:
        """Asks a question on stderr; all but a yes is a no."""
        with suppress(OSError):
            sys.stderr.write(harmless_line(f"panda: {question} [y/N]") + " ")
            sys.stderr.flush()
        try:
            return sys.stdin.readline().strip().lower() in ("y", "yes")
        except UnicodeDecodeError:
            return False

    @contextmanager
    def stage(self, doing: str) -> Iterator[Callable[[str], None]]:
        """Shows that something slow is under way, and takes the words back when it is over.

        Yields what says other words from then on.
        """
        if self.quiet or not sys.stderr.isatty():
            yield lambda _: None
            return
        status = self.err.status(_dim(f"{harmless_line(doing)}…"), spinner="dots")
        try:  # start is inside it: a signal while it draws must give the cursor back too
            status.start()
            yield lambda words: status.update(_dim(f"{harmless_line(words)}…"))
        finally:
            status.stop()

    def notice(self, sentence: str) -> None:
        """Tells the user, on stderr, something about the answer that they should know."""
        if not self.quiet:
            self.error_line(f"panda: {sentence}")

    def aside(self, sentence: str, *, above: bool = False) -> None:
        """Says, dimly and on stderr, something that belongs to the conversation with the user.

        Args:
            sentence: One line.
            above: Begin it on a line of its own, whatever the cursor's place.
        """
        if above:
            self.error_line("")
        if sys.stderr.isatty():
            self.err.print(_dim(harmless_line(sentence)), soft_wrap=True)
        else:
            self.error_line(sentence)

    def error_line(self, text: str) -> None:
        """Prints one line on stderr, whatever is in `text`; nobody to read it is no error."""
        with suppress(OSError):
            sys.stderr.write(harmless_line(text) + "\n")
            sys.stderr.flush()

    def error(self, message: str, hint: str | None = None) -> None:
        """Says on stderr what went wrong and, under it, what to do."""
        self.error_line(f"panda: {message}")
        if hint:
            self.error_line(f"       {hint}")

    def heading(self, question: str) -> None:
        """Says which question the next answer is to, where a person reads both streams."""
        if self.answers_to_terminal and sys.stderr.isatty() and not self.quiet:
            self.err.print(_dim(harmless_line(question)), soft_wrap=True)

    def stream(self, pieces: Iterable[str], *, one_line: bool = False) -> None:
        """Writes an answer as it is decoded, and ends it with a newline.

        The words "thinking…" stand in for the first piece until it is there.

        Args:
            pieces: The answer in order; anything, control characters included.
            one_line: Line breaks in the answer become spaces.
        """
        remaining = iter(pieces)
        with self.stage("thinking"):
            first = next(remaining, "")
        for piece in chain([first], remaining):
            shown = harmless(piece.replace("\n", " ") if one_line else piece)
            self._write(shown)
        self._write("\n")

    def line(self, text: str) -> None:
        """Prints a line of our own on stdout; what it quotes from outside is made harmless."""
        self._write(harmless(text) + "\n")

    def copy(self, text: str) -> None:
        """Writes text to stdout as it is for a program, and made harmless for a terminal.

        Raises:
            OSError: It cannot be written.
        """
        sys.stdout.write(harmless(text) if self.answers_to_terminal else text)
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
        pretty = self.answers_to_terminal
        self._write(answers_json(video, model, frames, answers, pretty=pretty) + "\n")

    def stats(self, answer: "Answer", frames: "Frames") -> None:
        """Prints what an answer cost on stderr, as named values in two columns."""
        rows = stats_rows(answer, frames)
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
        shown = "> " + "\n  ".join(map(harmless_line, question.split("\n")))
        if self.answers_to_terminal:
            self.out.print(_dim(shown), soft_wrap=True)
        else:
            self.line(shown)

    @property
    def shows_pictures(self) -> bool:
        """Whether frames can be drawn on stdout, in whatever way."""
        return (
            self.graphics != "none"
            and self.answers_to_terminal
            and self.out.color_system is not None
            and not self.out.no_color
        )

    def frames(self, frames: "Frames") -> None:
        """Draws the frames with their times; says only the times where nothing can be drawn."""
        if not self.shows_pictures:
            self.line(f"frames at {times_line(frames)}")
            return
        from pandacli.ui.strip import FrameStrip
        from pandacli.ui.terminal import cell_size, drawn_with

        cell = cell_size(sys.stdout)
        self.out.print(FrameStrip(frames, drawn_with(self.graphics, os.environ, cell), cell))


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
