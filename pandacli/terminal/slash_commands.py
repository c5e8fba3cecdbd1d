"""The conversation without a terminal: a question a line comes in, an answer a line goes out.

What begins with a slash: which commands there are, and what a line asks for.
"""

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from pandacli.chat.chat import too_long
from pandacli.errors import PandaError, UsageError
from pandacli.terminal.report import Stopwatch, placement_notice, truncation_notice

if TYPE_CHECKING:
    from pandacli.chat.chat import Chat
    from pandacli.terminal.console import Screen


@dataclass(frozen=True)
class Command:
    """A slash command.

    Attributes:
        name: With its slash.
        takes: What may follow it.
        does: In a few words.
    """

    name: str
    takes: str
    does: str

    @property
    def usage(self) -> str:
        """How it is written."""
        return f"{self.name} {self.takes}".rstrip()


COMMANDS = {
    command.name: command
    for command in (
        Command("/help", "", "this list"),
        Command("/frames", "[N | save FILE]", "show or save the frames, or look at N of them"),
        Command("/clip", "[FROM [TO]]", "ask about another part of the video, or all of it"),
        Command("/video", "FILE", "ask about another video"),
        Command("/undo", "", "take the last question and its answer back"),
        Command("/retry", "", "ask the last question again"),
        Command("/reset", "", "forget what was said"),
        Command("/set", "[NAME VALUE]", "temperature, max-tokens or seed; alone shows them"),
        Command("/stats", "", "what the last answer cost"),
        Command("/save", "FILE", "the conversation as .md to read, as .json to load"),
        Command("/load", "FILE", "go on with a conversation saved as .json"),
        Command("/exit", "", "leave; Ctrl-D does too"),
    )
}
_ALIASES = {"/quit": "/exit", "/q": "/exit", "/bye": "/exit", "/?": "/help", "/h": "/help"}
_ALIKE = 0.75  # of 1: /udno is meant for /undo, /nope for nothing
WAYS_OUT = ("exit", "quit")
"""Words that leave without their slash."""


def parse(line: str) -> tuple[str, str]:
    """The command in a line, and the rest of it.

    Raises:
        UsageError: There is no such command, or too little or too much follows it.
    """
    word, _, rest = line.strip().removeprefix("/").strip().partition(" ")
    name = f"/{word.lower()}"
    name = _ALIASES.get(name, name)
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, n=1, cutoff=_ALIKE)
        start = f"did you mean {near[0]}?" if near else "/help lists them"
        raise UsageError(
            f"/{word} is not a command", f"{start} (a question that begins with / needs a space)"
        )
    command, rest = COMMANDS[name], rest.strip()
    if (rest and not command.takes) or (not rest and command.takes[:1].isupper()):
        raise UsageError(f"usage: {command.usage}")
    return name, rest


def file_named(rest: str) -> Path:
    """The file that follows a command: all of the rest, or what is between quotes."""
    name = rest
    if rest[:1] in ("'", '"'):
        with suppress(ValueError):
            (name,) = shlex.split(rest)
    return Path(os.path.expanduser(name))  # noqa: PTH111  (leaves an unknown ~user alone)


def answer_lines(
    talk: "Chat",
    screen: "Screen",
    *,
    quant: str = "auto",
    stats: bool = False,
    watch: Stopwatch | None = None,
) -> None:
    """Answer the questions on standard input, each seeing those before it.

    Args:
        talk: The conversation.
        screen: Where answers go.
        quant: What the user asked for.
        stats: Whether what an answer cost is said on stderr.
        watch: Measures the wait for the first answer; None to begin now.

    Raises:
        PandaError: A question cannot be answered; what came before it is.
    """
    if sys.stdin is None:
        raise UsageError("standard input is closed")
    if sys.stdin.isatty():
        screen.notice("type a question a line; Ctrl-D ends")
    announced = False
    watch = watch or Stopwatch()
    questions = _questions(sys.stdin.buffer)
    while True:
        with watch.paused():
            question = next(questions, None)
        if question is None:
            return
        with watch.measure("model and clip"):
            if not talk.wait(0):
                with screen.status(talk.doing) as say:
                    while not talk.wait(0.2):
                        say(talk.doing)
        watch.start_answer()
        forgotten = talk.forgotten
        try:
            with closing(talk.ask(question)) as stream:
                if not announced and (chosen := placement_notice(talk.panda.result(), quant)):
                    screen.notice(f"{talk.model} runs {chosen}")
                announced = True
                if talk.forgotten > forgotten:
                    screen.notice(too_long(talk.forgotten))
                screen.stream(stream, one_line=True)
        finally:
            _keep(talk, screen)
        answer = stream.answer
        if sentence := truncation_notice(answer, talk.manner.max_tokens, "raise --max-tokens"):
            screen.notice(sentence)
        if stats:
            screen.stats(answer.stats, talk.subject.frames, watch)
        watch.end_answer()


def _keep(talk: "Chat", screen: "Screen") -> None:
    try:
        talk.keep()
    except PandaError as error:
        screen.notice(f"the conversation is not kept: {error.message}")


def _questions(lines: BinaryIO) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise UsageError("a question on standard input is not UTF-8 text") from error
        if text.strip().lower() in WAYS_OUT:
            return
        if text.startswith("/"):
            with suppress(UsageError):  # no command at all
                if parse(text)[0] == "/exit":
                    return
            raise UsageError(
                f"line {number}: {text.strip()} works only where input and output are a terminal",
                "a question that begins with / needs a space in front",
            )
        if question := text.strip():
            yield question
