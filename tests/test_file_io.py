"""Bounded reads of small files, and atomic writes."""

import os
import tracemalloc
from pathlib import Path

import pytest

from pandacli.file_io import atomic_write_text, read_bytes, read_object, replace_durably


def test_regular_file_is_read_also_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100)
    (tmp_path / "link").symlink_to("a")
    assert read_bytes(tmp_path / "a", 100) == read_bytes(tmp_path / "link", 100) == b"x" * 100


def test_memory_is_bounded_by_the_size_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 1000)
    tracemalloc.start()
    read_bytes(tmp_path / "a")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


def test_growing_file_is_read_up_to_the_limit(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100)
    before = (tmp_path / "a").stat()
    (tmp_path / "a").write_bytes(b"x" * 150)
    monkeypatch.setattr(os, "fstat", lambda _: before)
    assert read_bytes(tmp_path / "a", 150) == b"x" * 150
    with pytest.raises(OSError, match="longer than 149 bytes"):
        read_bytes(tmp_path / "a", 149)


@pytest.mark.parametrize("size", [101, 1 << 40])
def test_oversized_file_is_refused_unread(tmp_path: Path, size: int) -> None:
    (tmp_path / "a").touch()
    os.truncate(tmp_path / "a", size)
    with pytest.raises(OSError, match="longer than 100 bytes"):
        read_bytes(tmp_path / "a", 100)


@pytest.mark.parametrize("target", ["/dev/zero", "/dev/tty", "link", "nowhere", "."])
def test_link_to_irregular_file_is_refused(tmp_path: Path, target: str) -> None:
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(OSError, match="link"):
        read_bytes(tmp_path / "link")


def test_fifo_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="not a regular file"):
        read_bytes(tmp_path / "fifo")


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"null", b'{"a": NaN}', b'{"a": -Infinity}', b"[" * 10_000, b"\xff", b"{}{}"],
)
def test_anything_but_a_strict_json_object_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError):  # noqa: PT011  (json's own message, or ours)
        read_object(tmp_path / "a.json")


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the synced files, in order."""
    names: list[str] = []

    def fsync(descriptor: int) -> None:
        names.append(Path(f"/proc/self/fd/{descriptor}").resolve().name)

    monkeypatch.setattr(os, "fsync", fsync)
    return names


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="descriptors have no names here")
def test_file_is_synced_before_it_is_renamed(tmp_path: Path, synced: list[str]) -> None:
    (tmp_path / "new").write_text("content")
    replace_durably(tmp_path / "new", tmp_path / "final")
    assert synced == ["new", tmp_path.name]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="descriptors have no names here")
def test_folder_is_synced_with_its_files(tmp_path: Path, synced: list[str]) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "file").write_text("content")
    replace_durably(tmp_path / "new", tmp_path / "final")
    assert synced == ["file", "new", tmp_path.name]
    assert (tmp_path / "final" / "file").read_text() == "content"


def test_atomic_write_replaces_the_file(tmp_path: Path) -> None:
    atomic_write_text(tmp_path / "file", "old")
    atomic_write_text(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "new"
    assert len(list(tmp_path.iterdir())) == 1


def test_failed_atomic_write_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    atomic_write_text(tmp_path / "file", "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        atomic_write_text(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1
