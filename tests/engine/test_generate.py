"""Choosing tokens, and cutting a cache back."""

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from pandacli.engine.generate import crop, generate, sample


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


def test_a_cache_left_uneven_is_cropped_to_one_length() -> None:
    cache = DynamicCache()
    kept = torch.randn(1, 2, 3, 4)
    for number, more in enumerate((2, 1, 0)):
        cache.update(torch.cat((kept, torch.randn(1, 2, more, 4)), 2), kept, number)
    crop(cache, 3)
    for layer in cache.layers:
        assert isinstance(layer, DynamicLayer)
        assert layer.keys is not None
        assert torch.equal(layer.keys, kept)
