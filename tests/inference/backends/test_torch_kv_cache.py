"""Keys and values in a file: to the bit, in half the space where half precision holds them."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from pandacli.errors import ModelError
from pandacli.inference.backends.kv_cache import load_layers, round_to_half, save_layers

LARGEST = torch.finfo(torch.float16).max


@pytest.fixture
def layers() -> list[tuple[Tensor, Tensor]]:
    """Two layers whose channels differ in size."""
    generator = torch.Generator().manual_seed(3)
    sizes = 10.0 ** torch.arange(-4, 4)
    return [
        (torch.randn(1, 3, 50, 8, generator=generator) * sizes, torch.randn(1, 3, 50, 8))
        for _ in range(2)
    ]


def loaded(path: Path, layers: int) -> list[tuple[Tensor, Tensor]]:
    return [(keys.clone(), values.clone()) for keys, values in load_layers(path, layers)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_saved_values_are_loaded_exactly(
    layers: list[tuple[Tensor, Tensor]], dtype: torch.dtype, tmp_path: Path
) -> None:
    layers = [(keys.to(dtype), values.to(dtype)) for keys, values in layers]
    save_layers(layers, tmp_path / "kv")
    for saved, given in zip(layers, loaded(tmp_path / "kv", 2), strict=True):
        assert all(map(torch.equal, saved, given))
        assert given[0].dtype == dtype


def test_values_rounded_to_half_precision_take_half_the_space(
    layers: list[tuple[Tensor, Tensor]], tmp_path: Path
) -> None:
    save_layers(layers, tmp_path / "whole")
    for tensor in (tensor for layer in layers for tensor in layer):
        round_to_half(tensor)
    save_layers(layers, tmp_path / "half")
    whole, half = ((tmp_path / name).stat().st_size for name in ("whole", "half"))
    numbers = sum(tensor.numel() for layer in layers for tensor in layer)
    assert abs(whole - half - 2 * numbers) < 100  # checksums have more or fewer digits
    for saved, given in zip(layers, loaded(tmp_path / "half", 2), strict=True):
        assert torch.equal(given[0].float(), saved[0])
        assert torch.equal(given[1].float(), saved[1])


def test_a_tensor_not_exact_in_half_precision_is_stored_whole(
    tmp_path: Path,
) -> None:
    keys = torch.ones(1, 2, 9, 4)
    keys[0, 1, 8, 3] = 1 + 2**-20
    save_layers([(keys, torch.ones(1, 2, 9, 4))], tmp_path / "kv")
    ((given, values),) = loaded(tmp_path / "kv", 1)
    assert torch.equal(given, keys)
    assert values.dtype == torch.float16


def test_rounding_is_idempotent_and_finite() -> None:
    numbers = torch.tensor([1e-9, -3e-6, 0.1, -7.7, 65519.0, 1e9, -float("inf")])
    round_to_half(numbers)
    once = numbers.clone()
    round_to_half(numbers)
    assert torch.equal(numbers, once)
    assert once[4:].tolist() == [LARGEST, LARGEST, -LARGEST]


def test_another_number_of_layers_is_refused(
    layers: list[tuple[Tensor, Tensor]], tmp_path: Path
) -> None:
    save_layers(layers, tmp_path / "kv")
    with pytest.raises(ModelError, match="another model"):
        list(load_layers(tmp_path / "kv", 3))


def test_a_file_of_8_bits_from_an_older_version_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    packed = torch.zeros(2, 9, 4, dtype=torch.uint8)
    parts = {f"{kind}{part}.0": packed.clone() for kind in "kv" for part in ("", "_low", "_step")}
    save_file(parts, tmp_path / "kv", {"checksums": "[123]", "exact": "false"})
    with pytest.raises(ModelError, match="cannot be read as a saved KV cache"):
        list(load_layers(tmp_path / "kv", 1))


@pytest.mark.parametrize(
    "odd",
    [
        torch.zeros(3, 50, 8, dtype=torch.int32),
        torch.zeros(()),
        torch.zeros(3, 50),
        torch.zeros(3, 49, 8),
        torch.zeros(1, 3, 50, 8),
    ],
)
def test_tensors_of_another_kind_are_refused(
    layers: list[tuple[Tensor, Tensor]], tmp_path: Path, odd: Tensor
) -> None:
    save_layers(layers, tmp_path / "kv")
    with safe_open(tmp_path / "kv", framework="pt") as file:
        facts = file.metadata()
    save_file(load_file(tmp_path / "kv") | {"v.1": odd}, tmp_path / "kv", facts)
    with pytest.raises(ModelError, match="cannot be read as a saved KV cache"):
        loaded(tmp_path / "kv", 2)
