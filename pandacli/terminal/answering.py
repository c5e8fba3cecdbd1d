"""A question of a chat on the screen, at its prompt and over a pipe alike."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from pandacli.chat.chat import dropped_turns_notice
from pandacli.errors import PandaError
from pandacli.terminal import report

if TYPE_CHECKING:
    from pandacli.chat.chat import Chat
    from pandacli.inference.spec import AnswerStream, Scores, ScoringStats
    from pandacli.terminal.console import Screen


@contextmanager
def asked(
    chat: "Chat",
    screen: "Screen",
    question: str,
    watch: report.Stopwatch,
    quant: str | None,
    remedy: str,
) -> "Iterator[AnswerStream]":
    """Wait for model and clip, ask, and yield the stream; the notice of a cut one has `remedy`."""
    dropped = chat.dropped
    wait(chat, screen, watch)
    with closing(chat.ask(question)) as stream:
        announce(chat, screen, quant, dropped)
        yield stream
    if cut := report.truncation_notice(stream.answer, chat.options.max_tokens, remedy):
        screen.notice(cut)


def score(
    chat: "Chat", screen: "Screen", question: str, watch: report.Stopwatch, quant: str | None
) -> "tuple[Scores, ScoringStats]":
    """Wait for model and clip, and answer by the likeliest of the choices that are set."""
    dropped = chat.dropped
    wait(chat, screen, watch)
    with screen.status("scoring"):
        scored = chat.score(question)
    announce(chat, screen, quant, dropped)
    return scored


def wait(chat: "Chat", screen: "Screen", watch: report.Stopwatch) -> None:
    with watch.measure("model and clip"):
        if not chat.wait(0):
            with screen.status(chat.status) as say:
                while not chat.wait(0.2):
                    say(chat.status)
    watch.start_answer()


def announce(chat: "Chat", screen: "Screen", quant: str | None, dropped: int) -> None:
    """Print what was chosen for the user, who asked for `quant`, and what was forgotten."""
    if quant is not None and (chosen := report.placement_notice(chat.panda.result(), quant)):
        screen.notice(f"{chat.model} runs {chosen}")
    if chat.dropped > dropped:
        screen.notice(dropped_turns_notice(chat.dropped))


def save_log(chat: "Chat", screen: "Screen") -> None:
    try:
        chat.save_log()
    except PandaError as error:
        screen.notice(f"the conversation is not kept: {error.message}")
