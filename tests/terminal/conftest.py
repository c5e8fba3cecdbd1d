"""A fake terminal and clock, and a REPL driven by a script."""

import io
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pyte
import pytest

from pandacli.chat.chat import Chat
from pandacli.cli import config
from pandacli.cli import options as options  # it registers the readers
from pandacli.terminal.console import Screen
from pandacli.terminal.repl import Repl
from tests.chat.conftest import StartChat, sampled_clip
from tests.chat.conftest import interrupt_after as interrupt_after
from tests.chat.conftest import panda as panda
from tests.chat.conftest import source as source
from tests.chat.conftest import start_chat as start_chat

RunRepl = Callable[..., Chat]
Capture = pytest.CaptureFixture[str]


class Clock:
    """A clock that tests set."""

    now = 1000.0

    def __call__(self):
        return self.now


class Tty(io.StringIO):
    """Records what a terminal receives."""

    def isatty(self):
        return True

    def screen(self, columns=80, rows=24):
        """Return the screen after all of it."""
        screen = pyte.Screen(columns, rows)
        pyte.Stream(screen).feed(self.getvalue().replace("\n", "\r\n"))
        return screen


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def tty(monkeypatch):
    """Makes stderr a terminal; in the test itself, because pytest gives every phase a stderr."""

    def attach(**environment):
        terminal = Tty()
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.delenv("NO_COLOR", raising=False)
        usual = {"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}
        for name, value in (usual | environment).items():
            monkeypatch.setenv(name, value)
        return terminal

    return attach


class ScriptedPrompt:
    """A prompt that reads these lines, then Ctrl-D.

    An exception stands for the key that raises it; a function is called and returns the line.
    """

    def __init__(self, *lines: object) -> None:
        self._lines: Iterator[object] = iter(lines)

    def read(self) -> str:
        line = next(self._lines, EOFError())
        if callable(line):
            line = line()
        if isinstance(line, BaseException):
            raise line
        return str(line)

    def refresh(self) -> None:
        pass


@pytest.fixture
def type_reply(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets what is typed after a yes/no question; nothing at first."""

    def type_reply(text: str) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO(text))

    type_reply("")
    return type_reply


@pytest.fixture
def run_repl(start_chat: StartChat, type_reply: Callable[[str], None]) -> RunRepl:
    """Runs a REPL on these lines to its end."""
    del type_reply  # its empty input

    def run(*lines: object, sample: Any = sampled_clip, stats: bool = False, **more: Any) -> Chat:
        chat = start_chat(**more)
        chat.wait(10)
        names = ("temperature", "max-tokens", "seed", "frames")
        parsers = {name: config.reader(name) for name in names}
        prompt: Any = ScriptedPrompt(*lines)
        Repl(chat, prompt, Screen(), sample, parsers, pictures=False, stats=stats).run()
        return chat

    return run
