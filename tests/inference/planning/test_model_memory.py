"""Memory estimates of a model, made without its weights."""

import pytest
import torch

from pandacli.inference.planning.devices import bytes_of, sizes_of
from pandacli.modeling.configuration import ModelConfig
from pandacli.modeling.video_panda import VideoPanda
from tests.small_llama import SIZES

SEVEN_BILLION = sizes_of(ModelConfig(vocab_size=32000))
WEIGHTS = 6.785e9  # Llama-7B with STAB and its projector
CACHE = 2 * 32 * 4096 * 4096  # numbers in a full KV cache


def test_seven_billion_parameters_need_their_weight() -> None:
    needed = bytes_of(SEVEN_BILLION, "none", "torch", torch.bfloat16)
    assert needed.total == pytest.approx(2 * (WEIGHTS + CACHE), rel=0.01)


def test_sizes_of_parts_sum_to_model() -> None:
    config = ModelConfig(**SIZES)
    sizes = sizes_of(config)
    model = VideoPanda(config)
    parts = sizes.front + sizes.layers * (sizes.linears + sizes.norms) + sizes.back
    assert parts == sum(parameter.numel() for parameter in model.parameters())


def test_fewer_bits_need_less_unless_widened() -> None:
    def total(quant: str, engine: str) -> int:
        return bytes_of(SEVEN_BILLION, quant, engine, torch.float32).total  # type: ignore[arg-type]

    assert total("4bit", "llama") < total("4bit", "bitsandbytes") < total("8bit", "torch")
    assert total("4bit", "torch") == total("8bit", "torch") < total("none", "torch") / 2
