"""Batched sequences of the torch backend give the logits of single ones."""

from random import Random
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pandacli import Panda
from pandacli.inference.backends.torch import TorchBackend, TorchSequence
from pandacli.modeling.video_panda import VideoPanda

PREFIX = [1, *range(20, 60)]
TEXTS = {4: [5, 6, 7], 9: [8], 2: [9, 10, 11, 12, 13, 14]}


@pytest.fixture
def sequence(panda: Panda) -> TorchSequence:
    sequence = TorchBackend(panda.model).new_sequence()
    sequence.append(PREFIX)
    return sequence


def single(sequence: TorchSequence, ids: list[int]) -> torch.Tensor:
    return sequence.fork().append(ids)


def test_a_sequence_attends_to_the_prefix_and_itself(sequence: TorchSequence) -> None:
    expected = torch.stack([single(sequence, ids) for ids in TEXTS.values()])
    torch.testing.assert_close(sequence.batch(99).append(TEXTS), expected)


def test_a_sequence_continues_while_others_start_and_are_removed(sequence: TorchSequence) -> None:
    expected = [single(sequence, [*TEXTS[4], 30, 31]), single(sequence, [40, 41])]
    batch = sequence.batch(99)
    batch.append(TEXTS)
    batch.append({4: [30], 2: [50]})
    batch.remove(9)
    torch.testing.assert_close(batch.append({4: [31], 9: [40, 41]}), torch.stack(expected))


def test_closing_restores_the_sequence(sequence: TorchSequence) -> None:
    expected = single(sequence, [70])
    batch = sequence.batch(99)
    batch.append(TEXTS)
    batch.close()
    assert sequence.length == len(PREFIX)
    torch.testing.assert_close(sequence.append([70]), expected)


def test_removed_sequences_are_compacted_away(sequence: TorchSequence) -> None:
    expected = single(sequence, [*TEXTS[2], 30])
    batch = sequence.batch(9999)
    batch.append(TEXTS | {100: [7] * 400})
    batch.remove(100)
    assert sequence.length == len(PREFIX) + sum(map(len, TEXTS.values()))
    torch.testing.assert_close(batch.append({2: [30]})[0], expected)


def test_the_prefix_is_held_once(sequence: TorchSequence) -> None:
    sequence.batch(99).append({text: [5] for text in range(20)})
    assert sequence.length == len(PREFIX) + 20


def test_sequences_of_any_lengths_match_single_ones(sequence: TorchSequence) -> None:
    """They start, continue and are removed in random order, beyond the first allocation."""
    random = Random(11)
    texts: dict[int, list[int]] = {}
    batch = sequence.batch(9999)
    for step in range(12):
        joining = {step: [random.randrange(3, 90) for _ in range(random.choice((1, 7, 300)))]}
        going_on = {text: [random.randrange(3, 90)] for text in texts if random.random() < 0.7}
        for text, ids in (unread := going_on | joining).items():
            texts[text] = texts.get(text, []) + ids
        logits = batch.append(unread)
        for row, text in zip(logits, unread, strict=True):
            torch.testing.assert_close(
                row, single_logits(sequence, texts[text]), rtol=1e-3, atol=1e-3
            )
        for text in [text for text in texts if random.random() < 0.3]:
            batch.remove(text)
            del texts[text]


def single_logits(sequence: TorchSequence, ids: list[int]) -> torch.Tensor:
    """The logits after these ids, from a new sequence."""
    fresh = sequence.backend.new_sequence()
    return fresh.append([*PREFIX, *ids])


class Transfers(TorchDispatchMode):
    """Records the sizes of what is copied from the CPU to another device."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_dispatch__(  # type: ignore[override]
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and made.device.type != "cpu":
            given = [arg for arg in args if isinstance(arg, torch.Tensor)]
            self.sizes += [arg.numel() for arg in given if arg.device.type == "cpu"]
        return made


@pytest.mark.parametrize("held", [5, 3000])
def test_a_pass_has_one_transfer_whose_size_does_not_grow_with_the_cache(
    panda: Panda, held: int
) -> None:
    model = VideoPanda(panda.model.config)
    model.to("meta").eval()
    sequence = TorchBackend(model).new_sequence()
    sequence.prefill(torch.zeros(held, model.config.hidden_size, device="meta"))
    batch = sequence.batch(9999)
    with Transfers() as transfers:
        batch.append({0: [5, 6, 7], 1: [8]})
        batch.append({0: [9], 1: [10]})
        batch.close()
        sequence.tree([5, 6, 7, 8], [-1, 0, 0, -1], [1, 3])
        sequence.append([9])
    assert transfers.sizes == [3 * 4 + 2, 3 * 2 + 2, 4 * 4 + 2, 1]
