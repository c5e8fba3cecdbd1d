"""Placement of a model on several GPUs."""

import warnings
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from accelerate.utils.modeling import check_device_map
from torch.utils._python_dispatch import TorchDispatchMode

from pandacli import Panda
from pandacli.inference import GenerationOptions, Request
from pandacli.inference.backends.torch import TorchBackend
from pandacli.inference.planning.devices import Needed, Placement, place
from pandacli.modeling.video_panda import VideoPanda

CARDS = [torch.device("cuda", number) for number in range(4)]
NEEDED = Needed(front=3, layer=2, back=1, layers=10)  # 24 in all


def placed(*free: int) -> Placement | None:
    return place(NEEDED, list(zip(CARDS, free, strict=False)))


def test_model_that_fits_one_gpu_uses_one() -> None:
    assert placed(30, 24) == Placement((CARDS[0],))
    assert Placement((CARDS[0],)).device_map == {"": CARDS[0]}


def test_layers_are_spread_to_equal_free_memory() -> None:
    found = placed(20, 20)
    assert found is not None
    assert found.layers == (5, 5)
    smaller = placed(20, 10)
    assert smaller is not None
    assert smaller.layers == (7, 3)


def test_fewest_gpus_are_used() -> None:
    found = placed(20, 18, 16, 14)
    assert found is not None
    assert found.devices == (CARDS[0], CARDS[1])


@pytest.mark.parametrize("free", [(23,), (13, 10), (12, 11), (2, 2, 2, 2), ()])
def test_model_that_does_not_fit_has_no_placement(free: tuple[int, ...]) -> None:
    assert placed(*free) is None


def test_placement_never_exceeds_free_memory() -> None:
    for first in range(4, 24):
        for second in range(1, first + 1):
            found = placed(first, second)
            if found is not None:
                assert found.layers[0] * 2 + 3 <= first
                assert found.layers[1] * 2 + 1 <= second
                assert sum(found.layers) == 10


def test_device_map_covers_every_part(panda: Panda) -> None:
    placement = Placement((CARDS[0], CARDS[1]), (1, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # check_device_map warns of missing parts
        check_device_map(panda.model, placement.device_map)
    first = {name for name, card in placement.device_map.items() if card == CARDS[0]}
    assert first == {
        "model.embed_tokens",
        "model.video_tower",
        "model.video_projector",
        "model.layers.0",
    }


def test_placement_reads_as_words() -> None:
    texts = [str(Placement(tuple(CARDS[:count]))) for count in (1, 2, 3)]
    assert texts == ["cuda:0", "cuda:0 and cuda:1", "cuda:0, cuda:1 and cuda:2"]
    assert str(Placement((torch.device("cpu"),))) == "the CPU"


def test_states_move_to_the_device_of_each_layer(panda: Panda) -> None:
    """The meta device stands for another card."""
    model = VideoPanda(panda.model.config)
    model.load_state_dict(panda.model.state_dict())
    model.eval()
    for part in (model.model.layers[1], model.model.norm, model.lm_head):
        part.to("meta")
    sequence = TorchBackend(model).new_sequence()
    sequence.append([5, 6, 7])
    logits = sequence.append([1, 20, 31, 42])  # behind others, with a mask
    assert (logits.device.type, logits.shape) == ("meta", (model.config.vocab_size,))
    assert [layer.keys.device.type for layer in sequence.cache.layers] == ["cpu", "meta"]


class Indexing(TorchDispatchMode):
    """Records the devices of what is indexed and of the indices."""

    def __init__(self) -> None:
        super().__init__()
        self.pairs: list[tuple[str, str]] = []

    def __torch_dispatch__(  # type: ignore[override]
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.aten.index.Tensor:
            held, indices = args
            self.pairs += [(held.device.type, i.device.type) for i in indices if i is not None]
        return func(*args, **(kwargs or {}))


def test_batch_logits_are_picked_on_last_device(panda: Panda) -> None:
    """The meta device stands for the last card."""
    model = VideoPanda(panda.model.config)
    model.load_state_dict(panda.model.state_dict())
    model.eval()
    for last in (model.model.norm, model.lm_head):
        last.to("meta")
    random = Random(7)
    texts = {number: [random.randrange(3, 90) for _ in range(1 + number)] for number in range(4)}
    sequence = TorchBackend(model).new_sequence()
    sequence.prefill(torch.zeros(5, model.config.hidden_size))
    with Indexing() as indexing:
        logits = sequence.batch(99).append(texts)
    assert logits.shape == (4, model.config.vocab_size)
    assert ("meta", "meta") in indexing.pairs
    assert all(held == index for held, index in indexing.pairs)


@pytest.mark.cuda
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices")
def test_batch_on_two_gpus_matches_one(
    checkpoint: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pandacli.inference.planning import planner as plan

    requests = [Request("What happens?"), Request("Where?"), Request("Who is it?")]
    one = Panda.load(checkpoint, device="cuda:0", quant="none")
    spread = Placement((CARDS[0], CARDS[1]), (1, 1))
    monkeypatch.setattr(plan, "place", lambda *_: spread)
    two = Panda.load(checkpoint, device="cuda", quant="none")
    answers = [
        {
            index: str(answer)
            for index, answer in panda.open(clip).generate(requests, GenerationOptions(8)).results()
        }
        for panda in (one, two)
    ]
    assert answers[0] == answers[1]


@pytest.mark.cuda
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices")
@pytest.mark.parametrize("quant", ["none", "8bit", "4bit"])
def test_model_on_two_gpus_matches_one(
    checkpoint: Path, clip: Path, quant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pandacli.inference.planning import planner as plan

    one = Panda.load(checkpoint, device="cuda:0", quant=quant)
    spread = Placement((CARDS[0], CARDS[1]), (1, 1))
    monkeypatch.setattr(plan, "place", lambda *_: spread)
    two = Panda.load(checkpoint, device="cuda", quant=quant)
    assert two.devices == ("cuda:0", "cuda:1")
    answers = [panda.ask(clip, "What happens?", max_tokens=8).text for panda in (one, two)]
    assert answers[0] == answers[1]


@pytest.mark.cuda
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices")
def test_sequence_saved_on_two_gpus_is_restored(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pandacli.inference.planning import planner as plan

    monkeypatch.setattr(plan, "place", lambda *_: Placement((CARDS[0], CARDS[1]), (1, 1)))
    llama = Panda.load(checkpoint, device="cuda", quant="none").backend
    sequence = llama.new_sequence()
    sequence.append([1, 20, 31])
    sequence.save(tmp_path / "kv")
    assert torch.equal(llama.restore(tmp_path / "kv").append([42]), sequence.append([42]))
