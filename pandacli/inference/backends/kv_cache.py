"""The KV cache of the torch backend: buffers that grow, and their files."""

import errno
import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import pad

from pandacli.errors import ModelError

_GROWTH = 256  # positions that a layer of the cache grows by

_KeysValues = tuple[Tensor, Tensor]


class GrowingLayer:
    """Keys and values of a layer, (B, heads, length, head size), in buffers that grow in blocks."""

    def __init__(self) -> None:
        self.length = 0
        self.buffers: tuple[Tensor, ...] = ()  # keys and values with free room behind them

    @property
    def keys(self) -> Tensor:
        return self.buffers[0][..., : self.length, :]

    @property
    def values(self) -> Tensor:
        return self.buffers[1][..., : self.length, :]

    def update(self, keys: Tensor, values: Tensor) -> _KeysValues:
        """Append keys and values of new positions; returns all."""
        start, end = self.length, self.length + keys.shape[-2]
        if not self.buffers:
            self.buffers = keys[..., :0, :], values[..., :0, :]
        self.reserve(end)
        for buffer, new in zip(self.buffers, (keys, values), strict=True):
            buffer[..., start:end, :] = new
        self.length = end
        return self.keys, self.values

    def reserve(self, length: int) -> None:
        """Move to larger buffers if these hold fewer positions; the new room is zero."""
        if length > self.buffers[0].shape[-2]:
            free = -(-length // _GROWTH) * _GROWTH - self.length
            kept = (old[..., : self.length, :] for old in self.buffers)
            self.buffers = tuple(pad(old, (0, 0, 0, free)) for old in kept)

    def keep(self, positions: Tensor) -> None:
        """Drop all but the given positions, (n,) and ascending."""
        self.length = len(positions)
        for buffer in self.buffers:
            kept = buffer.index_select(-2, positions.to(buffer.device))
            buffer[..., : self.length, :] = kept


class KVCache:
    """The KV cache of a model."""

    def __init__(self, layers: int) -> None:
        self.layers = [GrowingLayer() for _ in range(layers)]

    @property
    def length(self) -> int:
        """How many positions it holds."""
        return self.layers[0].length if self.layers else 0

    def update(self, keys: Tensor, values: Tensor, layer: int) -> _KeysValues:
        """Append keys and values (B, heads, n, head size) to a layer; returns all of it."""
        return self.layers[layer].update(keys, values)

    @torch.inference_mode()
    def select(self, rows: list[int]) -> "KVCache":
        """A copy of some rows of a batch."""
        copy, index = KVCache(len(self.layers)), torch.tensor(rows)
        for number, layer in enumerate(self.layers):
            at = index.to(layer.keys.device)
            copy.update(layer.keys.index_select(0, at), layer.values.index_select(0, at), number)
        return copy

    def truncate(self, length: int) -> None:
        """Drop all but the first positions; an interrupted pass leaves some layers longer."""
        for layer in self.layers:
            layer.length = min(layer.length, length)


@torch.inference_mode()
def save_layers(layers: Iterable[_KeysValues], path: Path, length: int | None = None) -> None:
    """Write the first positions of each layer's keys and values, (1, heads, n, head size).

    The file is safetensors: `k.N` and `v.N` (heads, length, head size) of layer N, in half
    precision if that is exact, and checksums in the metadata.
    """
    tensors: dict[str, Tensor] = {}
    sums = []
    for number, layer in enumerate(layers):
        keys, values = (_narrowed(tensor[0, :, :length]) for tensor in layer)
        parts = {f"k.{number}": keys, f"v.{number}": values}
        sums.append(_checksum(parts))
        tensors |= parts
    try:
        save_file(tensors, path, {"checksums": json.dumps(sums)})
    except SafetensorError as error:  # "... (os error 28)"
        found = re.search(r"os error (\d+)", str(error))
        number = int(found[1]) if found else errno.EIO
        raise OSError(number, os.strerror(number), str(path)) from error


def load_layers(path: Path, layers: int) -> Iterator[_KeysValues]:
    """Load the keys and values of each layer, (1, heads, length, head size), mapped from the file.

    Raises a `ModelError` if it is missing or damaged, or has another number of layers.
    """
    damaged = ModelError(f"{path} cannot be read as a saved KV cache")
    shapes: set[torch.Size] = set()
    try:
        with safe_open(path, framework="pt") as file:
            sums = json.loads((file.metadata() or {}).get("checksums", "[]"))
            if len(sums) != layers:
                raise ModelError(f"{path} was saved by another model")
            for number, checksum in enumerate(sums):
                parts = {name: file.get_tensor(name) for name in (f"k.{number}", f"v.{number}")}
                keys, values = parts.values()
                shapes |= {keys.shape, values.shape}
                floating = keys.is_floating_point() and values.is_floating_point()
                usable = floating and len(shapes) == 1 and keys.ndim == 3
                if not usable or _checksum(parts) != checksum:
                    raise damaged
                yield keys[None], values[None]
    except (OSError, ValueError, TypeError, RecursionError, SafetensorError) as error:
        raise damaged from error


def round_to_half(tensor: Tensor) -> None:
    """Round a tensor in place to half precision; the largest values stay finite."""
    limit = torch.finfo(torch.float16).max
    tensor.copy_(tensor.clamp(-limit, limit).half())


def _narrowed(tensor: Tensor) -> Tensor:
    """A contiguous copy on the CPU, in half precision where that is exact."""
    if tensor.dtype == torch.float32 and torch.equal((half := tensor.half()).float(), tensor):
        tensor = half
    return tensor.cpu().contiguous()


def _checksum(parts: dict[str, Tensor]) -> int:
    total = 0
    for name in sorted(parts):
        total = zlib.crc32(parts[name].view(torch.uint8).numpy().data, total)
    return total
