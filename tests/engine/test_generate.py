"""Choosing tokens, one after another."""

import torch

from pandacli.engine.generate import generate, sample


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
