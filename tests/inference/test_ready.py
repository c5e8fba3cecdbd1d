"""What can be loaded without making anything, or measuring what to make."""

from dataclasses import replace
from pathlib import Path

import pytest

from pandacli.inference.planning import loader as preparing
from pandacli.inference.planning.loader import is_ready, prepare

IN_8_BITS = {"quant": "8bit", "engine": "torch", "device": "cpu"}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PANDA_HOME", str(tmp_path))


def test_a_checkpoint_that_is_run_as_it_is_is_ready() -> None:
    assert is_ready("tiny", device="cpu")


def test_a_quantised_model_is_ready_once_its_copy_is_there() -> None:
    assert not is_ready("tiny", **IN_8_BITS)
    prepare("tiny", **IN_8_BITS)
    assert is_ready("tiny", **IN_8_BITS)


def test_nothing_is_ready_as_long_as_its_form_is_a_guess(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare("tiny", **IN_8_BITS)
    plan_for = preparing.plan_for

    def guess(*about: object, **how: object) -> preparing.Plan:
        return replace(plan_for(*about, **how), guessed=True)

    monkeypatch.setattr(preparing, "plan_for", guess)
    assert not is_ready("tiny", **IN_8_BITS)
