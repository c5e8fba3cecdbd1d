"""An empty store, and a small checkpoint to convert."""

from pathlib import Path

import pytest

from pandacli.checkpoints import resolve
from pandacli.quantization import conversion as converting
from pandacli.quantization.conversion import Source, describe_source


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with nothing in it, whose files are small."""
    monkeypatch.setenv("PANDA_HOME", str(tmp_path))
    monkeypatch.setattr(converting, "_FILE_PARAMETERS", 50_000)
    return tmp_path


@pytest.fixture
def source(checkpoint: Path) -> Source:
    return describe_source(resolve(checkpoint))
