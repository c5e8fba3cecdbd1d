"""Keys of the prefix cache: a clip is identified by its content."""

import os
from pathlib import Path

import pytest

from pandacli.prefix_cache import clip_cache as key
from pandacli.prefix_cache.clip_cache import ClipCache, clip_digest, entry_name
from pandacli.video import Clip


@pytest.fixture
def long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file too long to be hashed whole: about every tenth byte is."""
    monkeypatch.setattr(key, "_HASHED_WHOLE", 5000)
    monkeypatch.setattr(key, "_BLOCK", 30)
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


def test_short_files_of_same_content_have_same_digest(tmp_path: Path) -> None:
    one, other = tmp_path / "a.mp4", tmp_path / "b.mp4"
    one.write_bytes(b"frames")
    other.write_bytes(b"frames")
    os.utime(other, (1, 1))
    assert clip_digest(one) == clip_digest(other)


def test_changed_byte_of_short_file_changes_digest(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"x" * 4000)
    before = clip_digest(path)
    change(path, 2000)
    assert clip_digest(path) != before


@pytest.mark.parametrize("place", [0, 29, -1])
def test_ends_of_long_file_are_hashed(long: Path, place: int) -> None:
    before = clip_digest(long)
    change(long, place)
    assert clip_digest(long) != before


def test_blocks_in_the_middle_of_long_file_are_hashed(long: Path) -> None:
    before = clip_digest(long)
    status = long.stat()
    long.write_bytes(b"\0" * 5000 + long.read_bytes()[5000:])
    os.utime(long, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert clip_digest(long) != before


def test_touched_long_file_changes_digest(long: Path) -> None:
    before = clip_digest(long)
    os.utime(long, (1, 1))
    assert clip_digest(long) != before


def test_unsampled_byte_of_long_file_changes_digest_despite_restored_mtime(long: Path) -> None:
    before = clip_digest(long)
    change(long, 35)  # outside of the sample
    assert clip_digest(long) != before


def test_whole_digest_covers_every_byte_and_ignores_times(long: Path) -> None:
    before = clip_digest(long, whole=True)
    os.utime(long, (1, 1))
    assert clip_digest(long, whole=True) == before
    change(long, 35)
    assert clip_digest(long, whole=True) != before


def test_entry_name_is_that_of_earlier_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key, "COMPUTATION_VERSION", 3)
    numerics = {"quant": "8bit", "engine": "llama", "versions": {"av": "18.1"}}
    name = entry_name("0" * 16, "f" * 64, numerics, [1, 2, 3])
    assert name == "0000000000000000-283d5ab16071b65339683d46c6872bd6"


def test_times_are_part_of_the_key(long: Path, tmp_path: Path) -> None:
    clips = (Clip(long), Clip(long, 1.0, 2.0), Clip(long, at=(1.0, 2.0)), Clip(long, at=(1.0, 3.0)))
    assert len({ClipCache(clip, 8, folder=tmp_path).key for clip in clips}) == len(clips)
    other_order = ClipCache(Clip(long, at=(2.0, 1.0)), 8, folder=tmp_path)
    assert other_order.key == ClipCache(clips[2], 8, folder=tmp_path).key


def test_key_of_a_clip_without_times_is_unchanged(long: Path, tmp_path: Path) -> None:
    fields = {"clip": clip_digest(long), "start": 1.0, "end": None, "frames": 8}
    assert ClipCache(Clip(long, 1.0), 8, folder=tmp_path).key == key._digest(fields)[:16]
