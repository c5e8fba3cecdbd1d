"""Write small checkpoint folders in the official layout, with weights determined by name."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.official_layout import layout_of, shard_name, write_index
from tests.parity_weights import tensor_for

SMALL = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "video_hidden_size": 32,
    "mm_hidden_size": 32,
}
"""Sizes of a model for tests of shapes."""


def tensors_of(config: dict[str, Any], teacher_megabytes: float = 0.1) -> dict[str, Tensor]:
    """Every tensor of an official checkpoint; aliases share their storage."""
    layout = layout_of(config, teacher_numbers=int(teacher_megabytes * 2**18))
    tensors = {name: _value(name, shape) for name, shape in layout.shapes.items()}
    return tensors | {alias: tensors[name] for alias, name in layout.aliases.items()}


def _value(name: str, shape: tuple[int, ...]) -> Tensor:
    if ".lmhra2." in name or "teacher" in name or name.endswith("inv_freq"):
        return torch.full(shape, 3.0)  # unused, and recognisable
    return tensor_for(name, shape)


def write_bin_shards(folder: Path, tensors: dict[str, Tensor], shards: int = 2) -> None:
    """Write `pytorch_model-0000x-of-0000N.bin` and their index."""
    places: dict[str, str] = {}
    for shard in range(shards):
        names = list(tensors)[shard::shards]
        file = shard_name(shard + 1, shards)
        torch.save({name: tensors[name] for name in names}, folder / file)
        places |= dict.fromkeys(names, file)
    write_index(folder, places)


def write_safetensors(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Write `model.safetensors`, which keeps one name of tensors that share their storage."""
    kept = {tensor.data_ptr(): name for name, tensor in tensors.items()}
    save_file({name: tensors[name] for name in kept.values()}, folder / "model.safetensors")
