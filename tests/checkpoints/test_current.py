"""A known model is one checkpoint: copies of what it was before make way."""

from pathlib import Path

import pytest

from pandacli import checkpoints
from pandacli.checkpoints.artifacts import all_artifacts, remove_outdated
from pandacli.errors import ModelError
from tests.checkpoints.downloads import MODEL, write_artifact
from tests.fake_hub import FIRST, SECOND

pytestmark = pytest.mark.usefixtures("empty_machine")
OLD, NEW = "a" * 64, "b" * 64


def test_copies_of_an_older_checkpoint_go_in_every_form() -> None:
    for form in ("int8", "nf4"):
        write_artifact(MODEL.name, form, OLD)
    new = write_artifact(MODEL.name, "nf4", NEW)
    remove_outdated(new, None)
    assert all_artifacts() == [new]


def test_copies_of_the_same_checkpoint_stay() -> None:
    copies = [write_artifact(MODEL.name, form, NEW) for form in ("int8", "nf4")]
    remove_outdated(copies[0], None)
    assert all_artifacts() == copies


def test_copies_of_other_models_stay(tmp_path: Path) -> None:
    others = [write_artifact("tiny", "int8", OLD), write_artifact(str(tmp_path), "nf4", OLD)]
    remove_outdated(write_artifact(MODEL.name, "int8", NEW), None)
    assert all_artifacts()[:2] == others


def test_the_other_copies_of_a_folder_stay(tmp_path: Path) -> None:
    old, new = (write_artifact(str(tmp_path), "int8", digest) for digest in (OLD, NEW))
    remove_outdated(new, None)
    assert all_artifacts() == [old, new]


def test_a_newer_commit_of_the_same_checkpoint_is_written_down_in_all_its_copies() -> None:
    copies = [write_artifact(MODEL.name, form, NEW) for form in ("int8", "nf4")]
    remove_outdated(copies[0], FIRST)
    assert remove_outdated(copies[0], SECOND).commit == SECOND
    assert {copy.form for copy in checkpoints.standalone_artifacts(MODEL, SECOND)} == {
        "int8",
        "nf4",
    }


def test_a_commit_that_is_known_is_not_forgotten() -> None:
    copy = remove_outdated(write_artifact(MODEL.name, "int8", NEW), FIRST)
    assert remove_outdated(copy, None).commit == FIRST
    assert [copy.commit for copy in all_artifacts()] == [FIRST]


def test_a_commit_that_cannot_be_written_down_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    copy = write_artifact(MODEL.name, "int8", NEW)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pandacli.checkpoints.artifacts.atomic_write_text", full)
    with pytest.raises(ModelError, match=r"cannot write .*: No space left"):
        remove_outdated(copy, FIRST)
