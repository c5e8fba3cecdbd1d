"""The folder of saved conversations."""

import os
from pathlib import Path

import pytest

from pandacli.chat.transcript import (
    MAX_SAVED,
    last_conversation,
    new_conversation,
    state_folder,
)


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platformdirs.user_state_path", lambda _: tmp_path / "state" / "panda")


def test_no_last_conversation_at_first() -> None:
    assert last_conversation() is None


def test_last_conversation_is_the_most_recently_modified() -> None:
    folder = new_conversation().parent
    for name, age in (("b", 20), ("a", 10), ("c", 30)):
        path = folder / f"{name}.json"
        path.write_text("{}")
        os.utime(path, (1e9 - age, 1e9 - age))
    last = last_conversation()
    assert last is not None
    assert last.name == "a.json"


def test_oldest_conversations_are_deleted() -> None:
    folder = new_conversation().parent
    for number in range(MAX_SAVED + 20):
        path = folder / f"{number:03}.json"
        path.write_text("{}")
        os.utime(path, (1e9 + number, 1e9 + number))
    new_conversation()
    left = sorted(path.name for path in folder.iterdir())
    assert len(left) == MAX_SAVED - 1
    assert left[0] == "021.json"


def test_state_folder_is_private() -> None:
    assert state_folder().stat().st_mode & 0o077 == 0


def test_only_regular_files_count() -> None:
    folder = new_conversation().parent
    (folder / "spoken.json").write_text("{}")
    os.utime(folder / "spoken.json", (1000, 1000))
    (folder / "endless.json").symlink_to("/dev/zero")
    (folder / "loop.json").symlink_to("loop.json")
    (folder / "gone.json").symlink_to("nowhere")
    (folder / "folder.json").mkdir()
    os.mkfifo(folder / "fifo.json")
    last = last_conversation()
    assert last is not None
    assert last.name == "spoken.json"
