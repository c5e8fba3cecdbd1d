"""Choosing tokens, one after another."""

import math
from collections.abc import Iterator
from random import Random
from sys import float_info

import pytest
import torch

from pandacli.errors import UsageError
from pandacli.inference.generation import check_drawing, generate, sample


def logits_for(token: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(token), 10).float()


def test_at_temperature_zero_the_likeliest_token_is_taken() -> None:
    assert [sample(torch.tensor([0.1, 0.3, 0.2])) for _ in range(5)] == [1] * 5


def test_above_zero_tokens_are_drawn_by_their_probability() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.tensor([0.0, 0.0, 1.0986 * 2])  # at temperature 2: 1 to 1 to 3
    drawn = [sample(logits, 2.0, generator) for _ in range(2000)]
    assert abs(drawn.count(2) / 2000 - 0.6) < 0.04


def test_a_low_temperature_does_not_overflow() -> None:
    assert sample(torch.tensor([30000.0, 0.0], dtype=torch.float16), 1e-6) == 0


def temperatures(count: int) -> Iterator[float]:
    """Positive numbers of every size that a float has, from subnormal to the largest."""
    yield from (5e-324, 1e-308, float_info.min, 1e-300, 1e300, float_info.max)
    random = Random(3)
    yield from (10 ** random.uniform(-323, 308) for _ in range(count))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_any_positive_temperature_draws_a_token_that_it_may(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(4)
    for temperature in temperatures(200):
        check_drawing(1, temperature, None)
        spread = float(torch.rand((), generator=generator)) * 50
        logits = (torch.randn(40, generator=generator) * spread - 10).to(dtype)
        logits[7] = -torch.inf
        token = sample(logits, temperature, generator)
        assert 0 <= token < 40
        assert token != 7
        if temperature < 1e-5:
            assert logits[token] == logits.max()


def test_a_huge_temperature_draws_all_tokens_alike() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = [sample(torch.tensor([0.0, 60.0, -60.0]), 1e300, generator) for _ in range(600)]
    assert min(map(drawn.count, range(3))) > 150


@pytest.mark.parametrize("temperature", [-1.0, -5e-324, math.inf, math.nan, -math.inf, 10**400])
def test_a_temperature_that_is_no_finite_positive_number_is_refused(temperature: float) -> None:
    with pytest.raises(UsageError, match="a temperature cannot be"):
        check_drawing(1, temperature, None)


def test_tokens_follow_from_each_other_up_to_the_stop_token() -> None:
    tokens = generate(logits_for(3), lambda token: logits_for(token + 1), sample, frozenset({6}), 9)
    assert list(tokens) == [3, 4, 5, 6]


def test_no_step_is_taken_after_the_last_token() -> None:
    stepped: list[int] = []

    def step(token: int) -> torch.Tensor:
        stepped.append(token)
        return logits_for(token + 1)

    assert list(generate(logits_for(1), step, sample, frozenset(), 3)) == [1, 2, 3]
    assert stepped == [1, 2]
