"""A known model is one checkpoint: copies of what it was before make way."""

from pathlib import Path

import pytest

from pandacli import checkpoints
from pandacli.checkpoints.artifacts import all_copies, make_current
from pandacli.errors import ModelError
from tests.checkpoints.downloads import MODEL, write_copy
from tests.fake_hub import FIRST, SECOND

pytestmark = pytest.mark.usefixtures("empty_machine")
OLD, NEW = "a" * 64, "b" * 64


def test_copies_of_an_older_checkpoint_go_in_every_form() -> None:
    for form in ("int8", "nf4"):
        write_copy(MODEL.name, form, OLD)
    new = write_copy(MODEL.name, "nf4", NEW)
    make_current(new, None)
    assert all_copies() == [new]


def test_copies_of_the_same_checkpoint_stay() -> None:
    copies = [write_copy(MODEL.name, form, NEW) for form in ("int8", "nf4")]
    make_current(copies[0], None)
    assert all_copies() == copies


def test_copies_of_other_models_stay(tmp_path: Path) -> None:
    others = [write_copy("tiny", "int8", OLD), write_copy(str(tmp_path), "nf4", OLD)]
    make_current(write_copy(MODEL.name, "int8", NEW), None)
    assert all_copies()[:2] == others


def test_the_other_copies_of_a_folder_stay(tmp_path: Path) -> None:
    old, new = (write_copy(str(tmp_path), "int8", digest) for digest in (OLD, NEW))
    make_current(new, None)
    assert all_copies() == [old, new]


def test_a_newer_commit_of_the_same_checkpoint_is_written_down_in_all_its_copies() -> None:
    copies = [write_copy(MODEL.name, form, NEW) for form in ("int8", "nf4")]
    make_current(copies[0], FIRST)
    assert make_current(copies[0], SECOND).commit == SECOND
    assert {copy.form for copy in checkpoints.kept_copies(MODEL, SECOND)} == {"int8", "nf4"}


def test_a_commit_that_is_known_is_not_forgotten() -> None:
    copy = make_current(write_copy(MODEL.name, "int8", NEW), FIRST)
    assert make_current(copy, None).commit == FIRST
    assert [copy.commit for copy in all_copies()] == [FIRST]


def test_a_commit_that_cannot_be_written_down_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    copy = write_copy(MODEL.name, "int8", NEW)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pandacli.checkpoints.artifacts.write_text", full)
    with pytest.raises(ModelError, match=r"cannot write .*: No space left"):
        make_current(copy, FIRST)
