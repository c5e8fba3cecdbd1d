"""Single tokens on buffers that stay in place have the logits of ordinary passes."""

from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import pandacli
from pandacli import Panda
from pandacli.inference.backends.cuda_graphs import StaticDecoder, Step
from pandacli.inference.backends.torch import TorchBackend, TorchSequence
from pandacli.inference.planning.devices import Placement
from pandacli.inference.planning.loader import _decoder
from pandacli.modeling.configuration import ModelConfig
from pandacli.modeling.video_panda import VideoPanda
from tests.inference.backends.recorded_graph import RecordedGraph, stand_in

VOCABULARY = 90
CLIP = Path(pandacli.__file__).parent / "assets" / "demo.mp4"


def small_model(groups: int) -> VideoPanda:
    """A random model; each group of queries shares keys and values."""
    torch.manual_seed(groups)
    config = ModelConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=groups,
        video_hidden_size=32,
        video_num_heads=4,
        image_size=112,
        patch_size=14,
    )
    return VideoPanda(config).eval().requires_grad_(False)


def decoding(model: VideoPanda, *, capture: bool = False) -> TorchBackend:
    return TorchBackend(model, decoder=StaticDecoder(model, capture=capture))


def assert_close(given: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(given, wanted, rtol=1e-5, atol=1e-5)


def draw_ids(draw: Random, most: int) -> list[int]:
    return [draw.randrange(VOCABULARY) for _ in range(draw.randint(1, most))]


def changed(sequence: TorchSequence, change: str, draw: Random, path: Path) -> TorchSequence:
    """The sequence after something that may replace, or cut, its buffers."""
    if change == "truncate":
        sequence.truncate(draw.randint(1, sequence.length))
    elif change == "fork":
        fork = sequence.fork()
        sequence.append([1])  # of no effect on the fork
        return fork
    elif change == "restore":
        sequence.save(path)
        return sequence.backend.restore(path)
    elif change == "batch":
        batch = sequence.batch(999)
        batch.append({0: draw_ids(draw, 9), 1: draw_ids(draw, 300)})
        batch.close()
    elif change == "tree":
        sequence.tree([1, 2, 3], [-1, 0, -1], [2])
    return sequence


CHANGES = ("none", "truncate", "fork", "restore", "batch", "tree")


@pytest.mark.parametrize("capture", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_drawn_appends_have_the_logits_of_ordinary_passes(
    seed: int, capture: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch)
    model = small_model(groups=[4, 2, 1][seed])
    backends = TorchBackend(model), decoding(model, capture=capture)
    sequences = [backend.new_sequence() for backend in backends]
    draw = Random(seed)
    prompt = draw_ids(draw, 400)
    for sequence in sequences:
        sequence.append(prompt)
    for _ in range(8):
        change, state = draw.choice(CHANGES), draw.getrandbits(32)
        sequences = [changed(each, change, Random(state), tmp_path / "kv") for each in sequences]
        tokens = draw_ids(draw, 9)
        first = draw_ids(draw, 5)
        assert_close(sequences[1].append(first), sequences[0].append(first))
        for token in tokens:
            ordinary, static = (sequence.append([token]) for sequence in sequences)
            assert_close(static, ordinary)
            assert sequences[0].length == sequences[1].length


@pytest.mark.parametrize("capture", [False, True])
def test_buffers_grow_where_a_token_has_no_room(
    capture: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch)
    model = small_model(groups=4)
    ordinary = TorchBackend(model).new_sequence()
    static = decoding(model, capture=capture).new_sequence()
    for sequence in (ordinary, static):
        sequence.append([7] * 245)
    for token in range(30):  # across position 256
        assert_close(static.append([token]), ordinary.append([token]))
    assert RecordedGraph.captures == (2 if capture else 0)


@pytest.mark.parametrize("capture", [False, True])
def test_rows_have_the_logits_of_ordinary_passes(
    capture: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch)
    model, draw = small_model(groups=2), Random(1)
    embeddings = torch.randn(5, 250, model.config.hidden_size)
    batches = [
        backend.rows(embeddings).batch()
        for backend in (TorchBackend(model), decoding(model, capture=capture))
    ]
    rows = [0, 1, 2, 3, 4]
    for step in range(14):
        if step == 9:
            rows = [1, 4]  # fewer than half: these are copied
        texts = {row: [draw.randrange(VOCABULARY)] for row in rows}
        ordinary, static = (batch.append(texts) for batch in batches)
        assert_close(static, ordinary)
    # before position 256, and for the copy; between them there are too few tokens
    assert RecordedGraph.captures == (2 if capture else 0)


def test_one_graph_serves_what_uses_the_same_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)
    sequence = decoding(small_model(groups=4), capture=True).new_sequence()
    sequence.append([5] * 20)
    for _ in range(3):
        for token in range(10):
            sequence.append([token])
        sequence.truncate(15)
        sequence.append([6] * 30)
    assert RecordedGraph.captures == 1


def test_logits_stay_when_the_next_token_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)
    model = small_model(groups=4)
    ordinary, graphed = TorchBackend(model), decoding(model, capture=True)
    sequences = [backend.new_sequence() for backend in (ordinary, graphed)]
    for sequence in sequences:
        sequence.append([5] * 20)
    expected, given = ([each.append([token]) for token in range(6)] for each in sequences)
    assert_close(torch.stack(given), torch.stack(expected))


def test_the_first_tokens_are_computed_without_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)
    sequence = decoding(small_model(groups=4), capture=True).new_sequence()
    sequence.append([5] * 20)
    captures = []
    for token in range(5):
        sequence.append([token])
        captures.append(RecordedGraph.captures)
    assert captures == [0, 0, 0, 1, 1]


def test_ordinary_passes_go_on_where_capturing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)
    attempts = []

    def fail(*_: object) -> None:
        attempts.append(1)
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(Step, "capture", fail)
    model = small_model(groups=4)
    backend = decoding(model, capture=True)
    ordinary, sequence = TorchBackend(model).new_sequence(), backend.new_sequence()
    for each in (ordinary, sequence):
        each.append([5] * 20)
    for token in range(8):
        assert_close(sequence.append([token]), ordinary.append([token]))
    assert len(attempts) == 1
    assert backend.decoder
    assert backend.decoder.problem == "operation not permitted when stream is capturing"


def test_an_error_within_a_capture_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)
    ended = []
    monkeypatch.setattr(
        RecordedGraph, "capture_begin", lambda *_, **__: monkeypatch.setattr(Step, "_compute", stop)
    )
    monkeypatch.setattr(RecordedGraph, "capture_end", lambda _: ended.append(1))

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    sequence = decoding(small_model(groups=4), capture=True).new_sequence()
    sequence.append([5] * 20)
    for _ in range(3):
        sequence.append([5])
    with pytest.raises(KeyboardInterrupt):
        sequence.append([5])
    assert ended == [1]
    assert sequence.length == 23


@pytest.mark.parametrize(
    ("devices", "quant", "captures"),
    [
        (["cuda:0"], "none", True),
        (["cuda:1"], "4bit", True),
        (["cuda:0"], "8bit", False),
        (["cuda:0", "cuda:1"], "none", False),
        (["cpu"], "none", False),
    ],
)
def test_graphs_are_for_one_card_and_kernels_that_do_not_wait(
    devices: list[str], quant: str, captures: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch)
    allowed: list[bool] = []
    monkeypatch.setattr(torch.backends.cuda, "enable_cudnn_sdp", allowed.append)
    placement = Placement(tuple(map(torch.device, devices)))
    plan: Any = SimpleNamespace(placement=placement, quant=quant, hint="")
    assert (_decoder(plan, small_model(groups=4)) is not None) == captures
    assert allowed == ([] if devices == ["cpu"] else [False])


def test_tiny_gives_the_same_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)
    panda = Panda.load("tiny", device="cpu", quant="none")
    answers = []
    for decoder in (None, StaticDecoder(panda.model, capture=False), StaticDecoder(panda.model)):
        monkeypatch.setattr(panda.backend, "decoder", decoder)
        answers.append(panda.ask(CLIP, "What happens in this video?", max_tokens=16))
    assert answers[0].ids == answers[1].ids == answers[2].ids
    assert len(answers[0].ids) > 4
    assert RecordedGraph.captures == 1
