"""Artifacts on disk: what is damaged or changed is found, before it is used."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pandacli.checkpoints import artifacts as copies
from pandacli.checkpoints.artifacts import (
    FORMAT,
    Artifact,
    all_artifacts,
    artifact_folder,
    artifacts_of,
    find_artifact,
    remove_folder,
)
from pandacli.errors import ModelError
from pandacli.quantization.conversion import Source, convert

pytestmark = pytest.mark.usefixtures("home")


def test_artifact_without_a_file_is_damaged(source: Source) -> None:
    copy = convert(source, "int8")
    next(copy.folder.glob("*.safetensors")).unlink()
    with pytest.raises(ModelError, match="is damaged") as caught:
        find_artifact(source.digest, "int8")
    assert str(copy.folder) in str(caught.value.hint)
    assert not all_artifacts()


def test_artifact_of_newer_version_is_not_touched(source: Source) -> None:
    manifest = convert(source, "int8").folder / "manifest.json"
    fields = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(fields | {"format": FORMAT + 1}))
    with pytest.raises(ModelError, match="another version of panda"):
        find_artifact(source.digest, "int8")


@pytest.mark.parametrize("content", ["", "[]", "{}", "[" * 100_000])
def test_manifest_that_is_not_json_is_damage(source: Source, content: str) -> None:
    (convert(source, "int8").folder / "manifest.json").write_text(content)
    with pytest.raises(ModelError, match="is damaged"):
        find_artifact(source.digest, "int8")


@pytest.mark.parametrize(
    "wrong",
    [
        {"files": 3},
        {"files": {}},
        {"files": {"config.json": 3}},
        {"files": {"/dev/zero": {"bytes": 0, "sha256": ""}}},
        {"model": ["a"]},
        {"form": {}},
        {"commit": 3},
    ],
)
def test_manifest_of_wrong_types_is_damage(source: Source, wrong: dict[str, Any]) -> None:
    manifest = convert(source, "int8").folder / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | wrong))
    with pytest.raises(ModelError, match="is damaged"):
        find_artifact(source.digest, "int8")


def flip_a_byte(copy: Artifact) -> None:
    path = max(copy.folder.iterdir(), key=lambda file: file.stat().st_size)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))


def test_flipped_byte_is_detected(source: Source) -> None:
    flip_a_byte(convert(source, "int8"))
    with pytest.raises(ModelError, match="is damaged"):
        find_artifact(source.digest, "int8")


def test_flipped_byte_is_detected_with_restored_mtime(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "_BLOCK", 10)  # so that the digests of such small files are kept
    copy = convert(source, "int8")
    assert find_artifact(source.digest, "int8")
    times = {path: path.stat().st_mtime_ns for path in copy.folder.iterdir()}
    flip_a_byte(copy)
    for path, time in times.items():
        os.utime(path, ns=(time, time))
    with pytest.raises(ModelError, match="is damaged"):
        find_artifact(source.digest, "int8")


def test_flipped_byte_is_detected_without_original(source: Source) -> None:
    flip_a_byte(convert(source, "int8"))
    with pytest.raises(ModelError, match="is damaged"):
        artifacts_of(source.model)


def test_unchanged_artifact_is_not_hashed_again(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "_BLOCK", 10)
    convert(source, "int8")
    monkeypatch.setattr(copies, "hash_file", None)
    assert find_artifact(source.digest, "int8")


def test_listing_reads_no_weights(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = convert(source, "int8")
    monkeypatch.setattr(copies, "file_digest", None)
    assert all_artifacts() == [copy]


def test_removed_artifact_leaves_nothing(source: Source, home: Path) -> None:
    remove_folder(convert(source, "int8").folder)
    assert not list((home / "copies").iterdir())


def change_manifest(copy: Artifact, **changed: Any) -> None:
    manifest = copy.folder / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | changed))


@pytest.mark.parametrize("suffix", [".safetensors", ".model", "config.json"])
def test_manifest_lists_every_file_that_is_read(source: Source, suffix: str) -> None:
    copy = convert(source, "int8")
    files = json.loads((copy.folder / "manifest.json").read_text())["files"]
    change_manifest(copy, files={n: f for n, f in files.items() if not n.endswith(suffix)})
    with pytest.raises(ModelError, match="is damaged"):
        find_artifact(source.digest, "int8")


def test_artifact_of_other_checkpoint_is_not_used(source: Source) -> None:
    copy = convert(source, "int8")
    other = "f" * 64
    copy.folder.rename(artifact_folder(other, "int8"))
    with pytest.raises(ModelError, match="is damaged"):
        find_artifact(other, "int8")
    # nor where only the start of the digest, which names the folder, is the same
    near = source.digest[:16] + "0" * 48
    artifact_folder(other, "int8").rename(copy.folder)
    with pytest.raises(ModelError, match="is damaged"):
        find_artifact(near, "int8")
    assert find_artifact(source.digest, "int8")


def test_fifo_in_artifact_does_not_block(source: Source) -> None:
    copy = convert(source, "int8")
    files = json.loads((copy.folder / "manifest.json").read_text())["files"]
    os.mkfifo(copy.folder / "fifo")
    change_manifest(copy, files=files | {"fifo": {"bytes": 0, "sha256": ""}})
    with pytest.raises(ModelError, match="is damaged"):
        find_artifact(source.digest, "int8")


def test_unreadable_store_is_model_error(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    # as a folder of mode 000, which tests may run above: the system refuses the path
    monkeypatch.setenv("PANDA_HOME", "/" + "x" * 300)
    with pytest.raises(ModelError, match="cannot read"):
        find_artifact(source.digest, "int8")
