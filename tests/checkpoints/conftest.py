"""A fake hub, and empty folders for panda and huggingface_hub."""

from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest

from tests.fake_hub import FIRST, FakeHub, checkpoint


@pytest.fixture
def empty_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty folders for models, which the test may fill."""
    use_empty_folders(tmp_path, monkeypatch)


def use_empty_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let panda and huggingface_hub use empty folders of the test."""
    monkeypatch.setenv("PANDA_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub that publishes both models in one commit, and empty folders."""
    use_empty_folders(tmp_path, monkeypatch)
    hub = FakeHub({FIRST: checkpoint() | checkpoint("videopanda_prtr1", b"earlier weights")})
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("time.sleep", lambda _: None)  # between the attempts of huggingface_hub
    yield hub
    hub.close()
    huggingface_hub.utils.close_session()
