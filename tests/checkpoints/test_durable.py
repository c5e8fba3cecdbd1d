"""Files that are there whole or not at all."""

import os
from pathlib import Path

import pytest

from pandacli.file_io import settle, write_text


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what was sent to the disk, in order."""
    names: list[str] = []

    def fsync(descriptor: int) -> None:
        names.append(Path(f"/proc/self/fd/{descriptor}").resolve().name)

    monkeypatch.setattr(os, "fsync", fsync)
    return names


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="descriptors have no names here")
def test_content_is_on_the_disk_before_it_has_its_name(tmp_path: Path, synced: list[str]) -> None:
    (tmp_path / "new").write_text("content")
    settle(tmp_path / "new", tmp_path / "final")
    assert synced == ["new", tmp_path.name]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="descriptors have no names here")
def test_a_folder_is_on_the_disk_with_its_files(tmp_path: Path, synced: list[str]) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "file").write_text("content")
    settle(tmp_path / "new", tmp_path / "final")
    assert synced == ["file", "new", tmp_path.name]
    assert (tmp_path / "final" / "file").read_text() == "content"


def test_a_text_is_replaced(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "old")
    write_text(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "new"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_text_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text(tmp_path / "file", "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_text(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1
