"""What begins with a slash: which commands there are, and what a line asks for."""

import os
import shlex
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from pandacli.errors import UsageError


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
