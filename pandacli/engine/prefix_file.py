"""Keys and values in a file: to the bit, or in 8 bits a number, a fourth of what float32 takes.

A key's channels differ from each other in size far more than its positions do, so in 8 bits each
channel has a scale of its own over the positions; a value has one for each position (Liu et al.,
KIVI, arXiv 2402.02750). Both are affine: the smallest number of a group is 0, the largest 255.

The file is safetensors. Of each layer N it holds `k.N` and `v.N` (heads, length, head size), where
they are uint8 the smallest number and the step of each group, and in its metadata a checksum.
"""

import errno
import json
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pandacli.errors import ModelError

_STEPS = 255
_TINY = torch.finfo(torch.float32).tiny
_GROUPS = {"k": 1, "v": 2}  # the dimension that a group of numbers with one scale lies along
_PARTS = ("", "_low", "_step")


def saved_bytes(numbers: int) -> int:
    """What a file of so many keys and values in 8 bits takes, about."""
    return numbers + numbers // 16  # scales, by far the most of them those of the values


@torch.inference_mode()
def save_layers(
    layers: Sequence[tuple[Tensor, Tensor]], path: Path, *, exact: bool = False
) -> None:
    """Write the keys and values of each layer, (1, heads, length, head size).

    Args:
        layers: Keys and values.
        path: The file.
        exact: Keep every bit.

    Raises:
        OSError: The file cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    sums: list[int] = []
    for number, layer in enumerate(layers):
        parts: dict[str, Tensor] = {}
        for kind, tensor in zip(_GROUPS, layer, strict=True):
            kept = {"": tensor[0]} if exact else _packed(tensor[0], _GROUPS[kind])
            for part, values in kept.items():
                parts[f"{kind}{part}.{number}"] = values.cpu().contiguous()
        sums.append(_checksum(parts))
        tensors |= parts
    try:
        save_file(tensors, path, {"checksums": json.dumps(sums), "exact": json.dumps(exact)})
    except SafetensorError as error:
        raise OSError(*_reason(error), str(path)) from error


def load_layers(path: Path, devices: Sequence[torch.device]) -> Iterator[tuple[Tensor, Tensor]]:
    """The keys and values of each layer, (1, heads, length, head size): float32, or as saved.

    The file is mapped and read layer by layer. What was saved to the bit is a view of it on a CPU:
    to be copied before the next layer is asked for.

    Args:
        path: A file of `save_layers`.
        devices: Where each layer is to be.

    Raises:
        ModelError: The file is missing or damaged, or has another number of layers.
    """
    damaged = ModelError(f"{path} cannot be read as a saved KV cache")
    try:
        with safe_open(path, framework="pt") as file:
            facts = file.metadata() or {}
            sums = json.loads(facts.get("checksums", "[]"))
            stored = ("",) if json.loads(facts.get("exact", "false")) else _PARTS
            if len(sums) != len(devices):
                raise ModelError(f"{path} was saved by another model")
            for number, (device, checksum) in enumerate(zip(devices, sums, strict=True)):
                names = [f"{kind}{part}.{number}" for kind in _GROUPS for part in stored]
                parts = {name: file.get_tensor(name) for name in names}
                if _checksum(parts) != checksum:
                    raise damaged
                keys, values = (
                    _widened([parts[f"{kind}{part}.{number}"].to(device) for part in stored])
                    for kind in _GROUPS
                )
                yield keys[None], values[None]
    except (OSError, ValueError, TypeError, RecursionError, SafetensorError) as error:
        raise damaged from error


def _packed(tensor: Tensor, along: int) -> dict[str, Tensor]:
    """A tensor in 8 bits, with the smallest number and the step of each group."""
    wide = tensor.float()
    low, high = wide.amin(along, keepdim=True), wide.amax(along, keepdim=True)
    step = ((high - low) / _STEPS).clamp_min_(_TINY)
    packed = ((wide - low) / step).round_().clamp_(0, _STEPS).to(torch.uint8)
    return dict(zip(_PARTS, (packed, low, step), strict=True))


def _widened(parts: Sequence[Tensor]) -> Tensor:
    if len(parts) == 1:
        return parts[0]
    packed, low, step = parts
    return packed.float().mul_(step).add_(low)  # in place: fresh memory is what takes the time


def _checksum(parts: dict[str, Tensor]) -> int:
    total = 0
    for name in sorted(parts):
        total = zlib.crc32(parts[name].view(torch.uint8).numpy().data, total)
    return total


def _reason(error: SafetensorError) -> tuple[int, str]:
    """What the system said, as far as safetensors passes it on: `... (os error 28)`."""
    found = re.search(r"os error (\d+)", str(error))
    number = int(found[1]) if found else errno.EIO
    return number, os.strerror(number)
