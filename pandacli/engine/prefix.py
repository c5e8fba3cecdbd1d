"""The KV cache of a clip: its prefix, computed once, and behind it the turns asked last."""

from typing import TYPE_CHECKING

from torch import Tensor

from pandacli.engine.generate import crop, decode_one, prefill, prefill_clip

if TYPE_CHECKING:
    from pandacli.model.modeling import VideoPandaForConditionalGeneration


class PrefixCache:
    """A model that has read the prefix of a clip and reads on from there, question by question.

    Args:
        model: The model.
        ids: The prefix: text ids and frame slots.
        pixel_values: (T, 4, S, S), one frame for each slot.
    """

    def __init__(
        self, model: "VideoPandaForConditionalGeneration", ids: list[int], pixel_values: Tensor
    ) -> None:
        self._model = model
        self._cache = prefill_clip(model, ids, pixel_values)
        self._held: list[int] = []  # the ids read after the prefix
        self.length: int = self._cache.get_seq_length()

    def read(self, ids: list[int], settled: int = 0) -> Tensor:
        """Read the ids of a question behind the prefix.

        Of the first `settled` ids (earlier turns), those that the cache still holds are kept. All
        others are computed anew, so that an answer does not depend on what was asked before it.

        Returns:
            (vocabulary,) the logits of the first token of the answer.
        """
        kept = _common_start(self._held, ids[:settled])
        del self._held[kept:]
        crop(self._cache, self.length + kept)
        logits = prefill(self._model, ids[kept:], self._cache)
        self._held += ids[kept:]
        return logits

    def read_on(self, token: int) -> Tensor:
        """Read one token of the answer; returns the logits (vocabulary,) of the next."""
        logits = decode_one(self._model, token, self._cache)
        self._held.append(token)
        return logits


def _common_start(ours: list[int], theirs: list[int]) -> int:
    """How many ids two sequences have in common before they part."""
    pairs = zip(ours, theirs, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(ours), len(theirs)))
