"""Removing a model deletes its artifacts and its download, and nothing else."""

import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest

from pandacli import checkpoints
from pandacli.checkpoints import MODELS
from pandacli.checkpoints.artifacts import FORMAT
from pandacli.checkpoints.inventory import find_model, plan_removal, remove
from pandacli.checkpoints.registry import panda_home
from pandacli.checkpoints.resolve import check_checkpoint
from pandacli.checkpoints.staging import staging_folder
from pandacli.errors import ModelError, UsageError
from tests.checkpoints.downloads import MODEL, interrupted_pull, pull, pull_to, write_artifact
from tests.fake_hub import FIRST, REPO

pytestmark = pytest.mark.usefixtures("hub")
OTHER = MODELS["video-panda-7b-pretrained"]


def files_left(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and ".locks" not in path.parts]


def cached_files(tmp_path: Path) -> list[Path]:
    return [p for p in files_left(tmp_path / "hub") if p.name != "CACHEDIR.TAG"]


def test_removed_download_leaves_nothing(tmp_path: Path) -> None:
    pull()
    removal = plan_removal(MODEL.name)
    assert removal.download
    assert removal.bytes > 320_000
    remove(removal)
    assert cached_files(tmp_path) == []
    assert files_left(panda_home()) == []


def test_other_model_of_the_repository_stays_complete() -> None:
    pull()
    other = pull(model=OTHER)
    remove(plan_removal(MODEL.name))
    assert not (other.parent / "videopanda_fitu" / "config.json").exists()
    check_checkpoint(other)
    assert find_model(MODEL.name).state == "absent"


def test_files_downloaded_by_another_program_stay() -> None:
    pull()
    kept = huggingface_hub.hf_hub_download(REPO, "README.md", revision=FIRST)
    remove(plan_removal(MODEL.name))
    assert Path(kept).exists()


def test_partial_files_are_removed(tmp_path: Path) -> None:
    interrupted_pull(b"weights " * 25_000)
    removal = plan_removal(MODEL.name)
    assert removal.bytes > 200_000
    remove(removal)
    assert cached_files(tmp_path) == []


def test_artifacts_are_removed_with_their_model() -> None:
    artifacts = (write_artifact(MODEL.name, "int8"), write_artifact(MODEL.name, "nf4"))
    removal = plan_removal(MODEL.name)
    assert removal.artifacts == artifacts
    remove(removal)
    assert find_model(MODEL.name).artifacts == ()


def test_quant_selects_the_artifacts() -> None:
    pull()
    int8, nf4 = write_artifact(MODEL.name, "int8"), write_artifact(MODEL.name, "nf4")
    removal = plan_removal(MODEL.name, "8bit")
    assert (removal.artifacts, removal.download) == ((int8,), False)
    remove(removal)
    assert find_model(MODEL.name).artifacts == (nf4,)
    assert checkpoints.resolve(MODEL.name).kind == "cache"


def test_download_can_be_removed_without_artifacts() -> None:
    pull()
    artifact = write_artifact(MODEL.name, "int8")
    remove(plan_removal(MODEL.name, "none"))
    state = find_model(MODEL.name)
    assert (state.state, state.artifacts) == ("absent", (artifact,))


def interrupted_conversion(model: str, form: str = "int8") -> Path:
    """Leave the staging folder of an interrupted conversion."""
    with staging_folder("e" * 64, form, model) as work:
        (work / "model-00001-of-00002.safetensors").write_bytes(b"x" * 1000)
    return work


def test_unfinished_artifact_is_removed_with_its_model() -> None:
    work = interrupted_conversion(MODEL.name)
    removal = plan_removal(MODEL.name)
    assert ([left.folder for left in removal.leftovers], removal.bytes) == ([work], 1000)
    remove(removal)
    assert files_left(panda_home()) == []


def test_damaged_artifact_is_removed_with_its_model() -> None:
    artifact = write_artifact(MODEL.name, "int8")
    (artifact.folder / "config.json").unlink()
    remove(plan_removal(MODEL.name))
    assert not artifact.folder.exists()


def test_artifact_of_another_version_is_removed_with_its_model() -> None:
    manifest = write_artifact(MODEL.name, "int8").folder / "manifest.json"
    manifest.write_text(json.dumps({"format": FORMAT + 1, "model": MODEL.name}))
    remove(plan_removal(MODEL.name))
    assert not manifest.parent.exists()


def test_quant_selects_the_unfinished_artifacts() -> None:
    int8, nf4 = (
        interrupted_conversion(MODEL.name, "int8"),
        interrupted_conversion(MODEL.name, "nf4"),
    )
    remove(plan_removal(MODEL.name, "4bit"))
    assert (int8.exists(), nf4.exists()) == (True, False)


def test_artifact_being_made_is_not_a_leftover() -> None:
    with staging_folder("e" * 64, "int8", MODEL.name) as work:
        (work / "begun").touch()
        assert find_model(MODEL.name).leftovers == ()


def test_artifact_finished_meanwhile_is_not_a_leftover(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    interrupted_conversion(MODEL.name)

    def finished(work: Path) -> bool:
        shutil.rmtree(work)
        return False

    monkeypatch.setattr("pandacli.checkpoints.staging._is_locked", finished)
    assert find_model(MODEL.name).leftovers == ()


def test_leftover_that_is_continued_meanwhile_stays() -> None:
    interrupted_conversion(MODEL.name)
    removal = plan_removal(MODEL.name)
    with (
        staging_folder("e" * 64, "int8", MODEL.name),
        pytest.raises(ModelError, match="another panda is quantising"),
    ):
        remove(removal)


def test_interrupted_removal_is_finished_by_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    artifact = write_artifact(MODEL.name, "int8")
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", None)
        with pytest.raises(TypeError):
            remove(plan_removal(MODEL.name))
    remove(plan_removal(MODEL.name))
    assert not artifact.folder.exists()


def test_linked_artifact_is_removed_at_its_target(tmp_path: Path) -> None:
    artifact = write_artifact(MODEL.name, "int8")
    artifact.folder.rename(tmp_path / "elsewhere")
    artifact.folder.symlink_to(tmp_path / "elsewhere")
    remove(plan_removal(MODEL.name))
    assert not (tmp_path / "elsewhere").exists()
    assert not artifact.folder.is_symlink()


def test_link_to_a_foreign_folder_is_not_a_leftover(tmp_path: Path) -> None:
    artifact = write_artifact(MODEL.name, "int8")
    artifact.folder.rename(tmp_path / "elsewhere")
    artifact.folder.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "config.json").write_text("of the user")
    assert find_model(MODEL.name).leftovers == ()


def test_artifacts_of_a_folder_are_removed_and_the_folder_stays(tmp_path: Path) -> None:
    mine = pull_to(tmp_path / "mine")
    write_artifact(str(mine), "int8")
    remove(plan_removal(str(mine)))
    assert (mine / "config.json").exists()
    with pytest.raises(UsageError, match="is not from panda, and stays"):
        plan_removal(str(mine))


def test_files_under_panda_home_stay() -> None:
    pull_to(panda_home() / "models" / MODEL.name)
    with pytest.raises(UsageError, match="is not from panda, and stays"):
        plan_removal(MODEL.name)


def test_tiny_cannot_be_removed() -> None:
    with pytest.raises(UsageError, match="tiny ships with panda and cannot be removed"):
        plan_removal("tiny")


@pytest.mark.parametrize(
    ("quant", "message"),
    [(None, "video-panda-7b is not on this machine"), ("4bit", "there is no 4bit copy of")],
)
def test_missing_model_cannot_be_removed(quant: str | None, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        plan_removal(MODEL.name, quant)
