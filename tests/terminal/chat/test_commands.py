"""What a line with a slash asks for."""

from pathlib import Path

import pytest

from pandacli.errors import UsageError
from pandacli.terminal.slash_commands import COMMANDS, file_named, parse


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("/help", ("/help", "")),
        ("  /UNDO  ", ("/undo", "")),
        ("/quit", ("/exit", "")),
        ("/clip 0:10 0:20", ("/clip", "0:10 0:20")),
        ("/clip", ("/clip", "")),
        ("/save my talk.md ", ("/save", "my talk.md")),
        ("/set temperature 0.7", ("/set", "temperature 0.7")),
    ],
)
def test_a_command_and_the_rest(line: str, meant: tuple[str, str]) -> None:
    assert parse(line) == meant


@pytest.mark.parametrize(
    ("line", "nearest"), [("/udno", "/undo"), ("/hlep", "/help"), ("/frame", "/frames")]
)
def test_an_unknown_command_is_answered_with_the_nearest(line: str, nearest: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse(line)
    assert f"did you mean {nearest}?" in str(raised.value.hint)


def test_a_command_like_no_other_is_answered_with_help() -> None:
    with pytest.raises(UsageError) as raised:
        parse("/etc/passwd")
    assert "/help" in str(raised.value.hint)


@pytest.mark.parametrize("line", ["/undo twice", "/save", "/video", "/exit now"])
def test_too_little_or_too_much_is_told(line: str) -> None:
    with pytest.raises(UsageError, match="usage: /"):
        parse(line)


@pytest.mark.parametrize(
    ("rest", "name"),
    [
        ("talk.md", "talk.md"),
        ("my talk.md", "my talk.md"),
        ("'my talk.md'", "my talk.md"),
        ('"a b" c', '"a b" c'),
        ("'open", "'open"),
        ("~nobody-here/talk.md", "~nobody-here/talk.md"),
        ("'~/my talk.md'", Path.home() / "my talk.md"),
    ],
)
def test_a_file_name_may_have_spaces_and_quotes_and_a_home(rest: str, name: str | Path) -> None:
    assert file_named(rest) == Path(name)


def test_every_command_says_what_it_does() -> None:
    assert all(command.does and command.name.startswith("/") for command in COMMANDS.values())
