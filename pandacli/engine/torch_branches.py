"""Many texts behind one prefix, read by torch in one pass.

They stand one behind the other in the KV cache that the prefix is in, each token with its position
in its own text, and a mask lets each see the prefix and its own text only. So the prefix is there
once, no text is padded, and the model's own attention does the rest.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pandacli.engine.growing_cache import GrowingLayer, crop

if TYPE_CHECKING:
    from transformers.cache_utils import Cache

    from pandacli.model.modeling import VideoPandaForConditionalGeneration

_SHARED, _NOBODY = -1, -2  # owners of positions: the prefix, and texts that have ended
_LITTER = 256  # positions of ended texts that are not worth tidying up


class TorchBranches:
    """Texts that go on from what a `TorchReading` has read.

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
        self._owners = torch.full((self._shared,), _SHARED)  # (positions,) of the cache
        self._slots: dict[int, int] = {}  # from the number of a text to that of its owner
        self._lengths: dict[int, int] = {}
        self._begun = 0

    @torch.inference_mode()
    def read(self, texts: Mapping[int, Sequence[int]]) -> Tensor:
        """Read on in some of the texts; see `Branches`."""
        counts = torch.tensor([len(ids) for ids in texts.values()])
        owners = torch.tensor([self._slot(text) for text in texts]).repeat_interleave(counts)
        starts = [self._shared + self._lengths[text] for text in texts]
        pairs = zip(starts, texts.values(), strict=True)
        positions = torch.cat([torch.arange(start, start + len(ids)) for start, ids in pairs])
        ids = torch.tensor([token for ids in texts.values() for token in ids])
        device = self._model.device
        output = self._model(
            input_ids=ids[None].to(device),
            attention_mask=self._mask(owners),
            position_ids=positions[None].to(device),
            cache=self._cache,
            use_cache=True,
            logits_to_keep=counts.cumsum(0) - 1,
        )
        self._owners = torch.cat((self._owners, owners))
        for text, ids_read in texts.items():
            self._lengths[text] += len(ids_read)
        logits: Tensor = output.logits[0]
        return logits

    @torch.inference_mode()
    def end(self, text: int) -> None:
        """Forget a text; its number may be used anew."""
        self._owners[self._owners == self._slots.pop(text)] = _NOBODY
        del self._lengths[text]
        litter = int((self._owners == _NOBODY).sum())
        if litter > _LITTER and 2 * litter > len(self._owners) - self._shared:
            kept = (self._owners != _NOBODY).nonzero().flatten()
            for layer in self._layers:
                layer.keep(kept)
            self._owners = self._owners[kept]

    def close(self) -> None:
        """Forget all texts and give the reading back."""
        crop(self._layers, self._shared)
        self._owners = self._owners[: self._shared]
        self._slots.clear()
        self._lengths.clear()

    def _slot(self, text: int) -> int:
        if text not in self._slots:
            self._slots[text] = self._begun
            self._lengths[text] = 0
            self._begun += 1
        return self._slots[text]

    def _mask(self, owners: Tensor) -> Tensor:
        """What each new token sees: (1, 1, new, held + new), 0 where it does and -inf elsewhere."""
        held, new = len(self._owners), len(owners)
        everyone = torch.cat((self._owners, owners))
        seen = (everyone == _SHARED) | (everyone == owners[:, None])
        seen[:, held:] &= torch.ones(new, new, dtype=torch.bool).tril()
        mask = torch.zeros(new, held + new, dtype=self._model.dtype)
        return mask.masked_fill(~seen, float("-inf"))[None, None].to(self._model.device)
