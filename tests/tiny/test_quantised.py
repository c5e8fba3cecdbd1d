"""`tiny` keeps its accuracy in 8 and 4 bits, on every backend."""

from importlib.util import find_spec

import pytest

from pandacli import Panda
from tests.tiny.independent_evaluation import evaluate

MAX_LOSS = {"8bit": 0.01, "4bit": 0.02}
"""Share of right answers that may be lost."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def share(tiny, tmp_path_factory):
    return right(tiny, tmp_path_factory.mktemp("videos"))


def right(panda, folder):
    verdicts = list(evaluate(panda, 10, 3, folder))
    return sum(verdict.right for verdict in verdicts) / len(verdicts)


@pytest.mark.parametrize("quant", MAX_LOSS)
@pytest.mark.parametrize("engine", ["torch", "bitsandbytes", "llama"])
def test_quantised_model_keeps_accuracy(share, tmp_path, quant, engine):
    if engine == "llama" and not find_spec("xllamacpp"):
        pytest.skip("no llama.cpp")
    panda = Panda.load("tiny", device="cpu", quant=quant, engine=engine)
    assert right(panda, tmp_path) >= share - MAX_LOSS[quant]
