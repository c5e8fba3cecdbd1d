"""The KV cache of torch models: in memory, and in a file to the bit.

transformers' own cache copies all of itself at every token, which at a thousand tokens of prefix is
more bytes than a small model has weights. This one grows in blocks.

The file is safetensors. Of each layer N it holds `k.N` and `v.N` (heads, length, head size), and in
its metadata a checksum of each layer. float32 values that all fit into half precision are stored in
it (`TorchBackend` rounds the prefixes of quantised models so); they are loaded exactly as saved, so
that an answer does not depend on whether its prefix was computed or restored.
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
from transformers.cache_utils import Cache, DynamicLayer

from pandacli.errors import ModelError

_GROWTH = 256  # positions that a layer grows by


class GrowingLayer(DynamicLayer):
    """Keys and values of one layer, at the front of preallocated buffers.

    Attributes:
        keys, values: (B, heads, length, head size), views of the buffers.
    """

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        """Append keys and values of new positions; returns all."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._buffers = (key_states[..., :0, :], value_states[..., :0, :])
        length = self.get_seq_length()
        end = length + key_states.shape[-2]
        if end > self._buffers[0].shape[-2]:
            self._buffers = (self._grown(0, length, end), self._grown(1, length, end))
        keys, values = self._buffers
        keys[..., length:end, :] = key_states
        values[..., length:end, :] = value_states
        self.keys, self.values = keys[..., :end, :], values[..., :end, :]
        return self.keys, self.values

    def keep(self, positions: Tensor) -> None:
        """Drop all but the given positions, (n,) and ascending."""
        for buffer in self._buffers:
            buffer[..., : len(positions), :] = buffer.index_select(-2, positions.to(buffer.device))
        self.keys, self.values = (buffer[..., : len(positions), :] for buffer in self._buffers)

    def _grown(self, which: int, length: int, needed: int) -> Tensor:
        old = self._buffers[which]
        new = old.new_empty((*old.shape[:-2], -(-needed // _GROWTH) * _GROWTH, old.shape[-1]))
        new[..., :length, :] = old[..., :length, :]
        return new


def new_cache(layers: int) -> Cache:
    """An empty KV cache of a number of layers."""
    return Cache(layers=[GrowingLayer() for _ in range(layers)])  # type: ignore[no-untyped-call]


@torch.inference_mode()
def truncate(layers: list[GrowingLayer], length: int) -> None:
    """Drop all but the first positions; an interrupted pass leaves some layers longer."""
    for layer in layers:
        surplus = layer.get_seq_length() - length
        if surplus > 0:
            layer.crop(-surplus)


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
    """Load the keys and values of each layer, (1, heads, length, head size), on the CPU.

    float32 may come as float16. The file is memory-mapped: copy a layer before asking for the next.

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
                    raise damaged
                if _checksum(parts) != checksum:
                    raise damaged
                keys, values = parts.values()
                yield keys[None], values[None]
    except (OSError, ValueError, TypeError, RecursionError, SafetensorError) as error:
        raise damaged from error


def round_to_half(tensor: Tensor) -> None:
    """Round a tensor in place to half precision; the largest values stay finite."""
    limit = torch.finfo(torch.float16).max
    tensor.copy_(tensor.clamp(-limit, limit).half())


def _narrowed(tensor: Tensor) -> Tensor:
    """A contiguous copy on the CPU, in half precision where that is exact."""
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
    """The errno in a message of safetensors, `... (os error 28)`."""
    found = re.search(r"os error (\d+)", str(error))
    number = int(found[1]) if found else errno.EIO
    return number, os.strerror(number)
