"""The loop of `panda chat` on a terminal."""

import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from shutil import get_terminal_size
from time import monotonic
from typing import TYPE_CHECKING, Any

from pandacli.chat.chat import count_turns
from pandacli.errors import PandaError
from pandacli.terminal import report
from pandacli.terminal.answering import announce, asked, save_log, score, show_notices, wait
from pandacli.terminal.console import can_encode
from pandacli.terminal.slash_commands import EXIT_WORDS, parse
from pandacli.terminal.text import ASCII, WordWrapper, cells, sanitize, sanitize_line
from pandacli.terminal.waiting import waiting_line

if TYPE_CHECKING:
    from pandacli.chat.chat import Chat, SampledClip
    from pandacli.terminal.console import Screen
    from pandacli.terminal.prompt import Prompt
    from pandacli.video import Clip

_DOUBLE_PRESS = 1.0  # seconds after an interrupt in which another Ctrl-C counts as the same


class Repl:
    """Reads questions and slash commands until the user leaves.

    `sample` takes a clip and `num_frames`; `parsers` read the options of `/set`, and "frames".
    """

    remedy = "see /set max-tokens"  # for an answer that is cut off

    def __init__(
        self,
        chat: "Chat",
        prompt: "Prompt",
        screen: "Screen",
        sample: "Callable[..., SampledClip]",
        parsers: Mapping[str, Callable[[str], Any]],
        *,
        quant: str = "auto",
        pictures: bool = True,
        stats: bool = False,
    ) -> None:
        self.chat, self.screen, self.sample, self.parsers = chat, screen, sample, parsers
        self._prompt = prompt
        self._quant: str | None = quant  # None once the placement is announced
        self.pictures, self._stats = pictures, stats
        self._last: list[tuple[str, str]] = []  # the stats of the last answer
        self._sparse: set[Clip] = set()  # clips that are known to be sampled sparsely
        self._interrupted = -_DOUBLE_PRESS
        self._answering = self._leaving = self._explained = False
        chat.on_change = prompt.refresh

    def run(self) -> None:
        """Run until the user leaves; raises PandaError if the model cannot be loaded."""
        if not self.screen.quiet:
            self.show_clip()
            words = "Type your question now; /help for commands."
            self.screen.note(f"Loading {self.chat.model}. {words}")
        if self.chat.turns:
            self.show_turns()
        running = True
        while running:
            try:
                running = self._handle_line()
            except KeyboardInterrupt:
                with _sigint_ignored():
                    self._interrupted = monotonic()
                    if not self._answering:
                        self.screen.error_line("")  # the cursor is behind an echoed ^C
                    self.screen.note("stopped")
            except PandaError as error:
                if error is not self.chat.error:
                    self._show_error(error)
            with _sigint_ignored():
                save_log(self.chat, self.screen)
            if running and (failure := self.chat.error) is not None:
                self._recover(failure)

    def _handle_line(self) -> bool:
        """Read a line and act on it; whether to continue."""
        self._answering = False
        try:
            line = self._prompt.read()
        except EOFError:
            return False
        except KeyboardInterrupt:
            if monotonic() - self._interrupted < _DOUBLE_PRESS:
                return True
            if not self._leaving:
                self.screen.note("press Ctrl-C again to leave, or Ctrl-D")
            self._leaving = not self._leaving
            return self._leaving
        self._leaving = False
        question = line.strip()
        if line.startswith("/") or question.lower() in EXIT_WORDS:
            command, argument = parse(line)
            try:
                command.run(self, argument)
            except EOFError:
                return False
        elif question:
            self.ask(question)
        return True

    def _recover(self, failure: BaseException) -> None:
        """Return to the previous clip if the model cannot hold this one; else raise `failure`."""
        if not isinstance(failure, PandaError) or not self.chat.reopen_previous():
            raise failure
        self._show_error(failure)
        clip = self.chat.clip
        self.screen.note(f"back to {report.clip_line(clip.source, clip.frames.info)}")

    def _show_error(self, error: PandaError) -> None:
        hint = error.hint
        for option, word in (("--from", "FROM"), ("--to", "TO"), ("--frames", "/frames")):
            hint = hint and hint.replace(option, word)
        self.screen.error(error.message, hint, command=error.command)

    def ask(self, question: str) -> None:
        """Ask a question and stream its answer, or score the choices that are set."""
        self._answering = True  # the terminal echoes no ^C now
        chat, watch, stream = self.chat, report.Stopwatch(), None
        try:
            if chat.choices:
                scores, stats = score(chat, self.screen, question, watch, self._quant)
                self._last = report.scoring_rows(stats, chat.clip.frames, watch)
                self._stream([scores.best.text])
                self.screen.choice_bars(scores)
            else:
                with asked(chat, self.screen, question, watch, self._quant, self.remedy) as stream:
                    self._quant = None
                    self._stream(stream)
            self._quant = None
            chat.start_saving_prefix()
        finally:
            if stream is not None and stream.stats is not None:
                self._last = report.stats_rows(stream.stats, chat.clip.frames, watch)
        if self._stats:
            self.show_stats()

    def look(self, show: Callable[[], None]) -> None:
        """Run one of the commands that list parts of the video; once, say how they are opened."""
        self._answering, chat = True, self.chat
        wait(chat, self.screen, report.Stopwatch())
        announce(chat, self.screen, self._quant, chat.dropped)
        self._quant = None
        try:
            show()
        finally:
            if chat.moments and not self._explained:
                self._explained = True
                self.screen.note("/clip #1 opens the first of these; /clip alone, the whole video")

    def _stream(self, pieces: Iterable[str]) -> None:
        """Show an answer; an interrupted one ends its line with the unfinished word."""
        words = WordWrapper(lambda: self.screen.out.width)
        try:  # sanitized before it is wrapped: an escaped character is wider
            self.screen.stream(words.lines(map(sanitize, pieces)))
        except (KeyboardInterrupt, PandaError):
            if words.in_line:
                with _sigint_ignored():
                    self.screen.line(words.flush())
            raise

    def switch_clip(self, clip: "Clip") -> None:
        """Open another clip, after asking whether to keep the turns."""
        sampled = self.sample(clip, num_frames=self.chat.clip.num_frames)
        if self.chat.turns:
            turns = count_turns(len(self.chat.turns))
            try:
                keep = self.screen.ask_yes_no(f"keep the conversation ({turns})? Ctrl-C cancels")
            except KeyboardInterrupt:
                self.screen.error_line("")
                keep = None
            if keep is None:
                self.screen.note(f"still on {self.chat.clip.source.path.name}")
                return
            if not keep:
                self.chat.replace_turns([])
        self.chat.open_clip(sampled)
        self.show_clip()

    def show_clip(self) -> None:
        """Show what clip is open, with its frames."""
        clip = self.chat.clip
        self.screen.note(report.clip_line(clip.source, clip.frames.info))
        show_notices(clip, self.screen, self._sparse)
        if self.pictures:
            self.screen.frames(clip.model_frames)

    def show_turns(self) -> None:
        """Show the last two turns of an earlier conversation."""
        turns = self.chat.turns
        if len(turns) > 2:
            self.screen.note(f"({count_turns(len(turns) - 2)} before)")
        for turn in turns[-2:]:
            self.screen.question(turn.question)
            self._stream([turn.answer])
            if turn.scores:
                self.screen.choice_bars(turn.scores)
            if turn.finish_reason == "interrupted":
                self.screen.note("(interrupted)")

    def show_stats(self) -> None:
        """Show the stats of the last answer and how full the context is."""
        if not self._last:
            self.screen.note("no answer yet")
            return
        self.screen.table(self._last)
        if tokens := self.chat.tokens():
            self.screen.note(f"the context holds {tokens[0]:,} of {tokens[1]:,} tokens")


@contextmanager
def _sigint_ignored() -> Iterator[None]:
    """Ignore Ctrl-C for the block: it is often pressed twice."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def toolbar(chat: "Chat") -> str:
    """Return the line under the prompt: the model, and how full its context is."""
    parts = [chat.model]
    if chat.choices:
        parts.append(f"{len(chat.choices)} choices")
    if status := chat.status:
        (since, step), now = chat.waiting, monotonic()
        room = get_terminal_size().columns - cells(" · ".join(["", *parts, ""])) - 1
        parts.append(waiting_line(status, now - since, step, now, room))
    elif tokens := chat.tokens():
        panda = chat.panda.result()
        if panda.quant != "none":
            parts.append(f"{panda.quant} {panda.engine}")
        parts.append(f"{tokens[0]:,} of {tokens[1]:,} tokens")
    text = " " + sanitize_line(" · ".join(parts))
    return text if can_encode(sys.stdout, text) else text.translate(ASCII)
