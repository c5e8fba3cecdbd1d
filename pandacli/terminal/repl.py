"""The conversation in a terminal."""

import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from pandacli.chat.chat import count_turns, too_long
from pandacli.chat.transcript import (
    check_transcript_path,
    read_transcript,
    write_transcript,
)
from pandacli.errors import PandaError, UsageError
from pandacli.terminal.console import encodes
from pandacli.terminal.frame_list import clip_line
from pandacli.terminal.report import (
    Stopwatch,
    placement_notice,
    sparse_sampling_notice,
    truncation_notice,
)
from pandacli.terminal.slash_commands import COMMANDS, WAYS_OUT, file_named, parse
from pandacli.terminal.text import Wrapped, sanitize, sanitize_line
from pandacli.video.clip import Clip, parse_time

if TYPE_CHECKING:
    from pandacli.chat.chat import Chat, SampledClip
    from pandacli.inference.answer import Stats
    from pandacli.terminal.console import Screen
    from pandacli.terminal.prompt import Prompt
    from pandacli.video import Frames

_EXAMPLES = {"max_tokens": "2048", "temperature": "0.2", "seed": "1"}
_AGAIN = 1.0
"""Seconds after an interruption in which another Ctrl-C still means the same."""


class Look(Protocol):
    """Samples the frames of a clip."""

    def __call__(self, clip: Clip, *, num_frames: int) -> "SampledClip":
        """Returns what is looked at."""


class Repl:
    """Reads what the user types, and answers, until they leave.

    Args:
        talk: The conversation.
        prompt: Where is typed.
        screen: Where is shown.
        look: Samples the frames of another clip.
        read: Of each setting of `/set`, and of the number of frames, what makes its value of a
            text; raises UsageError.
        quant: What the user asked for.
        pictures: Whether frames are drawn when a clip is opened.
        stats: Whether what an answer cost is shown under it.
    """

    def __init__(
        self,
        talk: "Chat",
        prompt: "Prompt",
        screen: "Screen",
        look: Look,
        read: Mapping[str, Callable[[str], Any]],
        *,
        quant: str = "auto",
        pictures: bool = True,
        stats: bool = False,
    ) -> None:
        self._talk, self._prompt, self._screen = talk, prompt, screen
        self._look, self._read = look, read
        self._quant, self._pictures, self._stats = quant, pictures, stats
        self._last: tuple[Stats, Frames, Stopwatch] | None = None
        talk.changed = prompt.refresh
        self._announced = False
        self._stopped = -_AGAIN
        self._asking = False
        self._leaving = False

    def run(self) -> None:
        """Chat.

        Raises:
            PandaError: The model cannot be loaded.
        """
        if not self._screen.quiet:
            self._show_clip()
            model = self._talk.model
            self._screen.note(f"Loading {model}. Type your question now; /help for commands.")
        if self._talk.turns:
            self._show_turns()
        going_on = True
        while going_on:
            try:
                going_on = self._take_turn()
            except KeyboardInterrupt:
                with _undisturbed():
                    self._stopped = monotonic()
                    self._screen.note("stopped", above=not self._asking)
            except PandaError as error:
                if error is not self._talk.error:
                    self._complain(error)
            with _undisturbed():
                self._keep()
            if going_on and (failure := self._talk.error) is not None:
                self._turn_back(failure)

    def _take_turn(self) -> bool:
        """Read a line and do what it asks for; whether to go on."""
        self._asking = False
        try:
            line = self._prompt.read()
        except EOFError:
            return False
        except KeyboardInterrupt:
            if monotonic() - self._stopped < _AGAIN:
                return True
            if not self._leaving:
                self._screen.note("press Ctrl-C again to leave, or Ctrl-D")
            self._leaving = not self._leaving
            return self._leaving
        self._leaving = False
        if line.startswith("/") or line.strip().lower() in WAYS_OUT:
            return self._obey(*parse(line))
        if line.strip():
            self._ask(line.strip())
        return True

    def _turn_back(self, failure: BaseException) -> None:
        """Go back to the clip before, where the model cannot take another one.

        Raises:
            PandaError: There is none; no question can be answered.
        """
        if not isinstance(failure, PandaError) or not self._talk.turn_back():
            raise failure
        self._complain(failure)
        subject = self._talk.subject
        self._screen.note(f"back to {clip_line(subject.clip, subject.frames.info)}")

    def _complain(self, error: PandaError) -> None:
        hint = error.hint
        for option, word in (("--from", "FROM"), ("--to", "TO"), ("--frames", "/frames")):
            hint = hint and hint.replace(option, word)
        self._screen.error(error.message, hint, command=error.command)

    def _ask(self, question: str) -> None:
        self._asking = True  # and so no ^C is echoed
        talk, forgotten = self._talk, self._talk.forgotten
        watch = Stopwatch()
        with watch.measure("model and clip"):
            self._wait()
        watch.start_answer()
        stream = talk.ask(question)
        try:
            with closing(stream):
                if talk.forgotten > forgotten:
                    self._screen.notice(too_long(talk.forgotten))
                self._stream(stream)
        finally:
            if stream.stats is not None:
                self._last = stream.stats, talk.subject.frames, watch
        talk.remember()
        if sentence := truncation_notice(
            stream.answer, talk.manner.max_tokens, "see /set max-tokens"
        ):
            self._screen.notice(sentence)
        if self._stats:
            self._show_stats()

    def _stream(self, pieces: Iterable[str]) -> None:
        """Show an answer; where it is cut, the line ends with what there is of it."""
        words = Wrapped(lambda: self._screen.out.width)
        try:
            # what is spelt out takes more room than it did
            self._screen.stream(words.lines(map(sanitize, pieces)))
        except (KeyboardInterrupt, PandaError):
            if words.begun:
                with _undisturbed():
                    self._screen.line(words.rest())
            raise

    def _wait(self) -> None:
        """Show what is being made ready until it is."""
        talk = self._talk
        if not talk.wait(0):
            with self._screen.status(talk.doing) as say:
                while not talk.wait(0.2):
                    say(talk.doing)
        if not self._announced and talk.error is None:
            self._announced = True
            if chosen := placement_notice(talk.panda.result(), self._quant):
                self._screen.notice(f"{talk.model} runs {chosen}")

    def _keep(self) -> None:
        try:
            self._talk.keep()
        except PandaError as error:
            self._screen.notice(f"the conversation is not kept: {error.message}")

    def _obey(self, name: str, rest: str) -> bool:
        """Do what a command asks for; whether to go on."""
        match name:
            case "/exit":
                return False
            case "/help":
                width = max(len(command.usage) for command in COMMANDS.values())
                for command in COMMANDS.values():
                    line = f"{command.usage:<{width}}  {command.does}"
                    self._screen.note(line, indent=width + 2)
                self._screen.note("Enter asks, Alt-Enter begins a new line, Ctrl-C stops an answer")
            case "/frames":
                self._frames(rest)
            case "/clip":
                self._turn_to(self._part(rest.split()), self._talk.subject.num_frames)
            case "/video":
                self._turn_to(Clip(file_named(rest)), self._talk.subject.num_frames)
            case "/undo":
                turn = self._talk.undo()
                self._screen.note(f"took back: {turn.question}" if turn else "nothing to undo")
            case "/retry":
                self._retry()
            case "/reset":
                self._talk.replace([])
                self._screen.note("forgotten; the clip stays")
            case "/set":
                self._set(rest)
            case "/stats":
                self._show_stats()
            case "/save":
                self._save(file_named(rest))
            case "/load":
                self._load(file_named(rest))
        return True

    def _frames(self, rest: str) -> None:
        if not rest:
            self._screen.frames(self._talk.subject.seen)
            return
        word, _, name = rest.partition(" ")
        if not name and word != "save":
            self._talk.turn_to(self._look(self._talk.subject.clip, num_frames=self._count(word)))
            self._show_clip()
            return
        if word != "save" or not name.strip():
            raise UsageError(f"usage: {COMMANDS['/frames'].usage}")
        path = file_named(name.strip())
        from pandacli.terminal.contact_sheet import check_sheet_path, contact_sheet, save_sheet

        subject = self._talk.subject
        check_sheet_path(path, subject.clip.path)
        there = path.exists()
        if not self._screen.confirm_overwrite(path):
            return
        save_sheet(contact_sheet(subject.seen), path, replace=there)
        self._screen.note(f"saved {path}")

    def _count(self, word: str) -> int:
        """How many frames are asked for."""
        if not word.lstrip("-").isdecimal():
            raise UsageError(f"usage: {COMMANDS['/frames'].usage}")
        count: int = self._read["frames"](word)
        return count

    def _part(self, times: list[str]) -> Clip:
        if len(times) > 2:
            raise UsageError(f"usage: {COMMANDS['/clip'].usage}")
        return Clip(self._talk.subject.clip.path, *map(parse_time, times))

    def _turn_to(self, clip: Clip, num_frames: int) -> None:
        """Chat about another clip; the user says whether what was said stays."""
        subject = self._look(clip, num_frames=num_frames)
        if turns := len(self._talk.turns):
            try:
                keep = self._screen.ask_yes_no(
                    f"keep the conversation ({count_turns(turns)})? Ctrl-C cancels"
                )
            except KeyboardInterrupt:
                self._screen.error_line("")
                keep = None
            if keep is None:
                self._screen.note(f"still on {self._talk.subject.clip.path.name}")
                return
            if not keep:
                self._talk.replace([])
        self._talk.turn_to(subject)
        self._show_clip()

    def _retry(self) -> None:
        turn = self._talk.undo()
        if turn is None:
            self._screen.note("nothing to ask again")
            return
        turns = len(self._talk.turns)
        self._screen.question(turn.question)
        try:
            self._ask(turn.question)
        finally:
            if len(self._talk.turns) == turns:  # stopped before the first word
                self._talk.turns.append(turn)
        if self._talk.turns[-1] == turn and self._talk.manner.temperature == 0:
            self._screen.note("at temperature 0 it is always the same: /set temperature 0.7")

    def _set(self, rest: str) -> None:
        manner = asdict(self._talk.manner)
        name, _, value = rest.partition(" ")
        name = name.lower().replace("_", "-")
        if not rest:
            for field, current in manner.items():
                self._screen.note(f"{_dashed(field):<12} {'-' if current is None else current}")
            return
        field = name.replace("-", "_")
        if field not in manner:
            raise UsageError(f"there is no {name}; /set changes {', '.join(map(_dashed, manner))}")
        if not value.strip():
            now = "not set" if manner[field] is None else f"{manner[field]}"
            self._screen.note(f"{name} is {now}; to change it: /set {name} {_EXAMPLES[field]}")
            return
        setattr(self._talk.manner, field, self._read[name](value.strip()))

    def _show_stats(self) -> None:
        if self._last is None:
            self._screen.note("no answer yet")
            return
        self._screen.stats(*self._last)
        if tokens := self._talk.tokens():
            self._screen.note(f"the context holds {tokens[0]:,} of {tokens[1]:,} tokens")

    def _save(self, path: Path) -> None:
        check_transcript_path(path)
        turns = len(self._talk.turns)
        if not turns:
            raise UsageError("nothing has been said yet")
        if os.path.isdir(path):  # noqa: PTH112  (a name that cannot be is told below)
            raise UsageError(f"{path} is a folder", "name a file in it")
        if not self._screen.confirm_overwrite(path):
            return
        write_transcript(self._talk.transcript(), path)
        self._screen.note(f"saved {count_turns(turns)} to {path}")

    def _load(self, path: Path) -> None:
        transcript = read_transcript(path)
        self._talk.replace(transcript.turns)
        self._show_turns()
        if Path(transcript.video) != self._talk.subject.clip.path.absolute():
            self._screen.notice(f"that was about {transcript.video}; /video goes there")

    def _show_clip(self) -> None:
        subject = self._talk.subject
        self._screen.note(clip_line(subject.clip, subject.frames.info))
        for sentence in subject.frames.notices:
            self._screen.notice(sentence)
        if sparse := sparse_sampling_notice(subject.frames, "/clip FROM TO looks closer"):
            self._screen.notice(sparse)
        if self._pictures:
            self._screen.frames(subject.seen)

    def _show_turns(self) -> None:
        """The last turns, so that the user sees where the conversation stands."""
        turns = self._talk.turns
        if len(turns) > 2:
            self._screen.note(f"({count_turns(len(turns) - 2)} before)")
        for turn in turns[-2:]:
            self._screen.question(turn.question)
            self._stream([turn.answer])
            if turn.finish_reason == "interrupted":
                self._screen.note("(interrupted)")


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let no Ctrl-C come between what has to be finished; who presses it once often does twice."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _dashed(field: str) -> str:
    return field.replace("_", "-")


def toolbar(talk: "Chat") -> str:
    """What stands under the prompt: the model, and how full its context is."""
    dot = "·" if encodes(sys.stdout, "·") else "-"
    more = "…" if encodes(sys.stdout, "…") else "..."
    words = [sanitize_line(talk.model)]
    if talk.doing:
        words.append(f"{sanitize_line(talk.doing)}{more}")
    elif tokens := talk.tokens():
        panda = talk.panda.result()
        if panda.quant != "none":
            words.append(f"{panda.quant} {panda.engine}")
        words.append(f"{tokens[0]:,} of {tokens[1]:,} tokens")
    return " " + f" {dot} ".join(words)
