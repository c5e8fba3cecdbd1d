"""The torch backend: `VideoPanda`, whole or quantised, on the CPU or on CUDA devices."""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from copy import deepcopy
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import pad

from pandacli.errors import ModelError
from pandacli.inference.backends.kv_cache import KVCache, load_layers, round_to_half, save_layers
from pandacli.inference.planning.devices import free_memory, position_bytes
from pandacli.modeling.llama import additive_mask
from pandacli.quantization.int8 import pack_in_background, residual_for_all

if TYPE_CHECKING:
    from pandacli.inference.backends.cuda_graphs import StaticDecoder
    from pandacli.modeling.video_panda import VideoPanda

_PREFIX, _DEAD = -1, -2  # owners of positions: the prefix, and sequences that were removed
_MAX_DEAD = 256  # compact the cache once more positions than this are dead
_OWNERS_GROWTH = 1024
_PACKING_COST = 200.0  # of int8 layers, in what it saves of a pass over a single token
_PROMPT_LOSS = 1 / 35  # what it costs each token of a prompt, in the same unit
_SPARE = 4 << 30  # bytes that are left free


class TorchBackend:
    """The `Backend` of a `VideoPanda`.

    `half_prefix` rounds the KV cache of the prefix to half precision, in which it is saved: answers
    do not depend on whether a prefix was computed or restored. `decoder` computes single tokens;
    without it they take the pass of all others, whose logits are the reference.
    """

    def __init__(
        self,
        model: "VideoPanda",
        *,
        half_prefix: bool = False,
        decoder: "StaticDecoder | None" = None,
    ) -> None:
        self.model, self.half_prefix, self.decoder = model, half_prefix, decoder
        self._packing_gain = 0.0  # what packed int8 layers would have saved until now
        self._packs = model.device.type == "cpu"

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
            weight = layer.get_parameter("input_layernorm.weight")  # layers may be on many devices
            sequence.cache.update(keys.to(weight), values.to(weight), number)
        return sequence

    def rows(self, embeddings: Tensor) -> "TorchRows":
        cache = KVCache(len(self.model.model.layers))
        self.prefill(cache, embeddings)
        return TorchRows(self, cache)

    @torch.inference_mode()
    def prefill(self, cache: KVCache, embeddings: Tensor) -> None:
        """Append embeddings (B, n, hidden_size) to the rows of a cache."""
        before, model = cache.length, self.model
        loss = _PROMPT_LOSS * embeddings.shape[0] * embeddings.shape[1]
        self._packing_gain = max(0.0, self._packing_gain - loss)
        model.model(embeddings.to(model.device, model.dtype), cache)  # without logits
        if self.half_prefix:
            for layer in cache.layers:
                round_to_half(layer.keys[..., before:, :])
                round_to_half(layer.values[..., before:, :])

    @torch.inference_mode()
    def append(self, cache: KVCache, ids: list[list[int]]) -> Tensor:
        """Append as many ids to each row of a cache; returns the next logits (B, vocabulary)."""
        if self.decoder and cache.length and len(ids[0]) == 1:
            decoded = self.decoder.append(cache, [token for (token,) in ids])
            if decoded is not None:
                return decoded
        if self._packs and len(ids) == len(ids[0]) == 1:
            self._packing_gain += 1
            if self._packing_gain >= _PACKING_COST:
                self._packs = False
                pack_in_background(self.model, _has_room)
        with residual_for_all():
            logits: Tensor = self.model(torch.stack(_sent(ids, self.model.device)), cache)
        return logits[:, -1]

    @torch.inference_mode()
    def tree(self, cache: KVCache, ids: list[int], parents: list[int], wanted: list[int]) -> Tensor:
        """Compute a tree of tokens behind each row: (B, len(wanted), vocabulary).

        See `Sequence.tree`.
        """
        model, start, rows = self.model, cache.length, len(cache.layers[0].keys)
        vectors = [ids, *_preorder(parents), wanted]
        tokens, depths, begins, ends, kept = _sent(vectors, model.device)
        seen = torch.ones(len(ids), start + len(ids), dtype=torch.bool, device=model.device)
        # a node is seen by those in its subtree
        seen[:, start:] = (begins <= begins[:, None]) & (begins[:, None] < ends)
        mask = additive_mask(seen, model.dtype)
        tokens = tokens[None].expand(rows, -1)
        try:
            with residual_for_all():
                logits: Tensor = model(tokens, cache, start + depths[None], mask, kept)
        finally:
            cache.truncate(start)
        return logits


def _has_room(size: int) -> bool:
    return free_memory(torch.device("cpu")) > size + _SPARE


class TorchSequence:
    """A text with its KV cache (`Sequence`)."""

    def __init__(self, backend: TorchBackend, cache: "KVCache") -> None:
        self.backend, self.cache = backend, cache

    @property
    def length(self) -> int:
        return self.cache.length

    def prefill(self, embeddings: Tensor) -> None:
        self.backend.prefill(self.cache, embeddings[None])

    def append(self, ids: list[int]) -> Tensor:
        return self.backend.append(self.cache, [ids])[0]

    def truncate(self, length: int) -> None:
        self.cache.truncate(length)

    def fork(self) -> "TorchSequence":
        return TorchSequence(self.backend, deepcopy(self.cache))

    def batch(self, room: int) -> "TorchSequenceBatch":
        return TorchSequenceBatch(self.backend, self.cache, room)

    def tree(self, ids: list[int], parents: list[int], wanted: list[int]) -> Tensor:
        """Compute a tree of tokens behind this sequence; see `Sequence.tree`."""
        return self.backend.tree(self.cache, ids, parents, wanted)[0]

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
        self._shared = self._held = cache.length
        # the sequence of each held position, on the device of the model, where masks are made
        self._owners = torch.full((self._shared,), _PREFIX, device=backend.model.device)
        self._dead = 0
        self._lengths: Counter[int] = Counter()

    @torch.inference_mode()
    def append(self, texts: Mapping[int, list[int]]) -> Tensor:
        counts = [len(ids) for ids in texts.values()]
        starts = [self._shared + self._lengths[text] for text in texts]
        pairs = [*zip(starts, counts, strict=True)]
        vectors = [
            [token for ids in texts.values() for token in ids],
            [place for start, count in pairs for place in range(start, start + count)],
            [text for text, count in zip(texts, counts, strict=True) for _ in range(count)],
            [end - 1 for end in accumulate(counts)],
        ]
        ids, positions, owners, kept = _sent(vectors, self._model.device)
        with residual_for_all():
            mask = self._mask(owners)
            logits: Tensor = self._model(ids[None], self._cache, positions[None], mask, kept)
        self._held += len(owners)
        self._lengths.update({text: len(ids) for text, ids in texts.items()})
        return logits[0]

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
        seen = (everyone == owners[:, None]) | (everyone == _PREFIX)
        seen[:, held:] &= torch.ones_like(seen[:, held:]).tril()
        return additive_mask(seen, self._model.dtype)


class TorchRows:
    """Texts of one length, the rows of a batch (`Rows`)."""

    def __init__(self, backend: TorchBackend, cache: KVCache) -> None:
        self._backend, self._cache = backend, cache

    def batch(self) -> "TorchRowBatch":
        return TorchRowBatch(self._backend, self._cache)

    def tree(self, ids: list[int], parents: list[int], wanted: list[int]) -> Tensor:
        return self._backend.tree(self._cache, ids, parents, wanted)


class TorchRowBatch:
    """Texts that go on from the rows of a cache, all at the same pace (`SequenceBatch`).

    A row that was removed is computed along, until at most half of the rows are left: these are
    copied, since the cache has to stay.
    """

    max_texts: int | None = None
    room = sys.maxsize

    def __init__(self, backend: TorchBackend, cache: KVCache) -> None:
        self._backend, self._whole, self._cache = backend, cache, cache
        self._start = cache.length
        self._rows = [*range(len(cache.layers[0].keys))]  # of the whole, in `_cache`

    def append(self, texts: Mapping[int, list[int]]) -> Tensor:
        if 2 * len(texts) <= len(self._rows):
            self._cache = self._cache.select([self._rows.index(row) for row in texts])
            self._rows = [*texts]
        filler = next(iter(texts.values()))
        logits = self._backend.append(self._cache, [texts.get(row, filler) for row in self._rows])
        if self._rows == [*texts]:
            return logits
        return logits[[self._rows.index(row) for row in texts]]

    def remove(self, text: int) -> None:
        """The rows that remain are those that are appended to."""

    def close(self) -> None:
        self._cache = self._whole
        self._whole.truncate(self._start)


def _sent(vectors: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, ...]:
    """Vectors of numbers as tensors on a device, in one transfer that nothing waits for."""
    joined = torch.tensor([number for vector in vectors for number in vector])
    sent = joined.to(device, non_blocking=True)
    return torch.split(sent, [len(vector) for vector in vectors])


def _preorder(parents: Sequence[int]) -> tuple[list[int], list[int], list[int]]:
    """The depth of each node of trees, and where its subtree begins and ends in preorder.

    Parents come before their children; that of a root is -1.
    """
    count = len(parents)
    sizes = [1] * (count + 1)  # of subtrees; the last entry of these lists is found as -1
    for node in reversed(range(count)):
        sizes[parents[node]] += sizes[node]
    depths, begins, free = [-1] * (count + 1), [-1] * (count + 1), [0] * (count + 1)
    for node, parent in enumerate(parents):
        depths[node], begins[node] = depths[parent] + 1, free[parent]
        free[parent] += sizes[node]
        free[node] = begins[node] + 1
    ends = [begin + size for begin, size in zip(begins, sizes, strict=True)]
    return depths[:-1], begins[:-1], ends[:-1]
