"""The conversation without a terminal: a question a line comes in, an answer a line goes out."""

import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import TYPE_CHECKING, BinaryIO

from pandacli.errors import PandaError, UsageError
from pandacli.ui.chat.commands import WAYS_OUT, parse
from pandacli.ui.chat.talk import too_long
from pandacli.ui.report import Stopwatch, choice, cut_off

if TYPE_CHECKING:
    from pandacli.ui.chat.talk import Talk
    from pandacli.ui.console import Screen


def converse(
    talk: "Talk",
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
        with watch.waiting_for("model and clip"):
            if not talk.wait(0):
                with screen.stage(talk.doing) as say:
                    while not talk.wait(0.2):
                        say(talk.doing)
        watch.asked()
        forgotten = talk.forgotten
        try:
            with closing(talk.ask(question)) as stream:
                if not announced and (chosen := choice(talk.panda.result(), quant)):
                    screen.notice(f"{talk.model} runs {chosen}")
                announced = True
                if talk.forgotten > forgotten:
                    screen.notice(too_long(talk.forgotten))
                screen.stream(stream, one_line=True)
        finally:
            _keep(talk, screen)
        answer = stream.answer
        if sentence := cut_off(answer, talk.manner.max_tokens, "raise --max-tokens"):
            screen.notice(sentence)
        if stats:
            screen.stats(answer.stats, talk.subject.frames, watch)
        watch.answered()


def _keep(talk: "Talk", screen: "Screen") -> None:
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
