"""Write small checkpoint folders in the official layout, with weights determined by name."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import BitsAndBytesConfig

from benchmarks.official_layout import layout_of, shard_name, write_index
from pandacli.inference.backends import quiet_libraries
from pandacli.modeling import VideoPandaConfig, VideoPandaForConditionalGeneration
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


load = VideoPandaForConditionalGeneration.from_pretrained


def quantised_folder(folder: Path, form: str) -> dict[str, Tensor]:
    """The tensors of a folder saved from a model quantised by bitsandbytes."""
    kept = ["model.video_tower", "model.video_projector", "lm_head"]
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1}
    model = VideoPandaForConditionalGeneration(VideoPandaConfig(**SMALL | sizes))
    model.save_pretrained(folder)
    fields = {f"load_in_{form}": True, "llm_int8_skip_modules": kept}
    with quiet_libraries():
        model = load(folder, quantization_config=BitsAndBytesConfig(**fields))
        model.save_pretrained(folder)
    return load_file(folder / "model.safetensors")
