"""Removing a model: what panda made or downloaded, and nothing else."""

from pathlib import Path

import huggingface_hub
import pytest

from pandacli import store
from pandacli.errors import ModelError, UsageError
from pandacli.store import MODELS
from pandacli.store.checkpoint_folder import check_checkpoint
from tests.fake_hub import FIRST, REPO
from tests.store.downloads import MODEL, interrupted_pull, pull, pull_to, write_copy

pytestmark = pytest.mark.usefixtures("hub")
OTHER = MODELS["video-panda-7b-pretrained"]


def files_left(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and ".locks" not in path.parts]


def cached_files(tmp_path: Path) -> list[Path]:
    return [p for p in files_left(tmp_path / "hub") if p.name != "CACHEDIR.TAG"]


def test_a_download_leaves_nothing_behind(tmp_path: Path) -> None:
    pull()
    removal = store.plan_removal(MODEL.name)
    assert removal.download
    assert removal.bytes > 320_000
    store.remove(removal)
    assert cached_files(tmp_path) == []
    assert files_left(store.home()) == []


def test_the_other_model_of_the_repository_stays_whole() -> None:
    pull()
    other = pull(model=OTHER)
    store.remove(store.plan_removal(MODEL.name))
    assert not (other.folder.parent / "videopanda_fitu" / "config.json").exists()
    check_checkpoint(other.folder)
    assert store.find_model(MODEL.name).state == "absent"


def test_what_another_program_downloaded_of_the_repository_stays() -> None:
    pull()
    kept = huggingface_hub.hf_hub_download(REPO, "README.md", revision=FIRST)
    store.remove(store.plan_removal(MODEL.name))
    assert Path(kept).exists()


def test_what_an_interrupted_download_left_goes_too(tmp_path: Path) -> None:
    interrupted_pull(b"weights " * 25_000)
    removal = store.plan_removal(MODEL.name)
    assert removal.bytes > 200_000
    store.remove(removal)
    assert cached_files(tmp_path) == []


def test_copies_go_with_their_model() -> None:
    copies = (write_copy(MODEL.name, "int8"), write_copy(MODEL.name, "nf4"))
    removal = store.plan_removal(MODEL.name)
    assert removal.copies == copies
    store.remove(removal)
    assert store.find_model(MODEL.name).copies == ()


def test_one_kind_of_copy_can_go_alone() -> None:
    pull()
    int8, nf4 = write_copy(MODEL.name, "int8"), write_copy(MODEL.name, "nf4")
    removal = store.plan_removal(MODEL.name, "8bit")
    assert (removal.copies, removal.download) == ((int8,), False)
    store.remove(removal)
    assert store.find_model(MODEL.name).copies == (nf4,)
    assert store.resolve(MODEL.name).kind == "cache"


def test_the_download_can_go_and_the_copies_stay() -> None:
    pull()
    copy = write_copy(MODEL.name, "int8")
    store.remove(store.plan_removal(MODEL.name, "none"))
    state = store.find_model(MODEL.name)
    assert (state.state, state.copies) == ("absent", (copy,))


def test_copies_of_a_folder_go_and_the_folder_stays(tmp_path: Path) -> None:
    mine = pull_to(tmp_path / "mine")
    write_copy(str(mine), "int8")
    store.remove(store.plan_removal(str(mine)))
    assert (mine / "config.json").exists()
    with pytest.raises(UsageError, match="is not from panda, and stays"):
        store.plan_removal(str(mine))


def test_what_a_person_put_under_panda_home_stays() -> None:
    pull_to(store.home() / "models" / MODEL.name)
    with pytest.raises(UsageError, match="is not from panda, and stays"):
        store.plan_removal(MODEL.name)


def test_tiny_stays() -> None:
    with pytest.raises(UsageError, match="tiny is a part of panda, and stays"):
        store.plan_removal("tiny")


@pytest.mark.parametrize(
    ("quant", "message"),
    [(None, "video-panda-7b is not on this machine"), ("4bit", "there is no 4bit copy of")],
)
def test_what_is_not_here_cannot_be_removed(quant: str | None, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        store.plan_removal(MODEL.name, quant)
