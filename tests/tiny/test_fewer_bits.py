"""What `tiny` knows, it still knows in 8 and in 4 bits, whatever computes it."""

from importlib.util import find_spec

import pytest

from pandacli import Panda
from tests.tiny.other_hand import examine

LOST = {"8bit": 0.01, "4bit": 0.02}
"""The share of right answers that may be lost."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def share(tiny, tmp_path_factory):
    return right(tiny, tmp_path_factory.mktemp("films"))


def right(panda, folder):
    verdicts = list(examine(panda, 10, 3, folder))
    return sum(verdict.right for verdict in verdicts) / len(verdicts)


@pytest.mark.parametrize("quant", LOST)
@pytest.mark.parametrize("engine", ["torch", "bitsandbytes", "llama"])
def test_answers_are_kept(share, tmp_path, quant, engine):
    if engine == "llama" and not find_spec("xllamacpp"):
        pytest.skip("no llama.cpp")
    panda = Panda.load("tiny", device="cpu", quant=quant, engine=engine)
    assert right(panda, tmp_path) >= share - LOST[quant]
