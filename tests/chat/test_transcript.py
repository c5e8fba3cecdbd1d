"""Transcripts as JSON and Markdown."""

import json
from pathlib import Path

import pytest

from pandacli.chat.conversation import Turn
from pandacli.chat.transcript import Transcript, read_transcript, write_transcript
from pandacli.errors import ClipError, UsageError

TURNS = (
    Turn("What happens?", "A circle.\n\nThen a [bold]star[/bold]."),
    Turn("multi\nline \x1b[31m 東京 🐼", "cut", "interrupted"),
)
TRANSCRIPT = Transcript("/films/a\udcff b.mp4", 1.5, None, 8, "tiny", None, TURNS)


def test_json_round_trip(tmp_path: Path) -> None:
    write_transcript(TRANSCRIPT, tmp_path / "talk.json")
    assert read_transcript(tmp_path / "talk.json") == TRANSCRIPT


def test_markdown_quotes_questions_and_marks_interruptions(tmp_path: Path) -> None:
    write_transcript(TRANSCRIPT, tmp_path / "talk.md")
    lines = (tmp_path / "talk.md").read_text().splitlines()
    assert lines[0].endswith("b.mp4, 0:01.5 to the end")
    assert "> What happens?" in lines
    assert "> multi" in lines
    assert lines[-1] == "*(interrupted)*"


def test_writing_leaves_no_temporary_file(tmp_path: Path) -> None:
    for _ in range(2):
        write_transcript(TRANSCRIPT, tmp_path / "talk.json")
    assert [path.name for path in tmp_path.iterdir()] == ["talk.json"]


@pytest.mark.parametrize("name", ["talk", "talk.txt", "missing/talk.md"])
def test_unwritable_file_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        write_transcript(TRANSCRIPT, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "null", "\x00", '{"format": 1}', '{"format": 2}', "# Markdown"],
)
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "talk.json"
    path.write_text(text)
    with pytest.raises(ClipError):
        read_transcript(path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"video": 3},
        {"frames": "8"},
        {"frames": True},
        {"frames": 0},
        {"frames": 10**9},
        {"from": -1},
        {"to": 1e300},
        {"turns": {}},
        {"turns": [{}]},
        {"turns": [None]},
        {"turns": [{"question": "a", "answer": "b", "finish_reason": "later"}]},
        {"turns": [{"question": "a", "answer": None, "finish_reason": "stop"}]},
    ],
)
def test_wrong_types_are_refused(tmp_path: Path, wrong: dict[str, object]) -> None:
    path = tmp_path / "talk.json"
    path.write_text(json.dumps(json.loads(TRANSCRIPT.to_json()) | wrong))
    with pytest.raises(ClipError, match="not a saved conversation"):
        read_transcript(path)


def test_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match="cannot read"):
        read_transcript(tmp_path / "none.json")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_non_finite_times_are_refused(tmp_path: Path, number: str) -> None:
    path = tmp_path / "talk.json"
    path.write_text(TRANSCRIPT.to_json().replace("1.5", number))
    with pytest.raises(ClipError, match="not a saved conversation"):
        read_transcript(path)


def test_link_to_an_endless_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "talk.json").symlink_to("/dev/zero")
    with pytest.raises(ClipError, match="not a regular file"):
        read_transcript(tmp_path / "talk.json")
