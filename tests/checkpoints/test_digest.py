"""Digests of checkpoints: the same for the same bytes, and cached."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pandacli.checkpoints import artifacts
from pandacli.checkpoints.artifacts import drop_digests, file_digest, hash_checkpoint


@pytest.fixture(autouse=True)
def small_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PANDA_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(artifacts, "_BLOCK", 4)


def make(folder: Path, weights: bytes = b"weights") -> Path:
    folder.mkdir()
    for name in ("config.json", "tokenizer.model"):
        (folder / name).write_text(name)
    (folder / "model.safetensors").write_bytes(weights)
    return folder / "model.safetensors"


def test_file_digest_is_the_sha256_of_the_content(tmp_path: Path) -> None:
    weights = make(tmp_path / "a")
    assert file_digest(weights) == hashlib.sha256(b"weights").hexdigest()


def test_checkpoint_digest_does_not_depend_on_the_folder(tmp_path: Path) -> None:
    here, there, other = make(tmp_path / "a"), make(tmp_path / "b"), make(tmp_path / "c", b"other")
    digests = [hash_checkpoint(path.parent, [path])[0] for path in (here, there, other)]
    assert digests[0] == digests[1] != digests[2]


def test_unchanged_file_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = make(tmp_path / "a")
    first = file_digest(weights)
    monkeypatch.setattr(artifacts, "hash_file", None)
    assert file_digest(weights) == first


def test_changed_file_is_hashed_again(tmp_path: Path) -> None:
    weights = make(tmp_path / "a")
    first = file_digest(weights)
    weights.write_bytes(b"changed")
    assert file_digest(weights) != first


def test_name_of_a_blob_is_not_trusted(tmp_path: Path) -> None:
    blob = tmp_path / "blobs" / ("0123456789abcdef" * 4)
    blob.parent.mkdir()
    blob.write_bytes(b"anything")
    link = tmp_path / "model.safetensors"
    link.symlink_to(blob)
    assert file_digest(link) == hashlib.sha256(b"anything").hexdigest()


def overwrite(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def replace_file(path: Path, content: bytes) -> None:
    other = path.with_name("other")
    other.write_bytes(content)
    other.replace(path)


@pytest.mark.parametrize("change", [overwrite, replace_file])
def test_change_that_keeps_size_and_mtime_is_noticed(
    tmp_path: Path, change: Callable[[Path, bytes], None]
) -> None:
    weights = make(tmp_path / "a")
    before, first = weights.stat(), file_digest(weights)
    change(weights, b"Weights")
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (weights.stat().st_size, weights.stat().st_mtime_ns) == (7, before.st_mtime_ns)
    assert file_digest(weights) != first


def test_dropped_digest_is_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, other = make(tmp_path / "a"), make(tmp_path / "b", b"others")
    digests = file_digest(weights), file_digest(other)
    drop_digests([weights.parent, tmp_path / "gone"])
    monkeypatch.setattr(artifacts, "hash_file", lambda path: f"read {path.parent.name}")
    assert (file_digest(weights), file_digest(other)) == ("read a", digests[1])


def test_unwritable_home_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = make(tmp_path / "a")
    monkeypatch.setenv("PANDA_HOME", str(weights))
    assert file_digest(weights) == hashlib.sha256(b"weights").hexdigest()


def test_cached_digests_of_all_files_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [make(tmp_path / "a"), make(tmp_path / "b", b"others")]
    digests = list(map(file_digest, files))
    monkeypatch.setattr(artifacts, "hash_file", None)
    assert list(map(file_digest, files)) == digests


def test_full_disk_leaves_no_partial_cache_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = make(tmp_path / "a")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    file_digest(weights)
    assert list((tmp_path / "home").iterdir()) == []
