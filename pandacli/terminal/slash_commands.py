"""The slash commands of `panda chat`: one function and one row of `COMMANDS` each."""

import os
import re
import shlex
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pandacli.chat.chat import count_turns
from pandacli.chat.film import moment
from pandacli.chat.transcript import check_transcript_path, read_transcript, write_transcript
from pandacli.errors import UsageError
from pandacli.inference.spec import check_choices
from pandacli.terminal.answering import show_segments, show_windows
from pandacli.video.clip import Clip, parse_length, parse_time

if TYPE_CHECKING:
    from pandacli.chat.chat import Chat
    from pandacli.terminal.repl import Repl

EXIT_WORDS = ("exit", "quit")  # leave without a slash
_SIMILAR = 0.75  # cutoff for get_close_matches: suggests /undo for /udno, nothing for /nope
_UNITS = "s|secs?|seconds?|m|mins?|minutes?"  # all but the first are refused
_SETTINGS = {"max-tokens": "2048", "temperature": "0.2", "seed": "1"}  # each with an example


@dataclass(frozen=True)
class Command:
    """A slash command; its names have their slash."""

    name: str
    arguments: str  # as shown by /help; "" takes none, "[...]" is optional, others are required
    help: str
    run: Callable[["Repl", str], None]  # called with the text after the name
    files: Literal["any", "video"] | None = None  # completions of the last argument
    words: Collection[str] = ()  # completions of the first argument
    aliases: tuple[str, ...] = ()

    @property
    def usage(self) -> str:
        return f"{self.name} {self.arguments}".rstrip()


def _show_help(repl: "Repl", _: str) -> None:
    width = max(len(command.usage) for command in COMMANDS)
    for command in COMMANDS:
        repl.screen.note(f"{command.usage:<{width}}  {command.help}", indent=width + 2)
    repl.screen.note("Enter asks, Alt-Enter begins a new line, Ctrl-C stops an answer")


def _frames(repl: "Repl", argument: str) -> None:
    clip = repl.chat.clip
    word, _, name = argument.partition(" ")
    if not argument:
        repl.screen.frames(clip.model_frames)
    elif word == "save" and name.strip():
        from pandacli.terminal.contact_sheet import check_sheet_path, contact_sheet, save_sheet

        path = parse_path(name.strip())
        check_sheet_path(path, clip.source.path)
        exists = path.exists()
        if repl.screen.confirm_overwrite(path):
            save_sheet(contact_sheet(clip.model_frames), path, replace=exists)
            repl.screen.note(f"saved {path}")
    elif not name and word.lstrip("-").isdecimal():
        num_frames = repl.parsers["frames"](word)
        repl.chat.open_clip(repl.sample(clip.source, num_frames=num_frames))
        repl.show_clip()
    else:
        raise UsageError("usage: /frames [N | save FILE]")


def _clip(repl: "Repl", argument: str) -> None:
    repl.switch_clip(clip_of(repl.chat, argument))


def clip_of(chat: "Chat", argument: str) -> Clip:
    """Return the clip that the argument of `/clip` names: a range, or #N of what is listed."""
    if number := re.fullmatch(r"#\s?(\d{1,9})", argument, re.ASCII):
        return moment(chat, int(number[1]))
    times = argument.split()
    if len(times) > 2 or "#" in argument:
        raise UsageError("usage: /clip [FROM [TO] | #N]")
    return Clip(chat.clip.source.path, *map(parse_time, times))


def _when(repl: "Repl", argument: str) -> None:
    repl.look(partial(show_segments, repl.chat, repl.screen, argument, pictures=repl.pictures))


def _every(repl: "Repl", argument: str) -> None:
    length, question = split_length(argument)
    repl.look(partial(show_windows, repl.chat, repl.screen, length, question, repl.remedy))


def split_length(argument: str) -> tuple[float, str]:
    """Return the seconds and the question in text like "10s What happens?"."""
    length, question = re.findall(rf"^(\S+(?:\s(?:{_UNITS})\b)?)\s*(.*)$", argument, re.DOTALL)[0]
    seconds = parse_length(length)
    if not question:
        raise UsageError("usage: /every LENGTH QUESTION", "such as /every 10s What happens?")
    return seconds, question


def _open_video(repl: "Repl", argument: str) -> None:
    repl.switch_clip(Clip(parse_path(argument)))


def _undo(repl: "Repl", _: str) -> None:
    turn = repl.chat.undo()
    repl.screen.note(f"took back: {turn.question}" if turn else "nothing to undo")


def _retry(repl: "Repl", _: str) -> None:
    chat = repl.chat
    turn = chat.undo()
    if turn is None:
        repl.screen.note("nothing to ask again")
        return
    count, choices = len(chat.turns), chat.choices
    if turn.scores and not choices:
        chat.choices = tuple(choice.text for choice in turn.scores.choices)
    repl.screen.question(turn.question)
    try:
        repl.ask(turn.question)
    finally:
        if len(chat.turns) == count:  # interrupted before the first word
            chat.turns.append(turn)
            chat.choices = choices
    new = chat.turns[-1]
    if turn.scores and new.scores and not choices:
        repl.screen.note("scores are always the same: /choices sets other choices")
    elif new == turn and not new.scores and chat.options.temperature == 0:
        repl.screen.note("at temperature 0 it is always the same: /set temperature 0.7")


def _choices(repl: "Repl", argument: str) -> None:
    chat = repl.chat
    before, chat.choices = chat.choices, split_choices(argument)
    if chat.choices:
        repl.screen.note(f"the next answer is one of: {' | '.join(chat.choices)}")
    elif before:
        repl.screen.note(f"cleared: {' | '.join(before)}")
    else:
        repl.screen.note("no choices are set; to answer the next question by one: /choices yes|no")


def split_choices(argument: str, what: str = "the choices") -> tuple[str, ...]:
    """Return the choices in text like yes|no, none in ""; a UsageError names them as `what`."""
    return check_choices(argument.split("|"), what) if argument else ()


def _reset(repl: "Repl", _: str) -> None:
    repl.chat.replace_turns([])
    repl.screen.note("forgotten; the clip stays")


def _set(repl: "Repl", argument: str) -> None:
    options = repl.chat.options
    values = {name: getattr(options, name.replace("-", "_")) for name in _SETTINGS}
    name, _, text = argument.partition(" ")
    name = name.lower().replace("_", "-")
    if not name:
        for name, value in values.items():
            repl.screen.note(f"{name:<12} {'-' if value is None else value}")
    elif name not in values:
        raise UsageError(f"there is no {name}; /set changes {', '.join(values)}")
    elif not text.strip():
        now = "not set" if values[name] is None else values[name]
        repl.screen.note(f"{name} is {now}; to change it: /set {name} {_SETTINGS[name]}")
    else:
        value = repl.parsers[name](text.strip())
        repl.chat.options = replace(options, **{name.replace("-", "_"): value})


def _save(repl: "Repl", argument: str) -> None:
    path = parse_path(argument)
    check_transcript_path(path)
    count = len(repl.chat.turns)
    if not count:
        raise UsageError("nothing has been said yet")
    if os.path.isdir(path):  # noqa: PTH112  (Path.is_dir raises for a name that is too long)
        raise UsageError(f"{path} is a folder", "name a file in it")
    if repl.screen.confirm_overwrite(path):
        write_transcript(repl.chat.transcript(), path)
        repl.screen.note(f"saved {count_turns(count)} to {path}")


def _load(repl: "Repl", argument: str) -> None:
    transcript = read_transcript(parse_path(argument))
    repl.chat.replace_turns(transcript.turns)
    repl.show_turns()
    if Path(transcript.video) != repl.chat.clip.source.path.absolute():
        repl.screen.notice(f"that was about {transcript.video}; /video goes there")


def _leave(_repl: "Repl", _: str) -> None:
    raise EOFError  # as Ctrl-D does


COMMANDS = (
    Command("/help", "", "this list", _show_help, aliases=("/?", "/h")),
    Command(
        "/frames", "[N | save FILE]", "show the frames, save them, use N", _frames, "any", ("save",)
    ),
    Command("/clip", "[FROM [TO] | #N]", "ask about another part, all, or a listed part", _clip),
    Command("/when", "QUESTION", "list the parts of the clip where the answer is yes", _when),
    Command("/every", "LENGTH QUESTION", "ask about each part: /every 10s What happens?", _every),
    Command("/video", "FILE", "ask about another video", _open_video, "video"),
    Command("/undo", "", "take the last question and its answer back", _undo),
    Command("/retry", "", "ask the last question again", _retry),
    Command(
        "/choices", "[YES|NO]", "possible answers to the next question; alone, clear them", _choices
    ),
    Command("/reset", "", "forget what was said", _reset),
    Command(
        "/set", "[NAME VALUE]", "show or set temperature, max-tokens, seed", _set, words=_SETTINGS
    ),
    Command("/stats", "", "what the last answer cost", lambda repl, _: repl.show_stats()),
    Command("/save", "FILE", "the conversation as .md to read, as .json to load", _save, "any"),
    Command("/load", "FILE", "go on with a conversation saved as .json", _load, "any"),
    Command("/exit", "", "leave; Ctrl-D does too", _leave, aliases=("/quit", "/q", "/bye")),
)
"""Every slash command, in the order of `/help`; completion and parsing read it too."""

_BY_NAME = {name: command for command in COMMANDS for name in (command.name, *command.aliases)}


def parse(line: str) -> tuple[Command, str]:
    """Return the command of a line and the text after its name; raise UsageError if it is wrong."""
    word, _, argument = line.strip().removeprefix("/").strip().partition(" ")
    name, argument = f"/{word.lower()}", argument.strip()
    if (command := _BY_NAME.get(name)) is None:
        near = get_close_matches(name, _BY_NAME, n=1, cutoff=_SIMILAR)
        hint = f"did you mean {near[0]}?" if near else "/help lists them"
        hint += " (a question that begins with / needs a space)"
        raise UsageError(f"/{word} is not a command", hint)
    required = bool(command.arguments) and not command.arguments.startswith("[")
    if (argument and not command.arguments) or (required and not argument):
        raise UsageError(f"usage: {command.usage}")
    return command, argument


def parse_path(argument: str) -> Path:
    """Return the file an argument names: all of it, or what is quoted; `~` is expanded."""
    if argument[:1] in ("'", '"'):
        with suppress(ValueError):
            (argument,) = shlex.split(argument)
    return Path(os.path.expanduser(argument))  # noqa: PTH111  (leaves an unknown ~user alone)
