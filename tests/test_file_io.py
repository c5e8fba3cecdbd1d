"""Small files: what is no regular file, too long or no JSON object is refused at once."""

import os
import tracemalloc
from pathlib import Path

import pytest

from pandacli.file_io import read_bytes, read_object


def test_a_regular_file_is_read_whole_and_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100)
    (tmp_path / "link").symlink_to("a")
    assert read_bytes(tmp_path / "a", 100) == read_bytes(tmp_path / "link", 100) == b"x" * 100


def test_a_file_costs_memory_of_its_size_and_not_of_the_limit(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 1000)
    tracemalloc.start()
    read_bytes(tmp_path / "a")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


def test_a_file_that_grows_is_read_up_to_the_limit(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100)
    before = (tmp_path / "a").stat()
    (tmp_path / "a").write_bytes(b"x" * 150)
    monkeypatch.setattr(os, "fstat", lambda _: before)
    assert read_bytes(tmp_path / "a", 150) == b"x" * 150
    with pytest.raises(OSError, match="longer than 149 bytes"):
        read_bytes(tmp_path / "a", 149)


@pytest.mark.parametrize("size", [101, 1 << 40])
def test_a_longer_file_is_refused_unread(tmp_path: Path, size: int) -> None:
    (tmp_path / "a").touch()
    os.truncate(tmp_path / "a", size)
    with pytest.raises(OSError, match="longer than 100 bytes"):
        read_bytes(tmp_path / "a", 100)


@pytest.mark.parametrize("target", ["/dev/zero", "/dev/tty", "link", "nowhere", "."])
def test_a_link_to_anything_else_is_refused(tmp_path: Path, target: str) -> None:
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(OSError, match="link"):
        read_bytes(tmp_path / "link")


def test_a_fifo_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="not a regular file"):
        read_bytes(tmp_path / "fifo")


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"null", b'{"a": NaN}', b'{"a": -Infinity}', b"[" * 10_000, b"\xff", b"{}{}"],
)
def test_only_an_object_in_strict_json_is_one(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError):  # noqa: PT011  (json's own message, or ours)
        read_object(tmp_path / "a.json")
