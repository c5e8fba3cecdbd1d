"""The torch backend: transformers' Llama, whole or quantised, on the CPU or on CUDA devices."""

from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pandacli.errors import ModelError
from pandacli.inference.backends.torch.batch import TorchSequenceBatch
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
