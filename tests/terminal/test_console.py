"""What `Screen` writes to stdout and stderr."""

import io
import sys
from types import SimpleNamespace

import pytest

from pandacli.terminal.console import Screen, spinner

TABLE = 'question,answer\n\x1b[31mwhy?,"so\r\n"\n'


@pytest.mark.parametrize(
    ("people", "shown"),
    [(False, TABLE), (True, 'question,answer\n\\x1b[31mwhy?,"so\\r\n"\n')],
)
def test_write_is_exact_for_pipes_and_sanitized_for_terminals(
    monkeypatch: pytest.MonkeyPatch, people: bool, shown: str
) -> None:
    class Stdout(io.StringIO):
        def isatty(self) -> bool:
            return people

    stdout = Stdout(newline="")
    monkeypatch.setattr(sys, "stdout", stdout)
    Screen().write(TABLE)
    assert stdout.getvalue() == shown


LONG = (
    "only 12 of 300 frames of /a/folder/with/a/long/name/clip.mp4 can be decoded; these are shown"
)
COMMAND = "panda ask /a/folder/with/a/long/name/clip.mp4 'what happens?' --from 1:30 --to 1:45"


def test_terminal_wraps_sentences_but_not_commands(tty) -> None:
    terminal = tty(COLUMNS="50")
    Screen().error(LONG, f"hint: {LONG}", command=COMMAND)
    message, hint = " ".join(terminal.getvalue().split()), f"hint: {LONG} {COMMAND}"
    assert message == f"\x1b[1;31merror:\x1b[0m {LONG} {hint}"
    *sentences, command = terminal.getvalue().splitlines()
    assert command.strip() == COMMAND
    assert all(len(line) <= 50 for line in sentences)
    assert all(line.startswith(" " * 7) for line in sentences[1:])


def test_wrapping_counts_wide_characters(tty) -> None:
    terminal = tty(COLUMNS="40")
    Screen().notice("東京は日本の首都です " * 5)
    shown = terminal.screen(40)
    assert all(line.startswith("       ") for line in shown.display[1:4])


def test_piped_error_is_not_wrapped(capsys: pytest.CaptureFixture[str]) -> None:
    Screen().error(LONG, LONG, command=COMMAND)
    assert capsys.readouterr().err == f"panda: {LONG}\n       {LONG}\n         {COMMAND}\n"


@pytest.mark.parametrize(
    ("encoding", "graphics", "pictures"),
    [
        ("utf-8", "auto", True),
        ("latin-1", "auto", False),
        ("ascii", "blocks", False),
        ("ascii", "kitty", True),
        ("utf-8", "none", False),
    ],
)
def test_pictures_need_a_suitable_encoding(
    monkeypatch: pytest.MonkeyPatch, encoding: str, graphics: str, pictures: bool
) -> None:
    stdout = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdout", stdout)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert Screen(graphics=graphics).shows_pictures is pictures


@pytest.mark.parametrize(("encoding", "name"), [("utf-8", "dots"), ("latin-1", "line")])
def test_spinner_suits_the_encoding(encoding: str, name: str) -> None:
    assert spinner(SimpleNamespace(encoding=encoding)) == name  # type: ignore[arg-type]
