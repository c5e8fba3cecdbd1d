"""The Llama in torch and transformers, whole or quantised, on the CPU or on one or more cards."""

from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pandacli.engine.growing_cache import GrowingLayer, crop, growing_cache
from pandacli.engine.prefix_file import load_layers, save_layers, saved_bytes
from pandacli.engine.torch_branches import TorchBranches
from pandacli.errors import ModelError

if TYPE_CHECKING:
    from transformers.cache_utils import Cache

    from pandacli.model.modeling import VideoPandaForConditionalGeneration


class TorchLlama:
    """The language model in a `VideoPandaForConditionalGeneration`.

    Args:
        model: The model; its video tower is not used here.
        exact: Whether readings are saved to the bit, and not in 8 bits a number.
    """

    def __init__(self, model: "VideoPandaForConditionalGeneration", *, exact: bool = False) -> None:
        self._model, self._exact = model, exact

    def start(self) -> "TorchReading":
        """A reading of nothing yet."""
        cache = growing_cache(len(self._model.model.layers))
        return TorchReading(self._model, cache, exact=self._exact)

    def restore(self, path: Path) -> "TorchReading":
        """A reading that `TorchReading.save` wrote.

        Raises:
            ModelError: The file is damaged, or comes from a model of another shape.
        """
        model = self._model
        cache = growing_cache(len(model.model.layers))
        shape = (1, model.config.num_key_value_heads, model.config.head_dim)
        # the layers may be on several cards, and each has its keys and values beside it
        beside = [layer.input_layernorm.weight for layer in model.model.layers]
        saved = load_layers(path, [weight.device for weight in beside])
        with torch.inference_mode():
            for number, (keys, values) in enumerate(saved):
                if (*keys.shape[:2], keys.shape[3]) != shape or keys.shape != values.shape:
                    raise ModelError(f"{path} was saved by another model")
                cache.update(keys.to(beside[number]), values.to(beside[number]), number)
        return TorchReading(model, cache, exact=self._exact)


class TorchReading:
    """What a `TorchLlama` has read so far.

    Args:
        model: The model.
        cache: Its keys and values, (1, heads, length, head size) in each layer.
        exact: Whether it is saved to the bit, and not in 8 bits a number.
    """

    def __init__(
        self, model: "VideoPandaForConditionalGeneration", cache: "Cache", *, exact: bool = False
    ) -> None:
        self._model = model
        self._cache = cache
        self._exact = exact

    @property
    def length(self) -> int:
        """How many positions have been read."""
        return int(self._cache.get_seq_length())

    @torch.inference_mode()
    def read_embeddings(self, embeddings: Tensor) -> None:
        """Read embeddings (n, hidden_size); no token is predicted, so the head is left out."""
        inputs = embeddings[None].to(self._model.device)
        self._model.model(inputs_embeds=inputs, cache=self._cache, use_cache=True)

    @torch.inference_mode()
    def read(self, ids: list[int]) -> Tensor:
        """Read ids of text; returns the logits (vocabulary,) of the token that comes next."""
        inputs = torch.tensor([ids], device=self._model.device)
        output = self._model(input_ids=inputs, cache=self._cache, use_cache=True, logits_to_keep=1)
        logits: Tensor = output.logits[0, -1]
        return logits

    def crop(self, length: int) -> None:
        """Forget all but the first `length` positions, also after an interrupted read."""
        crop(self._layers(), length)

    def fork(self) -> "TorchReading":
        """Another reading with the same past, its keys and values copied."""
        return TorchReading(self._model, deepcopy(self._cache), exact=self._exact)

    def branch(self, room: int) -> TorchBranches:
        """Texts that go on from here, behind this reading's own keys and values."""
        return TorchBranches(self._model, self._cache, self._layers(), room)

    def save(self, path: Path, length: int | None = None) -> None:
        """Write keys and values; see `prefix_file`.

        Raises:
            OSError: The file cannot be written.
        """
        held = []
        for layer in self._layers():
            assert layer.keys is not None
            assert layer.values is not None
            held.append((layer.keys[..., :length, :], layer.values[..., :length, :]))
        partial = path.with_name(path.name + ".partial")
        try:
            save_layers(held, partial, exact=self._exact)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def saved_bytes(self, length: int) -> int:
        """What `save` would write of the first `length` positions, about."""
        numbers = 0
        for layer in self._layers():
            assert layer.keys is not None
            _, heads, _, size = layer.keys.shape
            numbers += 2 * heads * size * length
        return numbers * self._model.dtype.itemsize if self._exact else saved_bytes(numbers)

    def _layers(self) -> list[GrowingLayer]:
        layers = [layer for layer in self._cache.layers if isinstance(layer, GrowingLayer)]
        assert len(layers) == len(self._cache.layers)  # `growing_cache` has no others
        return layers
