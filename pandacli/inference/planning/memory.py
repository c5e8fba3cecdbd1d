"""How much memory a model takes, part by part, in each form that it can be run in.

Where a model is put: on one device, or its layers on several cards one after the other.

accelerate moves what flows from card to card. It is told which layers go where, rather than left to
find out, because it counts neither the KV cache nor what weights that are stored quantised take,
and would put what does not fit on the CPU or the disk.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from pandacli.quantization import Quant

if TYPE_CHECKING:
    from pandacli.modeling.configuration_videopanda import VideoPandaConfig

_LINEAR = {
    ("8bit", "torch"): 1.0,
    ("8bit", "bitsandbytes"): 1.0,
    ("8bit", "llama"): 1.07,
    ("4bit", "torch"): 1.0,  # widened when it is loaded
    ("4bit", "bitsandbytes"): 0.55,
    ("4bit", "llama"): 0.65,
}
"""Bytes that a weight of the layers takes, with its scales, by quantisation and engine."""

_LLAMA_CACHE = 2  # bytes: llama.cpp's KV cache is in half precision


@dataclass(frozen=True)
class Sizes:
    """How many numbers the parts of a model have.

    Attributes:
        front: Of the embeddings, STAB and the projector.
        linears: Of the weights of one decoder layer that are quantised.
        norms: Of the other weights of one.
        cache: Of the keys and values of a full context, in one layer.
        back: Of the last norm and the head.
        layers: How many decoder layers there are.
    """

    front: int
    linears: int
    norms: int
    cache: int
    back: int
    layers: int


@dataclass(frozen=True)
class Needed:
    """What the parts of a model take in a form, in bytes: as in `Sizes`, a layer with its cache."""

    front: int
    layer: int
    back: int
    layers: int

    @property
    def total(self) -> int:
        """The whole model, with a KV cache of the full context."""
        return self.front + self.layers * self.layer + self.back


def sizes_of(config: "VideoPandaConfig") -> Sizes:
    """The sizes of a model, told from one of its layers, without memory for any."""
    from pandacli.modeling.modeling_videopanda import VideoPandaForConditionalGeneration

    with torch.device("meta"):
        model = VideoPandaForConditionalGeneration(config)
    back = _count(model.model.norm) + _count(model.lm_head)
    layers = len(model.model.layers)
    layer = _count(model.model.layers) // layers if layers else 0
    linears = sum(
        module.weight.numel()
        for module in model.model.layers.modules()
        if isinstance(module, nn.Linear)
    )
    cached = sum(2 * layer.self_attn.k_proj.out_features for layer in model.model.layers)
    linears, cached = (count // layers if layers else 0 for count in (linears, cached))
    return Sizes(
        front=_count(model) - layers * layer - back,
        linears=linears,
        norms=layer - linears,
        cache=cached * config.max_position_embeddings,
        back=back,
        layers=layers,
    )


def bytes_of(sizes: Sizes, quant: Quant, engine: str, dtype: torch.dtype) -> Needed:
    """What a model takes.

    Args:
        sizes: Its sizes.
        quant: In how many bits its layers are.
        engine: What computes them: "torch", "bitsandbytes" or "llama".
        dtype: What everything else is computed in.
    """
    number = dtype.itemsize
    linear = number if quant == "none" else _LINEAR[quant, engine]
    cached = _LLAMA_CACHE if engine == "llama" else number
    # llama.cpp quantises the head too, to more bits
    head = 1.07 if engine == "llama" else number
    return Needed(
        front=sizes.front * number,
        layer=int(sizes.linears * linear) + sizes.norms * number + sizes.cache * cached,
        back=int(sizes.back * head),
        layers=sizes.layers,
    )


def position_bytes(config: "VideoPandaConfig", engine: str, dtype: torch.dtype) -> int:
    """What one position takes in the KV cache of all layers."""
    number = _LLAMA_CACHE if engine == "llama" else dtype.itemsize
    size = config.head_dim or config.hidden_size // config.num_attention_heads
    heads = config.num_key_value_heads or config.num_attention_heads
    return 2 * config.num_hidden_layers * heads * size * number


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@dataclass(frozen=True)
class Placement:
    """Where a model is put.

    Attributes:
        devices: The devices; the first reads frames and text, the last predicts.
        layers: How many decoder layers go on each, in order. It does not matter for one device.
    """

    devices: tuple[torch.device, ...]
    layers: tuple[int, ...] = ()

    @property
    def device_map(self) -> dict[str, torch.device]:
        """The device of each part of a `VideoPandaForConditionalGeneration`, for accelerate."""
        first, last = self.devices[0], self.devices[-1]
        if len(self.devices) == 1:
            return {"": first}
        parts = ("embed_tokens", "video_tower", "video_projector", "rotary_emb")
        placed = {f"model.{part}": first for part in parts}
        number = 0
        for device, count in zip(self.devices, self.layers, strict=True):
            for _ in range(count):
                placed[f"model.layers.{number}"] = device
                number += 1
        return placed | {"model.norm": last, "lm_head": last}

    def __str__(self) -> str:
        """The devices as they stand in a sentence."""
        *others, last = map(str, self.devices)
        last = "the CPU" if last == "cpu" else last
        return f"{', '.join(others)} and {last}" if others else last


ON_CPU = Placement((torch.device("cpu"),))


def place(needed: Needed, free: Sequence[tuple[torch.device, int]]) -> Placement | None:
    """Where a model fits: on the first device that holds all of it, else on as few as will do.

    Args:
        needed: What its parts take.
        free: The devices, and how many bytes are free on each.

    Returns:
        The placement; None where the model does not fit.
    """
    for device, room in free:
        if needed.total <= room:
            return Placement((device,))
    for count in range(2, len(free) + 1):
        devices, rooms = zip(*free[:count], strict=True)
        if layers := _share_out(needed, list(rooms)):
            return Placement(devices, layers)
    return None


def _share_out(needed: Needed, rooms: list[int]) -> tuple[int, ...] | None:
    """How many layers each device gets, so that all are left with about the same room."""
    rooms[0] -= needed.front
    rooms[-1] -= needed.back
    counts = [0] * len(rooms)
    for _ in range(needed.layers):
        roomiest = rooms.index(max(rooms))
        rooms[roomiest] -= needed.layer
        counts[roomiest] += 1
    return tuple(counts) if min(rooms) >= 0 else None
