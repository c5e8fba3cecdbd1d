"""Many texts behind one prefix, read by torch in one pass.

They stand one behind the other in the KV cache that the prefix is in, each token with its position
in its own text, and a mask lets each see the prefix and its own text only. So the prefix is there
once, no text is padded, and the model's own attention does the rest.

A KV cache with room behind what it holds.

transformers' own grows by copying all of itself at every token, which at a thousand tokens of
prefix is more bytes moved than a small model has weights.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from pandacli.quantization.int8 import every_remainder

if TYPE_CHECKING:
    from transformers.cache_utils import Cache

    from pandacli.modeling.modeling_videopanda import VideoPandaForConditionalGeneration

_GROWTH = 256  # positions that a layer grows by


class GrowingLayer(DynamicLayer):
    """The keys and values of one layer, at the front of buffers that are longer.

    Attributes:
        keys, values: (B, heads, length, head size), views of the buffers.
    """

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        """Put keys and values of new positions behind those that are held; returns all."""
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
        """Hold only the positions given, (n,) and ascending, from now on."""
        for buffer in self._buffers:
            buffer[..., : len(positions), :] = buffer.index_select(-2, positions.to(buffer.device))
        self.keys, self.values = (buffer[..., : len(positions), :] for buffer in self._buffers)

    def _grown(self, which: int, length: int, needed: int) -> Tensor:
        old = self._buffers[which]
        new = old.new_empty((*old.shape[:-2], -(-needed // _GROWTH) * _GROWTH, old.shape[-1]))
        new[..., :length, :] = old[..., :length, :]
        return new


def growing_cache(layers: int) -> Cache:
    """An empty KV cache for a model of so many layers."""
    return Cache(layers=[GrowingLayer() for _ in range(layers)])  # type: ignore[no-untyped-call]


@torch.inference_mode()
def truncate(layers: list[GrowingLayer], length: int) -> None:
    """Forget all but the first positions.

    Layer by layer, because a pass that was interrupted leaves some longer than others.
    """
    for layer in layers:
        surplus = layer.get_seq_length() - length
        if surplus > 0:
            layer.crop(-surplus)


_SHARED, _ENDED = -1, -2  # owners of positions: the prefix, and texts that have ended
_LITTER = 256  # compact the cache once more positions than this belong to ended texts
_STEP = 1024  # positions that the list of owners grows by


class TorchSequenceBatch:
    """Texts that go on from what a `TorchSequence` has read.

    Args:
        model: The model.
        cache: The keys and values of the reading, lent.
        layers: Its layers.
        room: How many positions the texts may have at once; the cache grows as they are needed.
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
        # the owner of each position of the cache, beside the model: masks are made from it there
        self._owners = torch.full((self._shared + _STEP,), _SHARED, device=model.device)
        self._held = self._shared  # positions of the cache; the owners behind them mean nothing
        self._litter = 0  # positions of ended texts
        self._slots: dict[int, int] = {}  # from the number of a text to that of its owner
        self._lengths: dict[int, int] = {}
        self._begun = 0

    @torch.inference_mode()
    def append(self, texts: Mapping[int, list[int]]) -> Tensor:
        """Read on in some of the texts; see `SequenceBatch`."""
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
        for text, ids_read in texts.items():
            self._lengths[text] += len(ids_read)
        logits: Tensor = output.logits[0]
        return logits

    @torch.inference_mode()
    def remove(self, text: int) -> None:
        """Forget a text; its number may be used again."""
        held = self._owners[: self._held]
        held.masked_fill_(held == self._slots.pop(text), _ENDED)
        self._litter += self._lengths.pop(text)
        if self._litter > _LITTER and 2 * self._litter > self._held - self._shared:
            kept = (held != _ENDED).nonzero().flatten()
            for layer in self._layers:
                layer.keep(kept)
            self._held, self._litter = len(kept), 0
            self._owners[: self._held] = held[kept]

    def close(self) -> None:
        """Forget all texts and give the reading back."""
        truncate(self._layers, self._shared)
        self._held, self._litter = self._shared, 0
        self._slots.clear()
        self._lengths.clear()

    def _slot(self, text: int) -> int:
        if text not in self._slots:
            self._slots[text] = self._begun
            self._lengths[text] = 0
            self._begun += 1
        return self._slots[text]

    def _mask(self, owners: Tensor) -> Tensor:
        """What each new token sees: (1, 1, new, held + new), 0 where it does and -inf elsewhere.

        The owners of the new tokens are put behind those of the cache on the way.
        """
        held, new = self._held, len(owners)
        if held + new > len(self._owners):
            grown = self._owners.new_empty(held + new + _STEP)
            grown[:held] = self._owners[:held]
            self._owners = grown
        self._owners[held : held + new] = owners
        everyone = self._owners[: held + new]
        hidden = (everyone != owners[:, None]) & (everyone != _SHARED)
        hidden[:, held:] |= torch.ones_like(hidden[:, held:]).triu(1)
        mask = torch.zeros(hidden.shape, dtype=self._model.dtype, device=hidden.device)
        return mask.masked_fill_(hidden, float("-inf"))[None, None]
