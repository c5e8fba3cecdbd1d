"""Measuring engines: each is really run, and only once."""

from pathlib import Path

import pytest

from pandacli.engine import speed
from pandacli.engine.speed import seconds_a_layer
from pandacli.model.config import VideoPandaConfig

CONFIG = VideoPandaConfig(hidden_size=128, intermediate_size=256, num_attention_heads=4)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PANDA_HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("engine", "quant"), [("torch", "8bit"), ("bitsandbytes", "8bit"), ("bitsandbytes", "4bit")]
)
def test_every_engine_can_be_measured(engine: str, quant: str) -> None:
    assert seconds_a_layer(CONFIG, engine, quant) > 0


def test_a_measurement_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    first = seconds_a_layer(CONFIG, "torch", "8bit")
    monkeypatch.setattr(speed, "_measure", None)
    assert seconds_a_layer(CONFIG, "torch", "8bit") == first


def test_another_size_is_measured_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds_a_layer(CONFIG, "torch", "8bit")
    monkeypatch.setattr(speed, "_measure", lambda *_: 42.0)
    wider = VideoPandaConfig(hidden_size=256, intermediate_size=256, num_attention_heads=4)
    assert seconds_a_layer(wider, "torch", "8bit") == 42.0


@pytest.mark.parametrize("content", ["not JSON", "[1, 2]"])
def test_a_damaged_memory_is_measured_anew(home: Path, content: str) -> None:
    (home / "speed.json").write_text(content)
    assert seconds_a_layer(CONFIG, "torch", "8bit") > 0
