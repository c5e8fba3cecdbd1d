"""What took long to find out is kept, whole or not at all."""

import os
from pathlib import Path

import pytest

from pandacli.checkpoints.digest import recall, remember


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PANDA_HOME", str(tmp_path))
    return tmp_path


def test_what_is_remembered_is_recalled_with_what_was_before() -> None:
    remember("times", "a", 1)
    remember("times", "b", [2, 3])
    assert recall("times") == {"a": 1, "b": [2, 3]}


def test_what_a_full_disk_does_not_take_leaves_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    remember("times", "a", 1)
    assert list(home.iterdir()) == []
