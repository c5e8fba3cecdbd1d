"""`panda chat` over a pipe: each line of the input is a question, each of the output its answer."""

import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, BinaryIO

from pandacli.errors import PandaError, UsageError
from pandacli.terminal import report
from pandacli.terminal.answering import (
    announce,
    asked,
    save_log,
    score,
    show_notices,
    show_segments,
    show_windows,
    wait,
)
from pandacli.terminal.slash_commands import (
    EXIT_WORDS,
    Command,
    clip_of,
    parse,
    split_choices,
    split_length,
)

if TYPE_CHECKING:
    from pandacli.chat.chat import Chat, SampledClip
    from pandacli.terminal.console import Screen
    from pandacli.video import Clip

_REMEDY = "raise --max-tokens"  # for an answer that is cut off


class PipedChat:
    """Answers the lines of standard input.

    Of the slash commands `/choices`, `/clip`, `/when` and `/every` work; the lines that the last
    two list end with an empty one. `sample` takes a clip and `num_frames`.
    """

    def __init__(
        self,
        chat: "Chat",
        screen: "Screen",
        sample: "Callable[..., SampledClip]",
        *,
        quant: str = "auto",
        stats: bool = False,
        watch: report.Stopwatch | None = None,
    ) -> None:
        self.chat, self.screen, self._sample = chat, screen, sample
        self._quant: str | None = quant  # None once the placement is announced
        self.listing = False  # whether a Ctrl-C should wait for what there is to list
        self._stats, self._watch = stats, watch or report.Stopwatch()
        self._sparse: set[Clip] = set()  # clips that are known to be sampled sparsely

    def run(self) -> None:
        """Answer all lines; raises PandaError at the first failure."""
        if sys.stdin is None:
            raise UsageError("standard input is closed")
        if sys.stdin.isatty():
            self.screen.notice("type a question a line; Ctrl-D ends")
        self._show_notices()
        lines = _read_lines(sys.stdin.buffer)
        while True:
            with self._watch.paused():
                number, line = next(lines, (0, "/exit"))
            if line.startswith("/") or line.strip().lower() in EXIT_WORDS:
                try:
                    command, argument = parse(line)
                    if command.name == "/exit":
                        return
                    self._run(command, argument)
                except PandaError as error:
                    message = f"line {number}: {error.message}"
                    raise type(error)(message, error.hint, command=error.command) from error
            elif question := line.strip():
                self._answer(question)

    def _answer(self, question: str) -> None:
        """Answer a question with one line."""
        chat, screen, watch = self.chat, self.screen, self._watch
        try:
            if chat.choices:
                scores, scoring = score(chat, screen, question, watch, self._quant)
                screen.stream([scores.best.text], one_line=True)
                screen.choice_bars(scores)
                rows = report.scoring_rows(scoring, chat.clip.frames, watch)
            else:
                with asked(chat, screen, question, watch, self._quant, _REMEDY) as stream:
                    screen.stream(stream, one_line=True)
                rows = report.stats_rows(stream.answer.stats, chat.clip.frames, watch)
        finally:
            save_log(chat, screen)
        self._quant = None
        if self._stats:
            screen.table(rows)
        watch.end_answer()

    def _run(self, command: Command, argument: str) -> None:
        chat = self.chat
        if command.name == "/choices":
            chat.choices = split_choices(argument)
        elif command.name == "/clip":
            chat.open_clip(self._sample(clip_of(chat, argument), num_frames=chat.clip.num_frames))
            self._show_notices()
        elif command.name == "/when":
            self._list(lambda: show_segments(chat, self.screen, argument))
        elif command.name == "/every":
            length, question = split_length(argument)
            self._list(lambda: show_windows(chat, self.screen, length, question, _REMEDY))
        else:
            raise UsageError(
                f"{command.name} works only where input and output are a terminal",
                "a question that begins with / needs a space in front",
            )

    def _list(self, show: Callable[[], None]) -> None:
        wait(self.chat, self.screen, self._watch)
        announce(self.chat, self.screen, self._quant, self.chat.dropped)
        self._quant, self.listing = None, True
        try:
            show()
        finally:
            self.listing = False
        self.screen.line("")
        self._watch.end_answer()

    def _show_notices(self) -> None:
        show_notices(self.chat.clip, self.screen, self._sparse)


def _read_lines(lines: BinaryIO) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(lines, 1):
        try:
            yield number, line.decode()
        except UnicodeDecodeError as error:
            raise UsageError("a question on standard input is not UTF-8 text") from error
