"""A known model is one checkpoint: artifacts of earlier ones are removed."""

from pathlib import Path

import pytest

from pandacli.checkpoints.artifacts import all_artifacts, remove_outdated
from pandacli.checkpoints.inventory import standalone_artifacts
from pandacli.errors import ModelError
from tests.checkpoints.downloads import MODEL, write_artifact
from tests.fake_hub import FIRST, SECOND

pytestmark = pytest.mark.usefixtures("empty_machine")
OLD, NEW = "a" * 64, "b" * 64


def test_artifacts_of_an_older_checkpoint_are_removed_in_every_form() -> None:
    for form in ("int8", "nf4"):
        write_artifact(MODEL.name, form, OLD)
    new = write_artifact(MODEL.name, "nf4", NEW)
    remove_outdated(new, None)
    assert all_artifacts() == [new]


def test_artifacts_of_the_same_checkpoint_stay() -> None:
    artifacts = [write_artifact(MODEL.name, form, NEW) for form in ("int8", "nf4")]
    remove_outdated(artifacts[0], None)
    assert all_artifacts() == artifacts


def test_artifacts_of_other_models_stay(tmp_path: Path) -> None:
    others = [write_artifact("tiny", "int8", OLD), write_artifact(str(tmp_path), "nf4", OLD)]
    remove_outdated(write_artifact(MODEL.name, "int8", NEW), None)
    assert all_artifacts()[:2] == others


def test_other_artifacts_of_a_folder_stay(tmp_path: Path) -> None:
    old, new = (write_artifact(str(tmp_path), "int8", digest) for digest in (OLD, NEW))
    remove_outdated(new, None)
    assert all_artifacts() == [old, new]


def test_newer_commit_of_the_same_checkpoint_is_recorded_in_all_artifacts() -> None:
    artifacts = [write_artifact(MODEL.name, form, NEW) for form in ("int8", "nf4")]
    remove_outdated(artifacts[0], FIRST)
    assert remove_outdated(artifacts[0], SECOND).commit == SECOND
    assert {artifact.form for artifact in standalone_artifacts(MODEL, SECOND)} == {
        "int8",
        "nf4",
    }


def test_recorded_commit_is_kept_without_a_newer_one() -> None:
    artifact = remove_outdated(write_artifact(MODEL.name, "int8", NEW), FIRST)
    assert remove_outdated(artifact, None).commit == FIRST
    assert [artifact.commit for artifact in all_artifacts()] == [FIRST]


def test_unwritable_commit_is_a_model_error(monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = write_artifact(MODEL.name, "int8", NEW)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pandacli.checkpoints.artifacts.atomic_write_text", full)
    with pytest.raises(ModelError, match=r"cannot write .*: No space left"):
        remove_outdated(artifact, FIRST)
