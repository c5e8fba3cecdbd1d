"""The race of engines: each really runs, and only once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pandacli.errors import UsageError
from pandacli.inference.planning import one_layer, speed
from pandacli.inference.planning.speed import Runner, race, remembered_race
from pandacli.modeling.configuration_videopanda import VideoPandaConfig

CONFIG = VideoPandaConfig(hidden_size=256, intermediate_size=512, num_attention_heads=4)
IN_TORCH: Runner = ("torch", "8bit")
IN_BITSANDBYTES: Runner = ("bitsandbytes", "8bit")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PANDA_HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    "runner", [IN_TORCH, IN_BITSANDBYTES, ("bitsandbytes", "4bit")], ids=" ".join
)
def test_every_engine_can_run(runner: Runner) -> None:
    assert 0 < race(CONFIG, [runner])[runner] < 60


@pytest.mark.parametrize("runner", [("llama", "8bit"), ("llama", "4bit")], ids=" ".join)
def test_llama_cpp_can_run_where_it_is_installed(runner: Runner) -> None:
    pytest.importorskip("xllamacpp")
    assert 0 < race(CONFIG, [runner])[runner] < 60


def test_a_race_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    assert remembered_race(CONFIG, [IN_TORCH, IN_BITSANDBYTES]) is None
    first = race(CONFIG, [IN_TORCH, IN_BITSANDBYTES])
    monkeypatch.setattr(speed, "_measure", None)
    assert race(CONFIG, [IN_TORCH, IN_BITSANDBYTES]) == first
    assert remembered_race(CONFIG, [IN_BITSANDBYTES, IN_TORCH]) == first


def test_another_size_and_another_field_are_other_races(monkeypatch: pytest.MonkeyPatch) -> None:
    race(CONFIG, [IN_TORCH])
    monkeypatch.setattr(speed, "_measure", lambda _, runners: dict.fromkeys(runners, 42.0))
    wider = VideoPandaConfig(hidden_size=512, intermediate_size=512, num_attention_heads=4)
    assert race(wider, [IN_TORCH]) == {IN_TORCH: 42.0}
    assert race(CONFIG, [IN_TORCH, IN_BITSANDBYTES])[IN_TORCH] == 42.0


def test_engines_take_turns_and_their_best_rounds_count(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    seconds: Iterator[float] = iter([9, 8, 3, 7, 5, 2])

    def run(layer: str, _: object) -> float:
        order.append(layer)
        return next(seconds)

    monkeypatch.setattr(speed, "_ready", lambda _, runner: runner[0])
    monkeypatch.setattr(speed, "_run", run)
    assert race(CONFIG, [IN_TORCH, IN_BITSANDBYTES]) == {IN_TORCH: 3, IN_BITSANDBYTES: 2}
    assert order == ["torch", "bitsandbytes"] * 3


def test_an_engine_that_cannot_run_loses_and_nothing_is_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise UsageError("no llama.cpp")

    monkeypatch.setattr(one_layer, "one_layer", fail)
    assert race(CONFIG, [IN_TORCH]) == {IN_TORCH: float("inf")}
    assert remembered_race(CONFIG, [IN_TORCH]) is None


@pytest.mark.parametrize("content", ["not JSON", "[1, 2]"])
def test_a_damaged_memory_is_measured_anew(home: Path, content: str) -> None:
    (home / "speed.json").write_text(content)
    assert race(CONFIG, [IN_TORCH])[IN_TORCH] > 0
