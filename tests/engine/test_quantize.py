"""Fewer bits: which are chosen, and when they are refused."""

from pathlib import Path

import pytest
import torch

from pandacli.engine import quantize
from pandacli.engine.quantize import Quant, check_widths, needed_bytes, pick_quant
from pandacli.errors import DeviceError, UsageError
from pandacli.model.config import VideoPandaConfig

CPU = torch.device("cpu")
SEVEN_BILLION = VideoPandaConfig(vocab_size=32000)


@pytest.fixture(scope="module")
def config(checkpoint: Path) -> VideoPandaConfig:
    return VideoPandaConfig.from_pretrained(checkpoint)


def with_free_memory(monkeypatch: pytest.MonkeyPatch, gigabytes: float) -> None:
    monkeypatch.setattr(quantize, "free_memory", lambda _: int(gigabytes * 1e9))


@pytest.mark.parametrize(
    ("gigabytes", "dtype", "quant"),
    [
        (64, torch.float32, "none"),
        (24, torch.float32, "8bit"),
        (10, torch.float32, "4bit"),
        (24, torch.bfloat16, "none"),
        (12, torch.bfloat16, "8bit"),
        (8, torch.bfloat16, "4bit"),
    ],
)
def test_auto_takes_the_most_bits_that_fit(
    monkeypatch: pytest.MonkeyPatch, gigabytes: float, dtype: torch.dtype, quant: Quant
) -> None:
    with_free_memory(monkeypatch, gigabytes)
    assert pick_quant("auto", SEVEN_BILLION, CPU, dtype) == quant


def test_auto_says_when_nothing_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    with_free_memory(monkeypatch, 2.0)
    with pytest.raises(DeviceError, match=r"even in 4 bits, and 2\.0 GB are free"):
        pick_quant("auto", SEVEN_BILLION, CPU, torch.float32)


def test_a_small_model_is_never_quantised_by_itself(config: VideoPandaConfig) -> None:
    assert pick_quant("auto", config, CPU, torch.float32) == "none"


def test_what_is_asked_for_is_done_whatever_the_memory(
    monkeypatch: pytest.MonkeyPatch, config: VideoPandaConfig
) -> None:
    with_free_memory(monkeypatch, 0.0)
    for quant in ("none", "8bit", "4bit"):
        assert pick_quant(quant, config, CPU, torch.float32) == quant


def test_the_seven_billion_need_what_they_weigh() -> None:
    weights = 6.785e9  # Llama-7B with STAB and its projector
    cache = 2 * 32 * 4096 * 4096  # numbers in a full KV cache
    needed = needed_bytes(SEVEN_BILLION, "none", torch.bfloat16)
    assert needed == pytest.approx(2 * (weights + cache), rel=0.01)


def test_a_name_of_no_quantisation_is_a_usage_error(config: VideoPandaConfig) -> None:
    with pytest.raises(UsageError, match="no quantisation is called '5bit'"):
        pick_quant("5bit", config, CPU, torch.float32)


def test_widths_that_bitsandbytes_cannot_pack_are_refused() -> None:
    odd = VideoPandaConfig(hidden_size=64, intermediate_size=160, num_attention_heads=4)
    with pytest.raises(UsageError, match="64 and 160, are not multiples of 64"):
        check_widths(odd)
