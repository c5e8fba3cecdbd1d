"""The torch backend: transformers' Llama, whole or quantised, on the CPU or on CUDA devices.

The sequences of a batch follow the prefix in its KV cache, each token with the position in its own
sequence, and a mask lets each see the prefix and its own sequence only: the prefix is held once,
nothing is padded, and the model's own attention does the rest.
"""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pandacli.errors import ModelError
from pandacli.inference.backends.torch.kv_cache import (
    GrowingLayer,
    load_layers,
    new_cache,
    round_to_half,
    save_layers,
    truncate,
)
from pandacli.quantization.int8 import every_remainder

if TYPE_CHECKING:
    from transformers.cache_utils import Cache

    from pandacli.modeling.modeling_videopanda import VideoPandaForConditionalGeneration


_PREFIX, _DEAD = -1, -2  # owners of positions: the prefix, and sequences that were removed
_MAX_DEAD = 256  # compact the cache once more positions than this are dead
_OWNERS_GROWTH = 1024


class TorchSequenceBatch:
    """Sequences that go on from a `TorchSequence`.

    Args:
        model: The model.
        cache: The KV cache of the sequence; it must not be used meanwhile.
        layers: Its layers.
        room: How many positions they may have together; the cache grows as needed.
    """

    most_texts: int | None = None

    def __init__(
        self,
        model: "VideoPandaForConditionalGeneration",
        cache: "Cache",
        layers: list[GrowingLayer],
        room: int,
    ) -> None:
        self.room = room
        self._model, self._cache, self._layers = model, cache, layers
        self._shared = int(cache.get_seq_length())
        # the owner of each position, on the device of the model, where masks are made from it
        self._owners = torch.full((self._shared + _OWNERS_GROWTH,), _PREFIX, device=model.device)
        self._held = self._shared  # positions of the cache; later owners are not initialised
        self._dead = 0
        self._slots: dict[int, int] = {}  # owner by number of the sequence
        self._lengths: dict[int, int] = {}
        self._next_slot = 0

    @torch.inference_mode()
    def append(self, texts: Mapping[int, list[int]]) -> Tensor:
        """Append to some of the sequences; see `SequenceBatch.append`."""
        counts = torch.tensor([len(ids) for ids in texts.values()])
        owners = torch.tensor([self._slot(text) for text in texts]).repeat_interleave(counts)
        starts = [self._shared + self._lengths[text] for text in texts]
        pairs = zip(starts, texts.values(), strict=True)
        positions = torch.cat([torch.arange(start, start + len(ids)) for start, ids in pairs])
        ids = torch.tensor([token for ids in texts.values() for token in ids])
        # one transfer for all three
        ids, positions, owners = torch.stack((ids, positions, owners)).to(self._model.device)
        with every_remainder():
            output = self._model(
                input_ids=ids[None],
                attention_mask=self._mask(owners),
                position_ids=positions[None],
                cache=self._cache,
                use_cache=True,
                logits_to_keep=counts.cumsum(0) - 1,
            )
        self._held += len(owners)
        for text, new_ids in texts.items():
            self._lengths[text] += len(new_ids)
        logits: Tensor = output.logits[0]
        return logits

    @torch.inference_mode()
    def remove(self, text: int) -> None:
        """Drop a sequence; its number may be used again."""
        held = self._owners[: self._held]
        held.masked_fill_(held == self._slots.pop(text), _DEAD)
        self._dead += self._lengths.pop(text)
        if self._dead > _MAX_DEAD and 2 * self._dead > self._held - self._shared:
            kept = (held != _DEAD).nonzero().flatten()
            for layer in self._layers:
                layer.keep(kept)
            self._held, self._dead = len(kept), 0
            self._owners[: self._held] = held[kept]

    def close(self) -> None:
        """Drop all sequences and release the prefix."""
        truncate(self._layers, self._shared)
        self._held, self._dead = self._shared, 0
        self._slots.clear()
        self._lengths.clear()

    def _slot(self, text: int) -> int:
        if text not in self._slots:
            self._slots[text] = self._next_slot
            self._lengths[text] = 0
            self._next_slot += 1
        return self._slots[text]

    def _mask(self, owners: Tensor) -> Tensor:
        """The attention mask of new tokens, (1, 1, new, held + new): 0 or -inf.

        Appends the owners of the new tokens to those of the cache.
        """
        held, new = self._held, len(owners)
        if held + new > len(self._owners):
            grown = self._owners.new_empty(held + new + _OWNERS_GROWTH)
            grown[:held] = self._owners[:held]
            self._owners = grown
        self._owners[held : held + new] = owners
        everyone = self._owners[: held + new]
        hidden = (everyone != owners[:, None]) & (everyone != _PREFIX)
        hidden[:, held:] |= torch.ones_like(hidden[:, held:]).triu(1)
        mask = torch.zeros(hidden.shape, dtype=self._model.dtype, device=hidden.device)
        return mask.masked_fill_(hidden, float("-inf"))[None, None]


class TorchBackend:
    """The `Backend` of a `VideoPandaForConditionalGeneration`.

    Args:
        model: The model; its video tower is not used here.
        half_prefix: Round the keys and values of embeddings (the prefix of a clip) to half
            precision, so that they take half the disk and answers are the same whether a prefix
            was computed or restored.
    """

    def __init__(
        self, model: "VideoPandaForConditionalGeneration", *, half_prefix: bool = False
    ) -> None:
        self._model, self._half_prefix = model, half_prefix

    def new_sequence(self) -> "TorchSequence":
        """An empty sequence."""
        cache = new_cache(len(self._model.model.layers))
        return TorchSequence(self._model, cache, half_prefix=self._half_prefix)

    def restore(self, path: Path) -> "TorchSequence":
        """Load a sequence that `TorchSequence.save` wrote.

        Raises:
            ModelError: The file is damaged, or comes from a model of another shape.
        """
        model = self._model
        cache = new_cache(len(model.model.layers))
        shape = (1, model.config.num_key_value_heads, model.config.head_dim)
        # layers may be on several devices, each with its keys and values
        weights = [layer.input_layernorm.weight for layer in model.model.layers]
        with torch.inference_mode():
            for number, (keys, values) in enumerate(load_layers(path, len(weights))):
                if (*keys.shape[:2], keys.shape[3]) != shape or keys.shape != values.shape:
                    raise ModelError(f"{path} was saved by another model")
                cache.update(keys.to(weights[number]), values.to(weights[number]), number)
        return TorchSequence(model, cache, half_prefix=self._half_prefix)


class TorchSequence:
    """A text with its KV cache (`Sequence`).

    Args:
        model: The model.
        cache: Its keys and values, (1, heads, length, head size) in each layer.
        half_prefix: As of `TorchBackend`.
    """

    def __init__(
        self,
        model: "VideoPandaForConditionalGeneration",
        cache: "Cache",
        *,
        half_prefix: bool = False,
    ) -> None:
        self._model = model
        self._cache = cache
        self._half_prefix = half_prefix

    @property
    def length(self) -> int:
        """How many positions the KV cache holds."""
        return int(self._cache.get_seq_length())

    @torch.inference_mode()
    def prefill(self, embeddings: Tensor) -> None:
        """Append embeddings (n, hidden_size), without computing logits."""
        inputs = embeddings[None].to(self._model.device)
        before = self.length
        self._model.model(inputs_embeds=inputs, cache=self._cache, use_cache=True)
        if self._half_prefix:
            for keys, values in self._held(before):
                round_to_half(keys)
                round_to_half(values)

    @torch.inference_mode()
    def append(self, ids: list[int]) -> Tensor:
        """Append token ids; returns the logits (vocabulary,) of the next token."""
        inputs = torch.tensor([ids], device=self._model.device)
        with every_remainder():
            output = self._model(
                input_ids=inputs, cache=self._cache, use_cache=True, logits_to_keep=1
            )
        logits: Tensor = output.logits[0, -1]
        return logits

    def truncate(self, length: int) -> None:
        """Drop all but the first `length` positions, also after an interrupted `append`."""
        truncate(self._layers(), length)

    def fork(self) -> "TorchSequence":
        """An independent sequence with a copy of the KV cache."""
        return TorchSequence(self._model, deepcopy(self._cache), half_prefix=self._half_prefix)

    def batch(self, room: int) -> TorchSequenceBatch:
        """Sequences that go on from here, in this sequence's own KV cache."""
        return TorchSequenceBatch(self._model, self._cache, self._layers(), room)

    def save(self, path: Path, length: int | None = None) -> None:
        """Write keys and values to the bit; see `kv_cache`.

        Raises:
            OSError: The file cannot be written.
        """
        partial = path.with_name(path.name + ".partial")
        try:
            save_layers(self._held(0, length), partial)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def saved_bytes(self, length: int) -> int:
        """About how many bytes `save` writes for the first `length` positions."""
        numbers = 0
        for layer in self._layers():
            assert layer.keys is not None
            _, heads, _, size = layer.keys.shape
            numbers += 2 * heads * size * length
        return numbers * (2 if self._half_prefix else self._model.dtype.itemsize)

    def _held(self, start: int, end: int | None = None) -> list[tuple[Tensor, Tensor]]:
        """Views of the keys and values of some positions, layer by layer."""
        held = []
        for layer in self._layers():
            assert layer.keys is not None
            assert layer.values is not None
            held.append((layer.keys[..., start:end, :], layer.values[..., start:end, :]))
        return held

    def _layers(self) -> list[GrowingLayer]:
        layers = [layer for layer in self._cache.layers if isinstance(layer, GrowingLayer)]
        assert len(layers) == len(self._cache.layers)  # `new_cache` has no others
        return layers
