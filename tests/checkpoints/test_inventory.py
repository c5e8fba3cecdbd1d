"""What there is of each model on this machine."""

import errno
import os
from pathlib import Path

import pytest

from pandacli import checkpoints
from pandacli.checkpoints import MODELS
from pandacli.checkpoints.inventory import published_digests
from pandacli.errors import ModelError
from tests.checkpoints.downloads import (
    MODEL,
    SHARD,
    interrupted_pull,
    pull,
    pull_to,
    write_artifact,
)
from tests.fake_hub import FIRST

pytestmark = pytest.mark.usefixtures("hub")


def test_a_model_that_is_not_here_is_absent_and_of_the_size_of_its_download() -> None:
    state = checkpoints.find_model(MODEL.name)
    assert (state.state, state.bytes, state.checkpoint) == ("absent", 16_700_000_000, None)


def test_a_pulled_model_is_here_with_its_commit_and_digests() -> None:
    downloaded = pull()
    state = checkpoints.find_model(MODEL.name)
    assert (state.state, state.bytes, state.commit) == ("here", downloaded.bytes, FIRST)
    assert published_digests(state).keys() == {
        "tokenizer.model",
        SHARD,
        "pytorch_model-00002-of-00002.bin",
    }


def test_an_interrupted_download_is_told_with_what_it_has_left() -> None:
    interrupted_pull(b"weights " * 25_000)
    state = checkpoints.find_model(MODEL.name)
    assert (state.state, state.partial_bytes) == ("incomplete", 200_000)


def test_every_known_model_is_listed_and_every_folder_with_a_copy(tmp_path: Path) -> None:
    write_artifact(str(tmp_path), "int8")
    assert [state.name for state in checkpoints.inventory()] == [*MODELS, str(tmp_path)]


def test_a_copy_belongs_to_its_model() -> None:
    copy = write_artifact(MODEL.name, "int8")
    assert checkpoints.find_model(MODEL.name).artifacts == (copy,)
    assert checkpoints.find_model("video-panda-7b-pretrained").artifacts == ()


def test_a_model_of_which_only_a_copy_is_left_is_ready() -> None:
    assert not checkpoints.is_available(MODEL)
    write_artifact(MODEL.name, "int8")
    assert checkpoints.is_available(MODEL)


def test_a_model_of_which_only_a_copy_is_left_is_found_there() -> None:
    copy = write_artifact(MODEL.name, "int8")
    assert checkpoints.resolve(MODEL.name) == checkpoints.ResolvedModel(
        MODEL.name, copy.folder, "artifact"
    )


def test_beside_half_a_download_a_whole_copy_is_used() -> None:
    interrupted_pull(b"weights")
    copy = write_artifact(MODEL.name, "int8")
    assert checkpoints.resolve(MODEL.name).folder == copy.folder


def test_a_model_of_which_only_a_damaged_copy_is_left_is_not_said_to_be_absent() -> None:
    (write_artifact(MODEL.name, "int8").folder / "config.json").write_text("[]")
    with pytest.raises(ModelError, match="is damaged"):
        checkpoints.resolve(MODEL.name)


def test_a_folder_whose_original_is_gone_is_still_known_by_its_copy(tmp_path: Path) -> None:
    gone = str(tmp_path / "gone")
    copy = write_artifact(gone, "int8")
    assert checkpoints.find_model(gone).artifacts == (copy,)


def test_a_folder_in_the_home_of_nobody_is_absent() -> None:
    copy = write_artifact("~nobody-here/gone", "int8")
    state = checkpoints.find_model("~nobody-here/gone")
    assert (state.state, state.artifacts) == ("absent", (copy,))


def test_panda_home_may_be_that_of_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PANDA_HOME", "~nobody-here/panda")
    assert checkpoints.panda_home() == Path("~nobody-here/panda")


def test_a_folder_that_cannot_be_looked_at_is_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_artifact(str(tmp_path / "unmounted"), "int8")
    out_of_reach(monkeypatch, tmp_path / "unmounted")
    assert [state.state for state in checkpoints.inventory()][-1] == "absent"


def test_a_folder_whose_disk_goes_while_it_is_looked_at_is_incomplete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = pull_to(tmp_path / "mine")
    write_artifact(str(mine), "int8")
    out_of_reach(monkeypatch, mine / "config.json")
    state = checkpoints.find_model(str(mine))
    assert (state.state, state.bytes) == ("incomplete", 0)


def test_a_known_model_that_cannot_be_looked_at_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    out_of_reach(monkeypatch, checkpoints.panda_home() / "models" / MODEL.name / "config.json")
    assert checkpoints.find_model(MODEL.name).state == "absent"


def out_of_reach(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """Has the system refuse to look at a path, as at one on a server that is gone."""
    stat = Path.stat

    def refuse(self: Path, **how: bool) -> os.stat_result:
        if self == path:
            raise OSError(errno.ESTALE, "Stale file handle", str(path))
        return stat(self, **how)

    monkeypatch.setattr(Path, "stat", refuse)


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(ModelError, match="no model is called 'nope'"):
        checkpoints.find_model("nope")


def test_what_a_person_put_under_panda_home_wants_no_download() -> None:
    pull_to(checkpoints.panda_home() / "models" / MODEL.name)
    assert not checkpoints.needs_hub(MODEL)


def test_offline_what_is_here_wants_no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    pull()
    assert checkpoints.needs_hub(MODEL)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert not checkpoints.needs_hub(MODEL)
