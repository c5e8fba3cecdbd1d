"""How much memory a model takes in each form, and on which devices it fits.

The placement on several GPUs is computed here and handed to accelerate: its own counts neither the
KV cache nor the size of quantised weights, and offloads what does not fit to the CPU or the disk.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pandacli.inference.spec import Quant
    from pandacli.modeling.configuration_videopanda import VideoPandaConfig

_LINEAR_BYTES = {
    ("8bit", "torch"): 1.0,
    ("8bit", "bitsandbytes"): 1.0,
    ("8bit", "llama"): 1.07,
    ("4bit", "torch"): 1.0,  # widened to int8 at load
    ("4bit", "bitsandbytes"): 0.55,
    ("4bit", "llama"): 0.65,
}
"""Bytes per weight of the decoder layers with its scales, by quantisation and backend."""

_LLAMA_CACHE_BYTES = 2  # llama.cpp's KV cache is float16
_LLAMA_HEAD_BYTES = 1.07  # llama.cpp quantises the head too


@dataclass(frozen=True)
class Sizes:
    """Element counts of the parts of a model.

    Attributes:
        front: Embeddings, STAB and projector.
        linears: Quantisable weights of one decoder layer.
        norms: Other weights of one decoder layer.
        cache: Keys and values of a full context in one layer.
        back: Final norm and head.
        layers: Number of decoder layers.
    """

    front: int
    linears: int
    norms: int
    cache: int
    back: int
    layers: int


@dataclass(frozen=True)
class Needed:
    """Bytes of the parts of a model as in `Sizes`; a layer includes its KV cache."""

    front: int
    layer: int
    back: int
    layers: int

    @property
    def total(self) -> int:
        """The whole model, with a KV cache of the full context."""
        return self.front + self.layers * self.layer + self.back


def sizes_of(config: "VideoPandaConfig") -> Sizes:
    """Count the elements of a model, on the meta device."""
    from torch import nn

    from pandacli.quantization.conversion import empty_model

    model = empty_model(config)
    layers = len(model.model.layers)
    back = _count(model.model.norm) + _count(model.lm_head)
    layer = _count(model.model.layers) // layers if layers else 0
    linears = sum(
        module.weight.numel()
        for module in (model.model.layers[0].modules() if layers else ())
        if isinstance(module, nn.Linear)
    )
    cache = 2 * model.model.layers[0].self_attn.k_proj.out_features if layers else 0
    return Sizes(
        front=_count(model) - layers * layer - back,
        linears=linears,
        norms=layer - linears,
        cache=cache * config.max_position_embeddings,
        back=back,
        layers=layers,
    )


def bytes_of(sizes: Sizes, quant: "Quant", backend: str, dtype: "torch.dtype") -> Needed:
    """Return the memory that a model takes in a form.

    Args:
        sizes: Its element counts.
        quant: How its decoder layers are quantised.
        backend: "torch", "bitsandbytes" or "llama".
        dtype: Of everything that is not quantised.
    """
    width = dtype.itemsize
    linear = width if quant == "none" else _LINEAR_BYTES[quant, backend]
    cache, head = width, float(width)
    if backend == "llama":
        cache, head = _LLAMA_CACHE_BYTES, _LLAMA_HEAD_BYTES
    return Needed(
        front=sizes.front * width,
        layer=int(sizes.linears * linear) + sizes.norms * width + sizes.cache * cache,
        back=int(sizes.back * head),
        layers=sizes.layers,
    )


def position_bytes(config: "VideoPandaConfig", backend: str, dtype: "torch.dtype") -> int:
    """Return the bytes of one position in the KV cache of all layers."""
    width = _LLAMA_CACHE_BYTES if backend == "llama" else dtype.itemsize
    head_dim = config.head_dim or config.hidden_size // config.num_attention_heads
    heads = config.num_key_value_heads or config.num_attention_heads
    return 2 * config.num_hidden_layers * heads * head_dim * width


def _count(module: "nn.Module") -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@dataclass(frozen=True)
class Placement:
    """The devices of a model.

    Attributes:
        devices: The first holds STAB and the embeddings, the last the head.
        layers: Decoder layers on each device, in order; unused with one device.
    """

    devices: "tuple[torch.device, ...]"
    layers: tuple[int, ...] = ()

    @property
    def on_cpu(self) -> bool:
        """Whether the model is on the CPU."""
        return self.devices[0].type == "cpu"

    @property
    def device_map(self) -> "dict[str, torch.device]":
        """The device of each part of a `VideoPandaForConditionalGeneration`, for accelerate."""
        first, last = self.devices[0], self.devices[-1]
        if len(self.devices) == 1:
            return {"": first}
        parts = ("embed_tokens", "video_tower", "video_projector", "rotary_emb")
        owners = [
            device
            for device, count in zip(self.devices, self.layers, strict=True)
            for _ in range(count)
        ]
        return (
            {f"model.{part}": first for part in parts}
            | {f"model.layers.{number}": owner for number, owner in enumerate(owners)}
            | {"model.norm": last, "lm_head": last}
        )

    def __str__(self) -> str:
        """The devices as they stand in a sentence."""
        *others, last = map(str, self.devices)
        last = "the CPU" if last == "cpu" else last
        return f"{', '.join(others)} and {last}" if others else last


def place(needed: Needed, free: "Sequence[tuple[torch.device, int]]") -> Placement | None:
    """Place a model on the first device that holds it, else on as few as possible.

    Args:
        needed: The memory of its parts.
        free: The devices with their free bytes.

    Returns:
        The placement; None if the model does not fit.
    """
    for device, room in free:
        if needed.total <= room:
            return Placement((device,))
    for count in range(2, len(free) + 1):
        devices, rooms = zip(*free[:count], strict=True)
        if layers := _share_layers(needed, list(rooms)):
            return Placement(devices, layers)
    return None


def _share_layers(needed: Needed, rooms: list[int]) -> tuple[int, ...] | None:
    """Return the layers of each device, so that all have about the same room left."""
    rooms[0] -= needed.front
    rooms[-1] -= needed.back
    counts = [0] * len(rooms)
    for _ in range(needed.layers):
        roomiest = rooms.index(max(rooms))
        rooms[roomiest] -= needed.layer
        counts[roomiest] += 1
    return tuple(counts) if min(rooms) >= 0 else None
