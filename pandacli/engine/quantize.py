"""In how many bits the Llama's layers are kept: fewer only where that is asked for or needed.

STAB and the projector are a hundredth of the weights and make every token of the frames; the
embeddings and the head are kept for the same reason.
"""

from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from pandacli.engine.device import free_memory
from pandacli.errors import DeviceError, UsageError

if TYPE_CHECKING:
    from pandacli.model.config import VideoPandaConfig

Quant = Literal["none", "8bit", "4bit"]

_BYTES = {"8bit": 1.0, "4bit": 0.55}
"""Bytes a quantised weight, with its scales."""

_BLOCK = 64
"""Weights that share a scale in 4 bits; on the CPU a row is a whole number of blocks."""


def pick_quant(
    wanted: str, config: "VideoPandaConfig", device: torch.device, dtype: torch.dtype
) -> Quant:
    """The quantisation called `wanted`: none, 8bit, 4bit, or auto for the first of them that fits.

    Raises:
        UsageError: None is called so.
        DeviceError: auto, and not even 4 bits fit into the free memory.
    """
    match wanted:
        case "none" | "8bit" | "4bit":
            return wanted
        case "auto":
            return _first_that_fits(config, device, dtype)
    raise UsageError(f"no quantisation is called '{wanted}'", "there are auto, 4bit, 8bit and none")


def needed_bytes(config: "VideoPandaConfig", quant: Quant, dtype: torch.dtype) -> int:
    """Memory for the weights and for a KV cache of the full context."""
    from pandacli.model.modeling import VideoPandaForConditionalGeneration

    with torch.device("meta"):
        model = VideoPandaForConditionalGeneration(config)
    total = sum(parameter.numel() for parameter in model.parameters())
    layers = [m for m in model.model.layers.modules() if isinstance(m, nn.Linear)]
    quantised = sum(layer.weight.numel() for layer in layers) if quant != "none" else 0
    cached = sum(2 * layer.self_attn.k_proj.out_features for layer in model.model.layers)
    kept = total - quantised + cached * config.max_position_embeddings
    return int(kept * dtype.itemsize + quantised * _BYTES.get(quant, 0.0))


def _first_that_fits(config: "VideoPandaConfig", device: torch.device, dtype: torch.dtype) -> Quant:
    free = free_memory(device)
    choices: tuple[Quant, ...] = ("none", "8bit", "4bit")
    for quant in choices:
        needed = needed_bytes(config, quant, dtype)
        if needed <= free:
            return quant
    raise DeviceError(
        f"the model needs {needed / 1e9:.1f} GB even in 4 bits, and {free / 1e9:.1f} GB are free",
        "free some memory, or try panda with --model tiny",
    )


def check_widths(config: "VideoPandaConfig") -> None:
    """Refuse a model that bitsandbytes cannot put into 4 bits on a CPU.

    Raises:
        UsageError: A width of it is no whole number of blocks.
    """
    widths = (config.hidden_size, config.intermediate_size)
    if any(width % _BLOCK for width in widths):
        raise UsageError(
            f"this model cannot be put into 4 bits on a CPU: its widths, {widths[0]} and"
            f" {widths[1]}, are not multiples of {_BLOCK}",
            "use --quant 8bit or none",
        )
