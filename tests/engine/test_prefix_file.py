"""Keys and values in 8 bits: what that costs the logits of the models that parity is told by."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from pandacli.engine.prefix_file import load_layers, save_layers, saved_bytes
from pandacli.engine.torch_llama import TorchLlama
from pandacli.errors import ModelError
from pandacli.model import VideoPandaConfig, VideoPandaForConditionalGeneration
from tests.model.e2e import input_pixels, llama_sizes, load_vectors
from tests.parity_weights import fill

CPU = torch.device("cpu")
LAST = 8  # tokens of a prompt that are read behind the prefix


@pytest.fixture
def layers() -> list[tuple[Tensor, Tensor]]:
    """Two layers whose channels differ in size."""
    generator = torch.Generator().manual_seed(3)
    sizes = 10.0 ** torch.arange(-4, 4)
    return [
        (torch.randn(1, 3, 50, 8, generator=generator) * sizes, torch.randn(1, 3, 50, 8))
        for _ in range(2)
    ]


def test_each_channel_of_the_keys_is_kept_to_a_step_of_its_own(
    layers: list[tuple[Tensor, Tensor]], tmp_path: Path
) -> None:
    save_layers(layers, tmp_path / "kv")
    for (keys, _), (loaded, _) in zip(layers, load_layers(tmp_path / "kv", [CPU] * 2), strict=True):
        spread = keys.amax(2, keepdim=True) - keys.amin(2, keepdim=True)
        assert ((loaded - keys).abs() <= spread / 500).all()


def test_each_position_of_the_values_is_kept_to_a_step_of_its_own(
    layers: list[tuple[Tensor, Tensor]], tmp_path: Path
) -> None:
    layers = [(keys, values * torch.logspace(-3, 3, 50)[:, None]) for keys, values in layers]
    save_layers(layers, tmp_path / "kv")
    for (_, values), (_, loaded) in zip(
        layers, load_layers(tmp_path / "kv", [CPU] * 2), strict=True
    ):
        spread = values.amax(3, keepdim=True) - values.amin(3, keepdim=True)
        assert ((loaded - values).abs() <= spread / 500).all()


def test_numbers_that_are_all_the_same_are_exact(tmp_path: Path) -> None:
    same = torch.full((1, 2, 9, 4), 0.3)
    save_layers([(same, same)], tmp_path / "kv")
    ((keys, values),) = load_layers(tmp_path / "kv", [CPU])
    assert torch.equal(keys, same)
    assert torch.equal(values, same)


def test_half_precision_is_packed_and_widened_as_single(tmp_path: Path) -> None:
    keys = torch.randn(1, 2, 20, 4).bfloat16()
    save_layers([(keys, keys)], tmp_path / "kv")
    ((loaded, _),) = load_layers(tmp_path / "kv", [CPU])
    torch.testing.assert_close(loaded, keys.float(), atol=0.02, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_to_be_exact_is_kept_to_the_bit(dtype: torch.dtype, tmp_path: Path) -> None:
    layer = torch.randn(1, 2, 20, 4).to(dtype), torch.randn(1, 2, 20, 4).to(dtype)
    save_layers([layer], tmp_path / "kv", exact=True)
    ((keys, values),) = load_layers(tmp_path / "kv", [CPU])
    assert torch.equal(keys, layer[0])
    assert torch.equal(values, layer[1])


def test_a_file_takes_a_byte_a_number_and_a_little(tmp_path: Path) -> None:
    wide = [(torch.randn(1, 4, 1000, 128),) * 2]
    save_layers(wide, tmp_path / "kv")
    numbers = 2 * 4 * 1000 * 128
    assert numbers < (tmp_path / "kv").stat().st_size <= saved_bytes(numbers) + 10_000


def test_another_number_of_layers_is_another_model(
    layers: list[tuple[Tensor, Tensor]], tmp_path: Path
) -> None:
    save_layers(layers, tmp_path / "kv")
    with pytest.raises(ModelError, match="another model"):
        list(load_layers(tmp_path / "kv", [CPU] * 3))


@pytest.mark.parametrize(
    "name", ["e2e_h64_16x9", "e2e_h128_square", "e2e_h256_raw640x480", "e2e_h256_pad_raw360x640"]
)
def test_logits_behind_a_prefix_from_the_disk_are_those_behind_a_computed_one(
    name: str, tmp_path: Path
) -> None:
    vectors = load_vectors(name)
    model = VideoPandaForConditionalGeneration(VideoPandaConfig(**llama_sizes(vectors))).eval()
    fill(model, "", vectors.meta["salt"])
    ids = vectors.tensors["input_ids"]
    with torch.inference_mode():
        (embedded,) = model.embed_prompt(ids[None], input_pixels(vectors))
    llama = TorchLlama(model)
    reading = llama.start()
    reading.read_embeddings(embedded[:-LAST])
    reading.save(tmp_path / "kv")
    question = ids[-LAST:].tolist()
    wanted, given = reading.read(question), llama.restore(tmp_path / "kv").read(question)
    assert float((given - wanted).norm() / wanted.norm()) < 0.02
    assert given.argmax() == wanted.argmax()
