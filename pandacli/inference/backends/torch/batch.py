"""Many sequences behind one prefix, computed by torch in one pass.

They follow the prefix in its KV cache, each token with the position in its own sequence, and a mask
lets each see the prefix and its own sequence only: the prefix is held once, nothing is padded, and
the model's own attention does the rest.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pandacli.inference.backends.torch.kv_cache import GrowingLayer, truncate
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
