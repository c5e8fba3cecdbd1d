"""Texts behind one prefix, read by torch in one pass as if each were read alone."""

import pytest
import torch

from pandacli import Panda
from pandacli.engine.torch_llama import TorchLlama, TorchReading

PREFIX = [1, *range(20, 60)]
TEXTS = {4: [5, 6, 7], 9: [8], 2: [9, 10, 11, 12, 13, 14]}


@pytest.fixture
def reading(panda: Panda) -> TorchReading:
    reading = TorchLlama(panda.model).start()
    reading.read(PREFIX)
    return reading


def alone(reading: TorchReading, ids: list[int]) -> torch.Tensor:
    return reading.fork().read(ids)


def test_each_text_sees_the_prefix_and_itself(reading: TorchReading) -> None:
    expected = torch.stack([alone(reading, ids) for ids in TEXTS.values()])
    torch.testing.assert_close(reading.branch(99).read(TEXTS), expected)


def test_a_text_goes_on_while_others_begin_and_end(reading: TorchReading) -> None:
    expected = [alone(reading, [*TEXTS[4], 30, 31]), alone(reading, [40, 41])]
    branches = reading.branch(99)
    branches.read(TEXTS)
    branches.read({4: [30], 2: [50]})
    branches.end(9)
    torch.testing.assert_close(branches.read({4: [31], 9: [40, 41]}), torch.stack(expected))


def test_the_reading_comes_back_as_it_was(reading: TorchReading) -> None:
    expected = alone(reading, [70])
    branches = reading.branch(99)
    branches.read(TEXTS)
    branches.close()
    assert reading.length == len(PREFIX)
    torch.testing.assert_close(reading.read([70]), expected)


def test_what_ended_makes_room(reading: TorchReading) -> None:
    expected = alone(reading, [*TEXTS[2], 30])
    branches = reading.branch(9999)
    branches.read(TEXTS | {100: [7] * 400})
    branches.end(100)
    assert reading.length == len(PREFIX) + sum(map(len, TEXTS.values()))
    torch.testing.assert_close(branches.read({2: [30]})[0], expected)


def test_the_prefix_is_held_once(reading: TorchReading) -> None:
    reading.branch(99).read({text: [5] for text in range(20)})
    assert reading.length == len(PREFIX) + 20
