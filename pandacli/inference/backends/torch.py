"""The torch backend: transformers' Llama, whole or quantised, on the CPU or on CUDA devices."""

import errno
import json
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import Cache, DynamicLayer

from pandacli.errors import ModelError
from pandacli.inference.planning.devices import position_bytes
from pandacli.quantization.int8 import residual_for_all

if TYPE_CHECKING:
    from pandacli.modeling.modeling_videopanda import VideoPandaForConditionalGeneration

_GROWTH = 256  # positions that a layer of the cache grows by
_PREFIX, _DEAD = -1, -2  # owners of positions: the prefix, and sequences that were removed
_MAX_DEAD = 256  # compact the cache once more positions than this are dead
_OWNERS_GROWTH = 1024

_KeysValues = tuple[Tensor, Tensor]


class TorchBackend:
    """The `Backend` of a `VideoPandaForConditionalGeneration`.

    `half_prefix` rounds the KV cache of the prefix to half precision, in which it is saved: answers
    do not depend on whether a prefix was computed or restored.
    """

    def __init__(
        self, model: "VideoPandaForConditionalGeneration", *, half_prefix: bool = False
    ) -> None:
        self.model, self.half_prefix = model, half_prefix

    def new_sequence(self) -> "TorchSequence":
        return TorchSequence(self, KVCache(len(self.model.model.layers)))

    @torch.inference_mode()
    def restore(self, path: Path) -> "TorchSequence":
        sequence, config = self.new_sequence(), self.model.config
        layers = self.model.model.layers
        saved = load_layers(path, len(layers))
        for number, (layer, (keys, values)) in enumerate(zip(layers, saved, strict=True)):
            _, heads, _, size = keys.shape
            if (heads, size) != (config.num_key_value_heads, config.head_dim):
                raise ModelError(f"{path} was saved by another model")
            weight = layer.input_layernorm.weight  # each layer may be on another device
            sequence.cache.update(keys.to(weight), values.to(weight), number)
        return sequence


class TorchSequence:
    """A text with its KV cache (`Sequence`)."""

    def __init__(self, backend: TorchBackend, cache: "KVCache") -> None:
        self.backend, self.cache = backend, cache

    @property
    def length(self) -> int:
        return int(self.cache.get_seq_length())

    @torch.inference_mode()
    def prefill(self, embeddings: Tensor) -> None:
        before, model = self.length, self.backend.model
        inputs = embeddings[None].to(model.device)
        model.model(inputs_embeds=inputs, cache=self.cache, use_cache=True)  # without logits
        if self.backend.half_prefix:
            for layer in self.cache.layers:
                round_to_half(layer.keys[..., before:, :])
                round_to_half(layer.values[..., before:, :])

    @torch.inference_mode()
    def append(self, ids: list[int]) -> Tensor:
        model = self.backend.model
        inputs = torch.tensor([ids], device=model.device)
        with residual_for_all():
            output = model(input_ids=inputs, cache=self.cache, use_cache=True, logits_to_keep=1)
        logits: Tensor = output.logits[0, -1]
        return logits

    def truncate(self, length: int) -> None:
        self.cache.truncate(length)

    def fork(self) -> "TorchSequence":
        return TorchSequence(self.backend, deepcopy(self.cache))

    def batch(self, room: int) -> "TorchSequenceBatch":
        return TorchSequenceBatch(self.backend, self.cache, room)

    @torch.inference_mode()
    def tree(self, ids: list[int], parents: list[int], wanted: list[int]) -> Tensor:
        """Compute a tree of tokens behind this sequence; see `Sequence.tree`."""
        model, start = self.backend.model, self.length
        seen = np.eye(len(ids), dtype=np.bool_)  # numpy: small operations are faster than torch's
        for node, parent in enumerate(parents):
            if parent >= 0:
                seen[node] |= seen[parent]
        depths = torch.from_numpy(start + seen.sum(1) - 1)
        mask = torch.zeros(1, 1, len(ids), start + len(ids), dtype=model.dtype)
        mask[..., start:].masked_fill_(torch.from_numpy(~seen), float("-inf"))
        try:
            with residual_for_all():
                output = model(
                    input_ids=torch.tensor([ids], device=model.device),
                    attention_mask=mask.to(model.device),
                    position_ids=depths[None].to(model.device),
                    cache=self.cache,
                    use_cache=True,
                    logits_to_keep=torch.tensor(
                        wanted
                    ),  # on the CPU: the last layer may be elsewhere
                )
        finally:
            self.truncate(start)
        logits: Tensor = output.logits[0]
        return logits

    def save(self, path: Path, length: int | None = None) -> None:
        save_layers([(layer.keys, layer.values) for layer in self.cache.layers], path, length)

    def saved_bytes(self, length: int) -> int:
        dtype = torch.float16 if self.backend.half_prefix else self.backend.model.dtype
        return length * position_bytes(self.backend.model.config, "torch", dtype)


class TorchSequenceBatch:
    """Sequences that go on from a `TorchSequence` (`SequenceBatch`).

    All are appended to the prefix in its KV cache, and a mask lets each token see the prefix and
    its own sequence only: the prefix is held once, and nothing is padded.
    """

    max_texts: int | None = None

    def __init__(self, backend: TorchBackend, cache: "KVCache", room: int) -> None:
        self.room = room
        self._model, self._cache = backend.model, cache
        self._shared = self._held = int(cache.get_seq_length())
        # the sequence of each held position, on the device of the model, where masks are made
        self._owners = torch.full((self._shared,), _PREFIX, device=backend.model.device)
        self._dead = 0
        self._lengths: Counter[int] = Counter()

    @torch.inference_mode()
    def append(self, texts: Mapping[int, list[int]]) -> Tensor:
        counts = torch.tensor([len(ids) for ids in texts.values()])
        owners = torch.tensor(list(texts)).repeat_interleave(counts)
        starts = [self._shared + self._lengths[text] for text in texts]
        pairs = zip(starts, texts.values(), strict=True)
        positions = torch.cat([torch.arange(start, start + len(ids)) for start, ids in pairs])
        ids = torch.tensor([token for ids in texts.values() for token in ids])
        # one transfer for all three
        ids, positions, owners = torch.stack((ids, positions, owners)).to(self._model.device)
        with residual_for_all():
            output = self._model(
                input_ids=ids[None],
                attention_mask=self._mask(owners),
                position_ids=positions[None],
                cache=self._cache,
                use_cache=True,
                logits_to_keep=counts.cumsum(0) - 1,
            )
        self._held += len(owners)
        self._lengths.update({text: len(ids) for text, ids in texts.items()})
        logits: Tensor = output.logits[0]
        return logits

    @torch.inference_mode()
    def remove(self, text: int) -> None:
        held = self._owners[: self._held]
        held.masked_fill_(held == text, _DEAD)
        self._dead += self._lengths.pop(text)
        if self._dead > _MAX_DEAD and 2 * self._dead > self._held - self._shared:
            kept = (held != _DEAD).nonzero().flatten()
            for layer in self._cache.layers:
                layer.keep(kept)
            self._held, self._dead = len(kept), 0
            self._owners[: self._held] = held[kept]

    def close(self) -> None:
        self._cache.truncate(self._shared)
        self._held, self._dead = self._shared, 0
        self._lengths.clear()

    def _mask(self, owners: Tensor) -> Tensor:
        """Append the owners of new tokens; returns their mask, (1, 1, new, held + new)."""
        held, new = self._held, len(owners)
        if held + new > len(self._owners):
            self._owners = pad(self._owners[:held], (0, new + _OWNERS_GROWTH))
        self._owners[held : held + new] = owners
        everyone = self._owners[: held + new]
        hidden = (everyone != owners[:, None]) & (everyone != _PREFIX)
        hidden[:, held:] |= torch.ones_like(hidden[:, held:]).triu(1)
        mask = torch.zeros(hidden.shape, dtype=self._model.dtype, device=hidden.device)
        return mask.masked_fill_(hidden, float("-inf"))[None, None]


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
