"""The model under test."""

import pytest

import pandacli


@pytest.fixture(scope="session")
def tiny():
    """The bundled model, loaded once."""
    return pandacli.Panda.load("tiny", device="cpu")
