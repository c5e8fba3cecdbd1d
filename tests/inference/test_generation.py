"""Sampling: greedy at temperature zero, and no overflow at any temperature."""

import math
from collections.abc import Iterator
from random import Random
from sys import float_info

import pytest
import torch

from pandacli.errors import UsageError
from pandacli.inference import GenerationOptions
from pandacli.inference.generation import sample


def test_temperature_zero_is_greedy() -> None:
    assert [sample(torch.tensor([0.1, 0.3, 0.2])) for _ in range(5)] == [1] * 5


def test_tokens_are_sampled_by_their_probability() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.tensor([0.0, 0.0, 1.0986 * 2])  # at temperature 2: 1 to 1 to 3
    sampled = [sample(logits, 2.0, generator) for _ in range(2000)]
    assert abs(sampled.count(2) / 2000 - 0.6) < 0.04


def test_a_low_temperature_does_not_overflow() -> None:
    assert sample(torch.tensor([30000.0, 0.0], dtype=torch.float16), 1e-6) == 0


def temperatures(count: int) -> Iterator[float]:
    """Positive numbers of every size that a float has, from subnormal to the largest."""
    yield from (5e-324, 1e-308, float_info.min, 1e-300, 1e300, float_info.max)
    random = Random(3)
    yield from (10 ** random.uniform(-323, 308) for _ in range(count))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_no_temperature_samples_an_impossible_token(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(4)
    for temperature in temperatures(200):
        GenerationOptions(temperature=temperature).check()
        spread = float(torch.rand((), generator=generator)) * 50
        logits = (torch.randn(40, generator=generator) * spread - 10).to(dtype)
        logits[7] = -torch.inf
        token = sample(logits, temperature, generator)
        assert 0 <= token < 40
        assert token != 7
        if temperature < 1e-5:
            assert logits[token] == logits.max()


def test_a_huge_temperature_samples_uniformly() -> None:
    generator = torch.Generator().manual_seed(0)
    sampled = [sample(torch.tensor([0.0, 60.0, -60.0]), 1e300, generator) for _ in range(600)]
    assert min(map(sampled.count, range(3))) > 150


@pytest.mark.parametrize("temperature", [-1.0, -5e-324, math.inf, math.nan, -math.inf, 10**400])
def test_a_temperature_that_is_negative_or_not_finite_is_refused(temperature: float) -> None:
    with pytest.raises(UsageError, match="a temperature cannot be"):
        GenerationOptions(temperature=temperature).check()
