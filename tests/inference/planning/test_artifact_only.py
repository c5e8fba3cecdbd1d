"""A model of which only a quantised copy is left, after `panda pull --drop-original`."""

import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

from pandacli import Panda, checkpoints
from pandacli.checkpoints.inventory import standalone_artifacts
from pandacli.checkpoints.registry import panda_home
from pandacli.errors import ModelError
from pandacli.inference.planning.loader import make_artifact
from pandacli.inference.planning.planner import resolve_run
from pandacli.inference.spec import RunSpec

NAME = "video-panda-7b"


@pytest.fixture
def dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy in 8 bits of a small model that goes by the name of the large one."""
    monkeypatch.setenv("PANDA_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    prepare_and_drop(checkpoints.resolve("tiny").folder, "8bit")


def prepare_and_drop(checkpoint: Path, quant: str, engine: str = "auto") -> None:
    """Quantises a checkpoint under the name of the large model, and leaves only that copy."""
    original = put_in_place(checkpoint)
    assert make_artifact(resolve_run(RunSpec(NAME, quant, engine, "cpu"))) is not None
    shutil.rmtree(original)


def put_in_place(checkpoint: Path) -> Path:
    return shutil.copytree(checkpoint, panda_home() / "models" / NAME)


@pytest.mark.usefixtures("dropped")
def test_model_loads_from_its_artifact() -> None:
    panda = Panda.load(NAME, device="cpu")
    assert (panda.name, panda.quant, panda.engine) == (NAME, "8bit", "torch")


@pytest.mark.skipif(not find_spec("xllamacpp"), reason="no llama.cpp")
def test_gguf_artifact_loads_without_the_original(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PANDA_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    prepare_and_drop(checkpoints.resolve("tiny").folder, "8bit", "llama")
    panda = Panda.load(NAME, device="cpu")
    assert (panda.name, panda.quant, panda.engine) == (NAME, "8bit", "llama")


@pytest.mark.usefixtures("dropped")
def test_other_quantisation_needs_the_original() -> None:
    with pytest.raises(ModelError) as caught:
        Panda.load(NAME, device="cpu", quant="none")
    assert caught.value.command == "panda pull video-panda-7b --quant none"


@pytest.mark.usefixtures("dropped")
def test_identity_is_that_of_the_original() -> None:
    assert Panda.load(NAME, device="cpu").identity == Panda.load("tiny", device="cpu").identity


@pytest.mark.usefixtures("dropped")
def test_newer_model_replaces_artifacts_of_all_forms(checkpoint: Path) -> None:
    prepare_and_drop(checkpoint, "4bit")
    panda = Panda.load(NAME, device="cpu")
    assert (panda.quant, panda.identity) == (
        "4bit",
        checkpoints.model_digest(checkpoints.resolve(checkpoint)),
    )


@pytest.mark.usefixtures("dropped")
def test_newer_model_quantised_by_load_replaces_the_old(checkpoint: Path) -> None:
    original = put_in_place(checkpoint)
    Panda.load(NAME, device="cpu", quant="8bit")
    shutil.rmtree(original)
    assert checkpoints.model_digest(checkpoints.resolve(NAME)) == checkpoints.model_digest(
        checkpoints.resolve(checkpoint)
    )


@pytest.mark.usefixtures("dropped")
def test_artifact_records_newer_commit_of_same_weights(tmp_path: Path) -> None:
    repo = tmp_path / "hub" / "models--jh-yi--Video-Panda-7B"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("newer")
    folder = repo / "snapshots" / "newer" / "videopanda_fitu"
    shutil.copytree(checkpoints.resolve("tiny").folder, folder)
    make_artifact(resolve_run(RunSpec(NAME, "8bit", device="cpu")))
    shutil.rmtree(repo)
    assert [copy.quant for copy in standalone_artifacts(checkpoints.MODELS[NAME], "newer")] == [
        "8bit"
    ]
