"""Texts behind one prefix, read by torch in one pass as if each were read alone."""

from random import Random
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pandacli import Panda
from pandacli.inference.backends.torch.model import TorchBackend, TorchSequence
from pandacli.modeling.modeling_videopanda import VideoPandaForConditionalGeneration

PREFIX = [1, *range(20, 60)]
TEXTS = {4: [5, 6, 7], 9: [8], 2: [9, 10, 11, 12, 13, 14]}


@pytest.fixture
def reading(panda: Panda) -> TorchSequence:
    reading = TorchBackend(panda.model).new_sequence()
    reading.append(PREFIX)
    return reading


def alone(reading: TorchSequence, ids: list[int]) -> torch.Tensor:
    return reading.fork().append(ids)


def test_each_text_sees_the_prefix_and_itself(reading: TorchSequence) -> None:
    expected = torch.stack([alone(reading, ids) for ids in TEXTS.values()])
    torch.testing.assert_close(reading.batch(99).append(TEXTS), expected)


def test_a_text_goes_on_while_others_begin_and_end(reading: TorchSequence) -> None:
    expected = [alone(reading, [*TEXTS[4], 30, 31]), alone(reading, [40, 41])]
    branches = reading.batch(99)
    branches.append(TEXTS)
    branches.append({4: [30], 2: [50]})
    branches.remove(9)
    torch.testing.assert_close(branches.append({4: [31], 9: [40, 41]}), torch.stack(expected))


def test_the_reading_comes_back_as_it_was(reading: TorchSequence) -> None:
    expected = alone(reading, [70])
    branches = reading.batch(99)
    branches.append(TEXTS)
    branches.close()
    assert reading.length == len(PREFIX)
    torch.testing.assert_close(reading.append([70]), expected)


def test_what_ended_makes_room(reading: TorchSequence) -> None:
    expected = alone(reading, [*TEXTS[2], 30])
    branches = reading.batch(9999)
    branches.append(TEXTS | {100: [7] * 400})
    branches.remove(100)
    assert reading.length == len(PREFIX) + sum(map(len, TEXTS.values()))
    torch.testing.assert_close(branches.append({2: [30]})[0], expected)


def test_the_prefix_is_held_once(reading: TorchSequence) -> None:
    reading.batch(99).append({text: [5] for text in range(20)})
    assert reading.length == len(PREFIX) + 20


def test_texts_of_any_lengths_read_as_they_do_alone(reading: TorchSequence) -> None:
    """They join, read on and end in a random order, past the room that owners begin with."""
    random = Random(11)
    texts: dict[int, list[int]] = {}
    branches = reading.batch(9999)
    for step in range(12):
        joining = {step: [random.randrange(3, 90) for _ in range(random.choice((1, 7, 300)))]}
        going_on = {text: [random.randrange(3, 90)] for text in texts if random.random() < 0.7}
        for text, ids in (unread := going_on | joining).items():
            texts[text] = texts.get(text, []) + ids
        logits = branches.append(unread)
        for row, text in zip(logits, unread, strict=True):
            torch.testing.assert_close(row, reads_alone(reading, texts[text]), rtol=1e-3, atol=1e-3)
        for text in [text for text in texts if random.random() < 0.3]:
            branches.remove(text)
            del texts[text]


def reads_alone(reading: TorchSequence, ids: list[int]) -> torch.Tensor:
    """The logits after these ids; the reading itself is lent to the branches."""
    fresh = TorchBackend(reading._model).new_sequence()
    return fresh.append([*PREFIX, *ids])


class Made(TorchDispatchMode):
    """Counts the elements of the tensors that are copied or made elsewhere than on the device."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device, self.elsewhere = device, 0

    def __torch_dispatch__(  # type: ignore[override]
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and made.device.type != self.device:
            self.elsewhere = max(self.elsewhere, made.numel())
        return made


@pytest.mark.parametrize("held", [5, 3000])
def test_a_mask_is_made_on_the_device_of_the_model(panda: Panda, held: int) -> None:
    model = VideoPandaForConditionalGeneration(panda.model.config)
    model.to("meta").eval()  # type: ignore[no-untyped-call]
    reading = TorchBackend(model).new_sequence()
    reading.prefill(torch.zeros(held, model.config.hidden_size, device="meta"))
    branches = reading.batch(9999)
    with Made("meta") as made:
        branches.append({0: [5, 6, 7], 1: [8]})
        branches.append({0: [9], 1: [10]})
    assert made.elsewhere <= 3 * 4  # ids, positions and owners of the new tokens
