"""The model under test."""

from pathlib import Path

import pytest

import pandacli

BUNDLED = Path(pandacli.__file__).parent / "assets" / "tiny"


@pytest.fixture(scope="session")
def tiny():
    """The bundled model, loaded once."""
    if not BUNDLED.is_dir():
        pytest.skip("tiny is not trained yet")
    return pandacli.Panda.load("tiny", device="cpu")
