"""A model of which only a quantised copy is left, after `panda pull --drop-original`."""

import shutil
from pathlib import Path

import pytest

from pandacli import Panda, store
from pandacli.engine.preparing import prepare
from pandacli.errors import ModelError

NAME = "video-panda-7b"


@pytest.fixture
def dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy in 8 bits of a small model that goes by the name of the large one."""
    monkeypatch.setenv("PANDA_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    original = tmp_path / "models" / NAME
    shutil.copytree(store.resolve("tiny").folder, original)
    assert prepare(NAME, quant="8bit", device="cpu") is not None
    shutil.rmtree(original)


@pytest.mark.usefixtures("dropped")
def test_it_is_loaded_from_its_copy() -> None:
    panda = Panda.load(NAME, device="cpu")
    assert (panda.name, panda.quant, panda.engine) == (NAME, "8bit", "torch")


@pytest.mark.usefixtures("dropped")
def test_other_bits_take_the_original() -> None:
    with pytest.raises(ModelError) as caught:
        Panda.load(NAME, device="cpu", quant="none")
    assert caught.value.hint == "get it with: panda pull video-panda-7b --quant none"
