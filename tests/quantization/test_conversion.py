"""Conversion to quantised artifacts: content, interruption, damage."""

import errno
import json
import os
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file

from pandacli.checkpoints import resolve
from pandacli.checkpoints.artifacts import (
    FORMAT,
    Artifact,
    Form,
    all_artifacts,
    artifact_folder,
    artifacts_of,
    find_artifact,
    remove_folder,
)
from pandacli.errors import ModelError
from pandacli.modeling.checkpoint import is_quantisable, read_config
from pandacli.quantization import conversion as converting
from pandacli.quantization.conversion import Source, convert, describe_source

pytestmark = pytest.mark.usefixtures("home")


def stored(copy: Artifact) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for file in copy.folder.glob("*.safetensors"):
        tensors |= load_file(file)
    return tensors


def test_int8_rows_are_within_half_a_step(source: Source, checkpoint: Path) -> None:
    whole, copied = load_file(checkpoint / "model.safetensors"), stored(convert(source, "int8"))
    layers = [name for name, tensor in whole.items() if is_quantisable(name, tensor)]
    assert len(layers) == 14
    for name in layers:
        step = copied[name.removesuffix("weight") + "SCB"][:, None] / 127
        assert copied[name].dtype == torch.int8
        assert ((copied[name] * step - whole[name]).abs() <= 0.501 * step).all()


def test_modules_outside_the_layers_keep_half_precision(source: Source, checkpoint: Path) -> None:
    whole, copied = load_file(checkpoint / "model.safetensors"), stored(convert(source, "nf4"))
    kept = [name for name, tensor in whole.items() if not is_quantisable(name, tensor)]
    assert {"model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"} < set(kept)
    for name in kept:
        if whole[name].is_floating_point():
            assert torch.equal(copied[name], whole[name].half())


def test_gguf_artifact_keeps_embedding_modules_beside_it(
    source: Source,
) -> None:
    pytest.importorskip("xllamacpp")
    copy = convert(source, "q8_0")
    assert (copy.folder / "model.gguf").read_bytes()[:4] == b"GGUF"
    beside = {name.split(".")[1] for name in stored(copy)}
    assert beside == {"video_tower", "video_projector", "embed_tokens"}


def test_manifest_describes_artifact(source: Source, checkpoint: Path) -> None:
    copy = convert(source, "nf4")
    assert (copy.model, copy.form, copy.quant) == (str(checkpoint), "nf4", "4bit")
    assert copy.bytes == sum(
        file.stat().st_size for file in copy.folder.iterdir() if file.name != "manifest.json"
    )
    assert find_artifact(source.digest, "nf4") == copy
    assert artifacts_of(str(checkpoint)) == [copy]
    assert read_config(copy.folder).hidden_size == 64


def test_second_conversion_returns_first(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = convert(source, "int8")
    monkeypatch.setattr(converting, "quantize_rows", None)
    assert convert(source, "int8") == copy


def test_resumes_after_sigkill(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    uninterrupted = stored(convert(source, "int8"))
    remove_folder(all_artifacts()[0].folder)
    quantise = converting.quantize_rows
    calls = 0

    def killed(weight: torch.Tensor) -> Any:
        nonlocal calls
        calls += 1
        if calls == 9:
            raise KeyboardInterrupt
        return quantise(weight)

    monkeypatch.setattr(converting, "quantize_rows", killed)
    with pytest.raises(KeyboardInterrupt):
        convert(source, "int8")
    assert not all_artifacts()
    calls = 100
    resumed = stored(convert(source, "int8"))
    assert calls < 100 + 14
    assert resumed.keys() == uninterrupted.keys()
    assert all(torch.equal(resumed[name], uninterrupted[name]) for name in resumed)


def test_progress_ends_at_total(source: Source) -> None:
    told: list[tuple[int, int]] = []
    convert(source, "int8", lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert len(told) > 20
    assert told[-1][0] > 0.999 * told[-1][1]


def test_concurrent_conversion_is_refused(source: Source) -> None:
    work = artifact_folder(source.digest, "int8").with_suffix(".partial")
    work.parent.mkdir(parents=True)
    with (
        FileLock(work.with_name(work.name + ".lock")),
        pytest.raises(ModelError, match="another panda is quantising"),
    ):
        convert(source, "int8")


def test_missing_lock_support_is_not_reported_as_full_disk(
    source: Source, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(ModelError, match="no file can be locked in") as caught:
        convert(source, "int8")
    assert caught.value.hint == "set PANDA_HOME to a folder on another disk"
    assert not list((home / "copies").iterdir())


def test_too_small_disk_is_reported_before_conversion(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Disk:
        free = 1000

    monkeypatch.setattr(converting.shutil, "disk_usage", lambda _: Disk)
    with pytest.raises(ModelError, match=r"takes 285 kB more, and 1 kB are free"):
        convert(source, "int8")


def test_full_disk_is_one_line_and_next_run_resumes(source: Source) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (90_000, before[1]))
    try:
        with pytest.raises(ModelError, match="cannot write the quantised copy in") as caught:
            convert(source, "int8")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in caught.value.message
    assert convert(source, "int8")


def test_folder_without_manifest_is_replaced(source: Source) -> None:
    copy = convert(source, "int8")
    (copy.folder / "manifest.json").unlink()
    assert convert(source, "int8") == copy
    assert all_artifacts() == [copy]


def test_finished_artifact_leaves_no_leftovers(source: Source, home: Path) -> None:
    copy = convert(source, "int8")
    assert list((home / "copies").iterdir()) == [copy.folder]


def test_early_failure_leaves_nothing(
    source: Source, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(converting.checkpoint, "read_config", None)
    with pytest.raises(TypeError):
        convert(source, "int8")
    assert not list((home / "copies").iterdir())


def test_leftover_of_other_version_is_not_resumed(source: Source) -> None:
    whole = stored(convert(source, "int8"))
    remove_folder(all_artifacts()[0].folder)
    begun = artifact_folder(source.digest, "int8").with_suffix(".partial")
    begun.mkdir()
    (begun / "model-00001-of-00002.safetensors").write_bytes(b"in another way")
    assert stored(convert(source, "int8")).keys() == whole.keys()


def test_unwritable_store_is_model_error(
    source: Source, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "file").write_text("")
    monkeypatch.setenv("PANDA_HOME", str(home / "file"))
    with pytest.raises(ModelError, match="cannot write the quantised copy"):
        convert(source, "int8")


def test_damaged_checkpoint_is_refused_before_writing(checkpoint: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("config.json", "tokenizer.model"):
        (broken / name).write_bytes((checkpoint / name).read_bytes())
    weights = (checkpoint / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ModelError):
        convert(describe_source(resolve(broken)), "int8")
    assert not all_artifacts()


@pytest.mark.parametrize("form", ["int8", "nf4"])
def test_non_finite_weights_are_not_quantised(checkpoint: Path, tmp_path: Path, form: Form) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(checkpoint, broken)
    tensors = load_file(broken / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    tensors[name][3, 4] = float("nan")
    save_file(tensors, broken / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=f"{name} .* not finite"):
        convert(describe_source(resolve(broken)), form)
    assert not all_artifacts()


def junk(work: Path) -> None:
    """What no conversion leaves behind."""
    (work / "model-00001-of-00004.safetensors").write_bytes(b"junk")
    (work / "model-00002-of-00004.safetensors").mkdir()
    (work / "model-00003-of-00004.safetensors").symlink_to("/dev/zero")
    (work / "config.json").mkdir()
    (work / "tokenizer.model").symlink_to("tokenizer.model")
    (work / "notes.txt").write_text("mine")
    os.mkfifo(work / "fifo")


def test_foreign_files_in_leftover_are_dropped(source: Source) -> None:
    wanted = stored(convert(source, "int8"))
    folder = artifact_folder(source.digest, "int8")
    shutil.rmtree(folder)
    work = folder.with_name(f"{folder.name}.partial")
    work.mkdir()
    junk(work)
    note = json.dumps({"format": FORMAT, "model": source.model})
    work.with_name(f"{work.name}.lock").write_text(note)
    made = convert(source, "int8")
    assert {path.name for path in made.folder.iterdir()}.isdisjoint({"fifo", "notes.txt"})
    given = stored(made)
    assert given.keys() == wanted.keys()
    assert all(given[name].equal(tensor) for name, tensor in wanted.items())


def test_foreign_weights_in_leftover_fail_once(source: Source) -> None:
    folder = convert(source, "int8").folder
    first = sorted(path.name for path in folder.glob("*.safetensors"))[0]
    shutil.rmtree(folder)
    work = folder.with_name(f"{folder.name}.partial")
    work.mkdir()
    note = json.dumps({"format": FORMAT, "model": source.model})
    work.with_name(f"{work.name}.lock").write_text(note)
    save_file({"foreign": torch.zeros(3)}, work / first)
    with pytest.raises(ModelError, match="was no part of this copy"):
        convert(source, "int8")
    assert not all_artifacts()
    assert convert(source, "int8")


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[" * 5000, b"x" * (1 << 20)])
def test_damaged_note_of_leftover_is_ignored(source: Source, content: bytes) -> None:
    folder = artifact_folder(source.digest, "int8")
    folder.parent.mkdir(parents=True)
    folder.with_name(f"{folder.name}.partial.lock").write_bytes(content)
    assert convert(source, "int8")
