"""The keys and values of a prefix in a file, to the bit.

What is loaded is exactly what was saved, so that an answer does not depend on whether its prefix
was computed or read from the disk. A tensor in float32 whose numbers all fit into half precision
takes half the space (`TorchBackend` rounds the prefixes of quantised models so).

The file is safetensors. Of each layer N it holds `k.N` and `v.N` (heads, length, head size), and in
its metadata a checksum of each layer.
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


@torch.inference_mode()
def save_layers(layers: Sequence[tuple[Tensor, Tensor]], path: Path) -> None:
    """Write the keys and values of each layer, (1, heads, length, head size).

    Raises:
        OSError: The file cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    sums: list[int] = []
    for number, (keys, values) in enumerate(layers):
        parts = {f"k.{number}": _narrowed(keys[0]), f"v.{number}": _narrowed(values[0])}
        sums.append(_checksum(parts))
        tensors |= parts
    try:
        save_file(tensors, path, {"checksums": json.dumps(sums)})
    except SafetensorError as error:
        raise OSError(*_reason(error), str(path)) from error


def load_layers(path: Path, layers: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The keys and values of each layer, (1, heads, length, head size), on the CPU.

    They have the numbers that were saved; float32 may come as float16. The file is mapped and read
    layer by layer: copy a layer before asking for the next.

    Args:
        path: A file of `save_layers`.
        layers: How many layers it must have.

    Raises:
        ModelError: The file is missing or damaged, or has another number of layers.
    """
    damaged = ModelError(f"{path} cannot be read as a saved KV cache")
    shapes: set[torch.Size] = set()
    try:
        with safe_open(path, framework="pt") as file:
            sums = json.loads((file.metadata() or {}).get("checksums", "[]"))
            if len(sums) != layers:
                raise ModelError(f"{path} was saved by another model")
            for number, checksum in enumerate(sums):
                names = (f"k.{number}", f"v.{number}")
                parts = {name: file.get_tensor(name) for name in names}
                floating = all(part.is_floating_point() for part in parts.values())
                shapes |= {part.shape for part in parts.values()}
                if not floating or len(shapes) > 1 or len(*shapes) != 3:
                    raise damaged  # a file that was not written here
                if _checksum(parts) != checksum:
                    raise damaged
                keys, values = parts.values()
                yield keys[None], values[None]
    except (OSError, ValueError, TypeError, RecursionError, SafetensorError) as error:
        raise damaged from error


def round_to_half(tensor: Tensor) -> None:
    """Round a tensor in place to numbers of half precision; the largest stay finite."""
    limit = torch.finfo(torch.float16).max
    tensor.copy_(tensor.clamp(-limit, limit).half())


def _narrowed(tensor: Tensor) -> Tensor:
    """A contiguous copy on the CPU, in half precision where that has every bit of it."""
    if tensor.dtype == torch.float32:
        half = tensor.half()
        if torch.equal(half.float(), tensor):
            tensor = half
    return tensor.cpu().contiguous()


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
