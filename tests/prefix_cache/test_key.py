"""A clip is known by its content."""

import os
from pathlib import Path

import pytest

from pandacli.prefix_cache import clip as module
from pandacli.prefix_cache.clip import clip_digest


@pytest.fixture
def long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is too long to be read whole, of which every tenth byte or so is."""
    monkeypatch.setattr(module, "_WHOLE", 5000)
    monkeypatch.setattr(module, "_BLOCK", 30)
    path = tmp_path / "long.mp4"
    path.write_bytes(bytes(range(256)) * 40)
    return path


def change(path: Path, place: int) -> None:
    """Change one byte and nothing else."""
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_short_file_is_its_content_whatever_its_name_and_time(tmp_path: Path) -> None:
    one, other = tmp_path / "a.mp4", tmp_path / "b.mp4"
    one.write_bytes(b"frames")
    other.write_bytes(b"frames")
    os.utime(other, (1, 1))
    assert clip_digest(one) == clip_digest(other)


def test_a_byte_makes_a_short_file_another(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"x" * 4000)
    before = clip_digest(path)
    change(path, 2000)
    assert clip_digest(path) != before


@pytest.mark.parametrize("place", [0, 29, -1])
def test_the_ends_of_a_long_file_are_looked_at(long: Path, place: int) -> None:
    before = clip_digest(long)
    change(long, place)
    assert clip_digest(long) != before


def test_blocks_between_are_looked_at(long: Path) -> None:
    before = clip_digest(long)
    status = long.stat()
    long.write_bytes(b"\0" * 5000 + long.read_bytes()[5000:])
    os.utime(long, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert clip_digest(long) != before


def test_a_long_file_that_was_touched_is_another(long: Path) -> None:
    before = clip_digest(long)
    os.utime(long, (1, 1))
    assert clip_digest(long) != before


def test_a_byte_makes_a_long_file_another_though_its_time_is_set_back(long: Path) -> None:
    before = clip_digest(long)
    change(long, 35)  # outside of the sample
    assert clip_digest(long) != before


def test_every_byte_counts_and_no_time_where_that_is_wanted(long: Path) -> None:
    before = clip_digest(long, whole=True)
    os.utime(long, (1, 1))
    assert clip_digest(long, whole=True) == before
    change(long, 35)
    assert clip_digest(long, whole=True) != before
