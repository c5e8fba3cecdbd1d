"""`panda chat` over a pipe: each line of the input is a question, each of the output its answer."""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

from pandacli.errors import UsageError
from pandacli.terminal import report
from pandacli.terminal.answering import asked, save_log, score
from pandacli.terminal.slash_commands import EXIT_WORDS, parse, split_choices

if TYPE_CHECKING:
    from pandacli.chat.chat import Chat
    from pandacli.terminal.console import Screen


def answer_lines(
    chat: "Chat",
    screen: "Screen",
    *,
    quant: str | None = "auto",
    stats: bool = False,
    watch: report.Stopwatch | None = None,
) -> None:
    """Answer each line of standard input with one line; raises PandaError at the first failure."""
    if sys.stdin is None:
        raise UsageError("standard input is closed")
    if sys.stdin.isatty():
        screen.notice("type a question a line; Ctrl-D ends")
    watch = watch or report.Stopwatch()
    questions = _read_questions(sys.stdin.buffer, chat)
    while True:
        with watch.paused():
            question = next(questions, None)
        if question is None:
            return
        try:
            if chat.choices:
                scores, scoring = score(chat, screen, question, watch, quant)
                screen.stream([scores.best.text], one_line=True)
                screen.choice_bars(scores)
                rows = report.scoring_rows(scoring, chat.clip.frames, watch)
            else:
                with asked(chat, screen, question, watch, quant, "raise --max-tokens") as stream:
                    screen.stream(stream, one_line=True)
                rows = report.stats_rows(stream.answer.stats, chat.clip.frames, watch)
        finally:
            save_log(chat, screen)
        quant = None
        if stats:
            screen.table(rows)
        watch.end_answer()


def _read_questions(lines: BinaryIO, chat: "Chat") -> Iterator[str]:
    """Yield the questions of standard input, up to an exit word; `/choices` sets those of `chat`.

    Any other slash command is an error.
    """
    for number, line in enumerate(lines, 1):
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise UsageError("a question on standard input is not UTF-8 text") from error
        if text.startswith("/") or text.strip().lower() in EXIT_WORDS:
            name, argument = _parse(text)
            if name == "/exit":
                return
            if name == "/choices":
                chat.choices = split_choices(argument, f"line {number}: the choices")
                continue
            raise UsageError(
                f"line {number}: {text.strip()} works only where input and output are a terminal",
                "a question that begins with / needs a space in front",
            )
        if question := text.strip():
            yield question


def _parse(line: str) -> tuple[str, str]:
    """The name of a slash command and what follows it; empty for a wrong one."""
    try:
        command, argument = parse(line)
    except UsageError:
        return "", ""
    return command.name, argument
