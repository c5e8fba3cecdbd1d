"""Finding a model on this machine by name or folder, and the errors when it is missing."""

import importlib.resources
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pandacli import checkpoints
from pandacli.checkpoints.registry import panda_home
from pandacli.checkpoints.resolve import find_checkpoint
from pandacli.errors import ModelError

pytestmark = pytest.mark.usefixtures("empty_machine")


def write_checkpoint(folder: Path, **config: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "videopanda", **config}))
    (folder / "model.safetensors").write_bytes(b"")
    (folder / "tokenizer.model").write_bytes(b"")
    return folder


def write_cached_checkpoint(hub: Path, subfolder: str = "videopanda_fitu") -> Path:
    repo = hub / "models--jh-yi--Video-Panda-7B"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("abc123")
    return write_checkpoint(repo / "snapshots" / "abc123" / subfolder)


def refusal(model: str | Path) -> ModelError:
    with pytest.raises(ModelError) as caught:
        checkpoints.resolve(model)
    error = caught.value
    assert "\n" not in error.message + (error.hint or "")
    return error


def test_folder_is_found_under_the_given_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_checkpoint(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    assert checkpoints.resolve("mine") == checkpoints.ResolvedModel(
        "mine", tmp_path / "mine", "folder"
    )


def test_tilde_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_checkpoint(tmp_path / "mine")
    assert checkpoints.resolve("~/mine").folder == tmp_path / "mine"


def test_known_name_wins_over_a_folder_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_checkpoint(tmp_path / "video-panda-7b")
    monkeypatch.chdir(tmp_path)
    assert "not on this machine" in refusal("video-panda-7b").message
    assert checkpoints.resolve("./video-panda-7b").kind == "folder"


def test_tiny_is_found_in_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.resources, "files", lambda _: tmp_path)
    folder = write_checkpoint(tmp_path / "assets" / "tiny")
    assert checkpoints.resolve("tiny") == checkpoints.ResolvedModel("tiny", folder, "bundled")


def test_installation_without_tiny_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.resources, "files", lambda _: tmp_path)
    assert refusal("tiny").hint == "install pandacli again"


@pytest.mark.parametrize("inside", ["", "videopanda_fitu"])
def test_known_model_is_found_under_panda_home(inside: str) -> None:
    folder = write_checkpoint(panda_home() / "models" / "video-panda-7b" / inside)
    assert checkpoints.resolve("video-panda-7b") == checkpoints.ResolvedModel(
        "video-panda-7b", folder, "home"
    )


def test_known_model_is_found_in_the_hugging_face_cache(tmp_path: Path) -> None:
    folder = write_cached_checkpoint(tmp_path / "hub")
    assert checkpoints.resolve("video-panda-7b") == checkpoints.ResolvedModel(
        "video-panda-7b", folder, "cache"
    )


def test_other_model_of_the_same_repository_is_not_found(
    tmp_path: Path,
) -> None:
    write_cached_checkpoint(tmp_path / "hub", "videopanda_prtr1")
    assert checkpoints.resolve("video-panda-7b-pretrained").kind == "cache"
    assert "not on this machine" in refusal("video-panda-7b").message


def test_panda_home_comes_before_the_cache(tmp_path: Path) -> None:
    write_cached_checkpoint(tmp_path / "hub")
    write_checkpoint(panda_home() / "models" / "video-panda-7b")
    assert checkpoints.resolve("video-panda-7b").kind == "home"


def test_missing_model_hints_at_every_remedy() -> None:
    error = refusal("video-panda-7b")
    assert error.message == "video-panda-7b is not on this machine"
    assert error.hint is not None
    assert error.command == "panda pull video-panda-7b"
    assert str(panda_home() / "models" / "video-panda-7b") in error.hint
    assert "--model tiny" in error.hint


def test_foreign_folder_under_panda_home_is_reported() -> None:
    folder = panda_home() / "models" / "video-panda-7b"
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("soon")
    assert "holds no config.json" in refusal("video-panda-7b").message


def test_incomplete_download_names_the_file_and_the_command(tmp_path: Path) -> None:
    folder = write_cached_checkpoint(tmp_path / "hub")
    (folder / "model.safetensors").unlink()
    shards = {"a": "pytorch_model-00001-of-00002.bin", "b": "pytorch_model-00002-of-00002.bin"}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": shards}))
    (folder / shards["a"]).write_bytes(b"")
    error = refusal("video-panda-7b")
    assert error.message.startswith("the checkpoint is incomplete: ")
    assert error.message.endswith("lacks 1 of 2 weight files: pytorch_model-00002-of-00002.bin")
    assert error.hint is not None
    assert "panda pull video-panda-7b" in error.hint


@pytest.mark.parametrize("lost", ["model.safetensors", "tokenizer.model"])
def test_folder_without_weights_or_tokenizer_is_incomplete(tmp_path: Path, lost: str) -> None:
    folder = write_checkpoint(tmp_path / "mine")
    (folder / lost).unlink()
    error = refusal(folder)
    assert "is incomplete" in error.message
    assert lost in f"{error.message} {error.hint}"


def test_index_takes_precedence_over_other_weights(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "mine")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    index = {"weight_map": {"a": "model-00001-of-00001.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "lacks 1 of 1 weight files" in refusal(folder).message


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("video-panda", "did you mean video-panda-7b?"),
        ("Video-Panda-7B", "did you mean video-panda-7b?"),
        ("tinny", "did you mean tiny?"),
        ("gpt", "the models are video-panda-7b, video-panda-7b-pretrained, tiny, or a folder"),
        ("", "the models are video-panda-7b, video-panda-7b-pretrained, tiny, or a folder"),
    ],
)
def test_unknown_name_suggests_the_nearest_known_one(name: str, hint: str) -> None:
    error = refusal(name)
    assert error.message == f"no model is called '{name}'"
    assert error.hint == hint


def test_missing_path_is_not_treated_as_a_name(tmp_path: Path) -> None:
    assert refusal(tmp_path / "gone").message == f"no folder {tmp_path / 'gone'}"
    assert refusal("./gone").message == "no folder gone"


def test_file_is_not_a_checkpoint_folder(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"")
    assert "is a file, not a checkpoint folder" in refusal(path).message


def test_parent_folder_suggests_the_checkpoint(tmp_path: Path) -> None:
    inner = write_checkpoint(tmp_path / "videopanda_fitu")
    assert refusal(tmp_path).hint == f"did you mean {inner}?"


@pytest.mark.parametrize("config", ["{", "[]", "\ufeff\x00", "[" * 100_000])
def test_damaged_config_is_reported(tmp_path: Path, config: str) -> None:
    folder = write_checkpoint(tmp_path / "mine")
    (folder / "config.json").write_text(config)
    assert str(folder / "config.json") in refusal(folder).message


def test_other_model_type_is_refused(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "mine", model_type="llama")
    assert refusal(folder).message == f"{folder} holds a model of type 'llama', not a Video-Panda"


@pytest.mark.skipif(getattr(os, "geteuid", int)() == 0, reason="root reads everything")
def test_unreadable_folder_is_reported(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "mine")
    (folder / "config.json").chmod(0)
    assert "cannot be read" in refusal(folder).message


def test_name_too_long_for_the_file_system_is_reported() -> None:
    assert "cannot read" in refusal("x" * 5000).message


def test_unreadable_panda_home_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PANDA_HOME", "x" * 5000)
    with pytest.raises(ModelError, match="cannot read"):
        find_checkpoint(checkpoints.MODELS["video-panda-7b"])


def test_default_home_is_the_platform_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PANDA_HOME")
    assert panda_home().name == "panda"


def test_resolve_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys, pandacli.checkpoints, pandacli\n"
        "try: pandacli.checkpoints.resolve('video-panda-7b')\n"
        "except pandacli.errors.ModelError: pass\n"
        "print(sorted({'torch', 'numpy', 'transformers', 'cv2', 'av'} & set(sys.modules)))"
    )
    env = os.environ | {"HF_HOME": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"
