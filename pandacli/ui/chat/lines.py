"""The conversation without a terminal: a question a line comes in, an answer a line goes out."""

import sys
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, BinaryIO

from pandacli.errors import UsageError

if TYPE_CHECKING:
    from pandacli.ui.chat.talk import Talk
    from pandacli.ui.console import Screen


def converse(talk: "Talk", screen: "Screen", *, stats: bool = False) -> None:
    """Answer the questions on standard input, each seeing those before it.

    Args:
        talk: The conversation.
        screen: Where answers go.
        stats: Whether what an answer cost is said on stderr.

    Raises:
        PandaError: A question cannot be answered; what came before it is.
    """
    if sys.stdin is None:
        raise UsageError("standard input is closed")
    for question in _questions(sys.stdin.buffer):
        if not talk.wait(0):
            with screen.stage(talk.doing):
                while not talk.wait(0.2):
                    pass
        with closing(talk.ask(question)) as stream:
            screen.stream(stream, one_line=True)
        answer = stream.answer
        if answer.finish_reason == "length":
            screen.notice(f"the answer was cut off after {answer.stats.answer_tokens} tokens")
        talk.keep()
        if stats:
            screen.stats(answer, talk.subject.frames)


def _questions(lines: BinaryIO) -> Iterator[str]:
    for line in lines:
        try:
            question = line.decode().strip()
        except UnicodeDecodeError as error:
            raise UsageError("a question on standard input is not UTF-8 text") from error
        if question:
            yield question
