"""The KV cache of the torch backend: buffers that grow, and their files."""

import errno
import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import Cache, DynamicLayer

from pandacli.errors import ModelError

_GROWTH = 256  # positions that a layer of the cache grows by

_KeysValues = tuple[Tensor, Tensor]


class GrowingLayer(DynamicLayer):
    """Keys and values of a layer, (B, heads, length, head size), in buffers that grow in blocks."""

    # transformers' own cache copies all of itself at every token
    keys: Tensor
    values: Tensor
    _buffers: list[Tensor]

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> _KeysValues:
        """Append keys and values of new positions; returns all."""
        states = (key_states, value_states)
        if not self.is_initialized:
            self.lazy_initialization(*states)
            self._buffers = [new[..., :0, :] for new in states]
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if end > self._buffers[0].shape[-2]:
            free = -(-end // _GROWTH) * _GROWTH - start
            self._buffers = [pad(old[..., :start, :], (0, 0, 0, free)) for old in self._buffers]
        for buffer, new in zip(self._buffers, states, strict=True):
            buffer[..., start:end, :] = new
        self.keys, self.values = (buffer[..., :end, :] for buffer in self._buffers)
        return self.keys, self.values

    def keep(self, positions: Tensor) -> None:
        """Drop all but the given positions, (n,) and ascending."""
        for buffer in self._buffers:
            buffer[..., : len(positions), :] = buffer.index_select(-2, positions.to(buffer.device))
        self.keys, self.values = (buffer[..., : len(positions), :] for buffer in self._buffers)


class KVCache(Cache):
    """The KV cache of a model, which transformers fills."""

    layers: list[GrowingLayer]  # type: ignore[assignment]

    def __init__(self, layers: int) -> None:
        super().__init__(layers=[GrowingLayer() for _ in range(layers)])  # type: ignore[no-untyped-call]

    @torch.inference_mode()
    def select(self, rows: list[int]) -> "KVCache":
        """A copy of some rows of a batch."""
        copy, index = KVCache(len(self.layers)), torch.tensor(rows)
        for number, layer in enumerate(self.layers):
            at = index.to(layer.keys.device)
            copy.update(layer.keys.index_select(0, at), layer.values.index_select(0, at), number)
        return copy

    @torch.inference_mode()
    def truncate(self, length: int) -> None:
        """Drop all but the first positions; an interrupted pass leaves some layers longer."""
        for layer in self.layers:
            layer.crop(min(length - layer.get_seq_length(), 0))


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
