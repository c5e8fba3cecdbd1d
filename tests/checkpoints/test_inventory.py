"""What this machine holds of each model."""

import errno
import os
from pathlib import Path

import pytest

from pandacli import checkpoints
from pandacli.checkpoints import MODELS
from pandacli.checkpoints.inventory import (
    find_model,
    inventory,
    is_available,
    needs_hub,
    published_digests,
)
from pandacli.checkpoints.registry import panda_home
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


def test_missing_model_is_absent_with_its_download_size() -> None:
    state = find_model(MODEL.name)
    assert (state.state, state.bytes, state.checkpoint) == ("absent", 16_700_000_000, None)


def test_pulled_model_has_commit_and_digests() -> None:
    size = sum(path.stat().st_size for path in pull().iterdir())
    state = find_model(MODEL.name)
    assert (state.state, state.bytes, state.commit) == ("here", size, FIRST)
    assert published_digests(state).keys() == {
        "tokenizer.model",
        SHARD,
        "pytorch_model-00002-of-00002.bin",
    }


def test_interrupted_download_is_incomplete_with_its_partial_size() -> None:
    interrupted_pull(b"weights " * 25_000)
    state = find_model(MODEL.name)
    assert (state.state, state.partial_bytes) == ("incomplete", 200_000)


def test_inventory_lists_known_models_and_folders_with_artifacts(tmp_path: Path) -> None:
    write_artifact(str(tmp_path), "int8")
    assert [state.name for state in inventory()] == [*MODELS, str(tmp_path)]


def test_artifact_belongs_to_its_model() -> None:
    artifact = write_artifact(MODEL.name, "int8")
    assert find_model(MODEL.name).artifacts == (artifact,)
    assert find_model("video-panda-7b-pretrained").artifacts == ()


def test_model_with_only_an_artifact_is_available() -> None:
    assert not is_available(MODEL)
    write_artifact(MODEL.name, "int8")
    assert is_available(MODEL)


def test_model_with_only_an_artifact_resolves_to_it() -> None:
    artifact = write_artifact(MODEL.name, "int8")
    assert checkpoints.resolve(MODEL.name) == checkpoints.ResolvedModel(
        MODEL.name, artifact.folder, "artifact"
    )


def test_artifact_is_used_beside_an_incomplete_download() -> None:
    interrupted_pull(b"weights")
    artifact = write_artifact(MODEL.name, "int8")
    assert checkpoints.resolve(MODEL.name).folder == artifact.folder


def test_model_with_only_a_damaged_artifact_is_damaged_not_absent() -> None:
    (write_artifact(MODEL.name, "int8").folder / "config.json").write_text("[]")
    with pytest.raises(ModelError, match="is damaged"):
        checkpoints.resolve(MODEL.name)


def test_deleted_folder_is_known_by_its_artifact(tmp_path: Path) -> None:
    gone = str(tmp_path / "gone")
    artifact = write_artifact(gone, "int8")
    assert find_model(gone).artifacts == (artifact,)


def test_folder_of_unknown_user_is_absent() -> None:
    artifact = write_artifact("~no-such-user/gone", "int8")
    state = find_model("~no-such-user/gone")
    assert (state.state, state.artifacts) == ("absent", (artifact,))


def test_tilde_of_unknown_user_in_panda_home_is_literal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PANDA_HOME", "~no-such-user/panda")
    assert panda_home() == Path("~no-such-user/panda")


def test_unreadable_folder_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_artifact(str(tmp_path / "unmounted"), "int8")
    make_unreadable(monkeypatch, tmp_path / "unmounted")
    assert [state.state for state in inventory()][-1] == "absent"


def test_folder_that_becomes_unreadable_is_incomplete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = pull_to(tmp_path / "mine")
    write_artifact(str(mine), "int8")
    make_unreadable(monkeypatch, mine / "config.json")
    state = find_model(str(mine))
    assert (state.state, state.bytes) == ("incomplete", 0)


def test_unreadable_known_model_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    make_unreadable(monkeypatch, panda_home() / "models" / MODEL.name / "config.json")
    assert find_model(MODEL.name).state == "absent"


def make_unreadable(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """Let `stat` of a path fail, as on a server that is gone."""
    stat = Path.stat

    def refuse(self: Path, **how: bool) -> os.stat_result:
        if self == path:
            raise OSError(errno.ESTALE, "Stale file handle", str(path))
        return stat(self, **how)

    monkeypatch.setattr(Path, "stat", refuse)


def test_unknown_name_is_refused() -> None:
    with pytest.raises(ModelError, match="no model is called 'nope'"):
        find_model("nope")


def test_files_under_panda_home_need_no_hub() -> None:
    pull_to(panda_home() / "models" / MODEL.name)
    assert not needs_hub(MODEL)


def test_available_model_needs_no_hub_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    pull()
    assert needs_hub(MODEL)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert not needs_hub(MODEL)
