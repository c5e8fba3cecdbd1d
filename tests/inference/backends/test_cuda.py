"""What holds on a card: graphs give the tokens of ordinary passes, and attention is fused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from pandacli import Panda
from pandacli.inference.backends.cuda_graphs import StaticDecoder
from pandacli.inference.backends.torch import TorchBackend, TorchSequence
from tests.inference.backends.test_static_decoding import small_model

CARD = torch.device("cuda", 0)
FUSED = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]

needs_card = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def every_pass(sequence: TorchSequence) -> Iterator[Tensor]:
    """The logits of each kind of pass: alone, behind others, in a tree, in a batch."""
    hidden = sequence.backend.model.config.hidden_size
    sequence.prefill(torch.randn(37, hidden, generator=torch.Generator().manual_seed(3)))
    yield sequence.append([5, 6, 7, 8])
    for token in range(8):
        yield sequence.append([token])
    yield sequence.tree([1, 2, 3], [-1, 0, -1], [1, 2])
    batch = sequence.batch(99)
    yield batch.append({0: [5, 6, 7], 1: [8]})
    yield batch.append({0: [9], 1: [10]})
    batch.close()


@pytest.mark.parametrize("groups", [4, 2])
@pytest.mark.parametrize("static", [False, True])
def test_masks_have_the_form_that_the_fused_kernels_take(
    groups: int, static: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    attend, masked = F.scaled_dot_product_attention, []

    def watched(queries: Tensor, keys: Tensor, values: Tensor, mask: Any, **how: Any) -> Tensor:
        masked.append(mask is not None)
        if mask is None:
            assert how["is_causal"] or queries.shape[2] == 1
        else:
            assert mask.dtype == queries.dtype
            assert not how["enable_gqa"]
            assert mask.shape[-1] == keys.shape[2]
            if groups == 4 or queries.shape[2] == 2:  # else it was repeated for the groups
                assert all(stride % 8 == 0 for stride in mask.stride()[:-1])
        return attend(queries, keys, values, mask, **how)

    monkeypatch.setattr(F, "scaled_dot_product_attention", watched)
    model = small_model(groups).to(torch.bfloat16)
    decoder = StaticDecoder(model, capture=False) if static else None
    for _ in every_pass(TorchBackend(model, decoder=decoder).new_sequence()):
        pass
    layers, tokens = 2, 8
    unmasked = layers * (1 if static else 1 + tokens)
    assert masked.count(False) == unmasked
    assert masked.count(True) == layers * (1 + tokens + 3) - (unmasked - layers)


@pytest.mark.cuda
@needs_card
@pytest.mark.parametrize("groups", [4, 2])
@pytest.mark.parametrize("graphs", [False, True])
def test_every_pass_has_a_fused_kernel(groups: int, graphs: bool) -> None:
    native = torch.cuda.get_device_capability(CARD) >= (8, 0)
    model = small_model(groups).to(CARD, torch.bfloat16 if native else torch.float16)
    decoder = StaticDecoder(model) if graphs else None
    backend = TorchBackend(model, decoder=decoder)
    with sdpa_kernel(FUSED):
        for logits in every_pass(backend.new_sequence()):
            assert logits.isfinite().all()
    assert decoder is None or decoder.problem is None


@pytest.mark.cuda
@needs_card
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-4), (torch.float16, 2e-2)])
def test_graphs_give_the_logits_of_ordinary_passes(dtype: torch.dtype, error: float) -> None:
    model = small_model(groups=4).to(CARD, dtype)
    decoder = StaticDecoder(model)
    sequences = [TorchBackend(model, decoder=each).new_sequence() for each in (None, decoder)]
    for sequence in sequences:
        sequence.append([11] * 240)
    for token in range(40):  # across a block of the cache
        ordinary, graphed = (sequence.append([token]) for sequence in sequences)
        torch.testing.assert_close(graphed, ordinary, rtol=error, atol=error)
    forks = [sequence.fork() for sequence in sequences]
    for sequence in sequences:
        sequence.truncate(100)
    for token in range(10):
        for pair in (sequences, forks):
            ordinary, graphed = (sequence.append([token]) for sequence in pair)
            torch.testing.assert_close(graphed, ordinary, rtol=error, atol=error)
    assert decoder.problem is None


@pytest.mark.cuda
@needs_card
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_a_replayed_step_waits_for_nothing() -> None:
    model = small_model(groups=4).to(CARD, torch.float16)
    decoder = StaticDecoder(model)
    sequence = TorchBackend(model, decoder=decoder).new_sequence()
    sequence.append([11] * 30)
    for token in range(5):
        sequence.append([token])
    torch.cuda.set_sync_debug_mode("error")
    try:
        logits = sequence.append([6])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert logits.isfinite().all()
    assert decoder.problem is None


@pytest.mark.cuda
@needs_card
@pytest.mark.parametrize("quant", ["none", "4bit"])
def test_answers_through_graphs_are_those_of_ordinary_passes(
    checkpoint: Path, clip: Path, quant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    panda = Panda.load(checkpoint, device="cuda:0", quant=quant)
    assert isinstance(panda.backend, TorchBackend)
    assert panda.backend.decoder
    graphed = panda.ask(clip, "What happens?", max_tokens=24)
    assert panda.backend.decoder.problem is None
    monkeypatch.setattr(panda.backend, "decoder", None)
    ordinary = panda.ask(clip, "What happens?", max_tokens=24)
    # near-ties of random weights may flip in half precision, and everything behind them
    assert graphed.ids[:6] == ordinary.ids[:6]
