"""Sequences of the torch backend: truncated, forked, saved and restored."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch

from pandacli import Panda
from pandacli.errors import ModelError
from pandacli.inference.backends.kv_cache import KVCache
from pandacli.inference.backends.torch import TorchBackend, TorchSequence
from pandacli.modeling.configuration import ModelConfig
from pandacli.modeling.video_panda import VideoPanda

IDS = [1, 20, 31, 42, 53]
NEXT = [64, 75]


@pytest.fixture
def llama(panda: Panda) -> TorchBackend:
    return TorchBackend(panda.model)


@pytest.fixture
def expected(llama: TorchBackend) -> torch.Tensor:
    """The logits after `IDS` and `NEXT`, appended at once."""
    return llama.new_sequence().append([*IDS, *NEXT])


def test_appending_in_two_parts_equals_appending_at_once(
    llama: TorchBackend, expected: torch.Tensor
) -> None:
    sequence = llama.new_sequence()
    sequence.append(IDS)
    torch.testing.assert_close(sequence.append(NEXT), expected)
    assert sequence.length == 7


def test_prefill_of_embeddings_equals_appending_their_ids(
    llama: TorchBackend, panda: Panda, expected: torch.Tensor
) -> None:
    sequence = llama.new_sequence()
    sequence.prefill(panda.model.model.embed_tokens(torch.tensor(IDS)))
    torch.testing.assert_close(sequence.append(NEXT), expected)


def test_truncated_positions_have_no_effect(llama: TorchBackend, expected: torch.Tensor) -> None:
    sequence = llama.new_sequence()
    sequence.append([*IDS, 7, 8, 9])
    sequence.truncate(len(IDS))
    torch.testing.assert_close(sequence.append(NEXT), expected)


def test_truncate_evens_layers_after_an_interrupt(panda: Panda) -> None:
    cache = KVCache(3)
    kept = torch.randn(1, 2, 3, 4)
    for number, more in enumerate((2, 1, 0)):
        longer = torch.cat((kept, torch.randn(1, 2, more, 4)), 2)
        cache.update(longer, longer, number)
    TorchSequence(TorchBackend(panda.model), cache).truncate(3)
    assert all(torch.equal(layer.keys, kept) for layer in cache.layers)


def test_forks_are_independent(llama: TorchBackend, expected: torch.Tensor) -> None:
    sequence = llama.new_sequence()
    sequence.append(IDS)
    fork = sequence.fork()
    sequence.append([9, 8, 7])
    torch.testing.assert_close(fork.append(NEXT), expected)
    assert (sequence.length, fork.length) == (8, 7)


def test_a_restored_sequence_continues_exactly(llama: TorchBackend, tmp_path: Path) -> None:
    sequence = llama.new_sequence()
    sequence.append(IDS)
    sequence.save(tmp_path / "kv")
    restored = llama.restore(tmp_path / "kv")
    assert restored.length == len(IDS)
    assert torch.equal(restored.append(NEXT), sequence.append(NEXT))
    assert [path.name for path in tmp_path.iterdir()] == ["kv"]


def test_the_first_positions_can_be_saved_alone(
    llama: TorchBackend, tmp_path: Path, expected: torch.Tensor
) -> None:
    sequence = llama.new_sequence()
    sequence.append([*IDS, 7, 8, 9])
    sequence.save(tmp_path / "kv", len(IDS))
    assert sequence.length == len(IDS) + 3
    restored = llama.restore(tmp_path / "kv")
    torch.testing.assert_close(restored.append(NEXT), expected)


def test_saved_bytes_predicts_the_file_size(llama: TorchBackend, tmp_path: Path) -> None:
    sequence = llama.new_sequence()
    sequence.append([7 * place % 400 for place in range(200)])
    sequence.save(tmp_path / "kv")
    size = (tmp_path / "kv").stat().st_size
    assert 0.8 * size < sequence.saved_bytes(200) < 1.2 * size


def test_half_prefix_rounds_at_prefill(panda: Panda, tmp_path: Path) -> None:
    llama = TorchBackend(panda.model, half_prefix=True)
    sequence = llama.new_sequence()
    with torch.inference_mode():
        sequence.prefill(panda.model.model.embed_tokens(torch.tensor(IDS)))
    sequence.save(tmp_path / "kv")
    assert torch.equal(llama.restore(tmp_path / "kv").append(NEXT), sequence.append(NEXT))
    numbers = sequence.saved_bytes(len(IDS)) // 2
    assert 2 * numbers < (tmp_path / "kv").stat().st_size < 2 * numbers + 5000
    keys = [layer.keys[..., len(IDS) :, :] for layer in sequence.cache.layers]
    assert not any(torch.equal(key, key.half().float()) for key in keys), "questions are not"


@pytest.mark.parametrize(("quant", "size"), [("none", 4), ("8bit", 2)])
def test_only_prefixes_of_quantised_models_are_rounded(
    checkpoint: Path, quant: str, size: int
) -> None:
    panda = Panda.load(checkpoint, device="cpu", quant=quant, engine="torch")
    sequence = panda.backend.new_sequence()
    assert isinstance(sequence, TorchSequence)
    sequence.append(IDS)
    config = panda.model.config
    numbers = 2 * config.num_hidden_layers * config.hidden_size * len(IDS)
    assert sequence.saved_bytes(len(IDS)) == size * numbers


def test_restored_layers_are_on_their_own_devices(
    panda: Panda, llama: TorchBackend, tmp_path: Path
) -> None:
    sequence = llama.new_sequence()
    sequence.append(IDS)
    sequence.save(tmp_path / "kv")
    spread = deepcopy(panda.model)
    spread.model.layers[1].to("meta")  # stands for another card
    restored = TorchBackend(spread).restore(tmp_path / "kv")
    assert [layer.keys.device.type for layer in restored.cache.layers] == ["cpu", "meta"]


def test_a_file_of_another_model_is_refused(llama: TorchBackend, tmp_path: Path) -> None:
    config = ModelConfig(
        vocab_size=99,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        video_hidden_size=32,
        image_size=112,
    )
    other = TorchBackend(VideoPanda(config)).new_sequence()
    other.append(IDS)
    other.save(tmp_path / "kv")
    with pytest.raises(ModelError, match="saved by another model"):
        llama.restore(tmp_path / "kv")


def test_a_damaged_file_is_refused(llama: TorchBackend, tmp_path: Path) -> None:
    (tmp_path / "kv").write_bytes(b"no keys, no values")
    with pytest.raises(ModelError, match="cannot be read as a saved KV cache"):
        llama.restore(tmp_path / "kv")


@pytest.mark.parametrize(("prompts", "tokens"), [([], 200), ([700], 200), ([0, 700], 220)])
def test_layers_are_packed_once_decoding_outweighs_prompts(
    llama: TorchBackend, monkeypatch: pytest.MonkeyPatch, prompts: list[int], tokens: int
) -> None:
    packed: list[VideoPanda] = []
    monkeypatch.setattr(
        "pandacli.inference.backends.torch.pack_in_background",
        lambda model, _: packed.append(model),
    )
    width = llama.model.config.hidden_size
    decoded = 0
    for prompt in prompts or [0]:
        if prompt:
            llama.new_sequence().prefill(torch.zeros(prompt, width))
        sequence = llama.new_sequence()
        sequence.append(IDS)
        while decoded < (100 if prompt == 0 and prompts else tokens + 50):
            sequence.append([5])
            decoded += 1
            assert packed == [llama.model] * (decoded >= tokens)
