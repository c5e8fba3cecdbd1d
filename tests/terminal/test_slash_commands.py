"""Parsing of slash commands."""

from pathlib import Path

import pytest

from pandacli.errors import UsageError
from pandacli.terminal.slash_commands import COMMANDS, parse, parse_path


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
def test_parse_splits_name_and_argument(line: str, meant: tuple[str, str]) -> None:
    command, argument = parse(line)
    assert (command.name, argument) == meant


@pytest.mark.parametrize(
    ("line", "nearest"), [("/udno", "/undo"), ("/hlep", "/help"), ("/frame", "/frames")]
)
def test_unknown_command_suggests_a_similar_one(line: str, nearest: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse(line)
    assert f"did you mean {nearest}?" in str(raised.value.hint)


def test_unknown_command_points_to_help() -> None:
    with pytest.raises(UsageError) as raised:
        parse("/etc/passwd")
    assert "/help" in str(raised.value.hint)


@pytest.mark.parametrize("line", ["/undo twice", "/save", "/video", "/exit now"])
def test_missing_or_extra_argument_shows_usage(line: str) -> None:
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
        ("~no-such-user/talk.md", "~no-such-user/talk.md"),
        ("'~/my talk.md'", Path.home() / "my talk.md"),
    ],
)
def test_path_may_have_spaces_quotes_and_tilde(rest: str, name: str | Path) -> None:
    assert parse_path(rest) == Path(name)


def test_every_command_has_help() -> None:
    assert all(command.help and command.name.startswith("/") for command in COMMANDS)
