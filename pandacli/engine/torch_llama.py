"""The Llama in torch and transformers, whole or quantised, on the CPU or on one or more cards."""

from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pandacli.engine.growing_cache import GrowingLayer, crop, growing_cache
from pandacli.engine.torch_branches import TorchBranches
from pandacli.errors import ModelError

if TYPE_CHECKING:
    from transformers.cache_utils import Cache

    from pandacli.model.modeling import VideoPandaForConditionalGeneration


class TorchLlama:
    """The language model in a `VideoPandaForConditionalGeneration`.

    Args:
        model: The model; its video tower is not used here.
    """

    def __init__(self, model: "VideoPandaForConditionalGeneration") -> None:
        self._model = model

    def start(self) -> "TorchReading":
        """A reading of nothing yet."""
        return TorchReading(self._model, growing_cache(len(self._model.model.layers)))

    def restore(self, path: Path) -> "TorchReading":
        """A reading that `TorchReading.save` wrote.

        Raises:
            ModelError: The file is damaged, or comes from a model of another shape.
        """
        model = self._model
        cache = growing_cache(len(model.model.layers))
        size = model.config.hidden_size // model.config.num_attention_heads
        shape = (1, model.config.num_key_value_heads, size)
        try:
            with safe_open(path, framework="pt") as file:
                for number, layer in enumerate(model.model.layers):
                    keys, values = (file.get_tensor(f"{part}.{number}") for part in ("k", "v"))
                    if (*keys.shape[:2], keys.shape[3]) != shape or keys.shape != values.shape:
                        raise ModelError(f"{path} was saved by another model")
                    # the layers may be on several cards, and each has its keys and values beside it
                    like = layer.input_layernorm.weight
                    cache.update(keys.to(like), values.to(like), number)
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{path} cannot be read as a saved KV cache") from error
        return TorchReading(model, cache)


class TorchReading:
    """What a `TorchLlama` has read so far.

    Args:
        model: The model.
        cache: Its keys and values, (1, heads, length, head size) in each layer.
    """

    def __init__(self, model: "VideoPandaForConditionalGeneration", cache: "Cache") -> None:
        self._model = model
        self._cache = cache

    @property
    def length(self) -> int:
        """How many positions have been read."""
        return int(self._cache.get_seq_length())

    @torch.inference_mode()
    def read_embeddings(self, embeddings: Tensor) -> None:
        """Read embeddings (n, hidden_size); no token is predicted, so the head is left out."""
        inputs = embeddings[None].to(self._model.device)
        self._model.model(inputs_embeds=inputs, past_key_values=self._cache, use_cache=True)

    @torch.inference_mode()
    def read(self, ids: list[int]) -> Tensor:
        """Read ids of text; returns the logits (vocabulary,) of the token that comes next."""
        inputs = torch.tensor([ids], device=self._model.device)
        output = self._model(
            input_ids=inputs, past_key_values=self._cache, use_cache=True, logits_to_keep=1
        )
        logits: Tensor = output.logits[0, -1]
        return logits

    def crop(self, length: int) -> None:
        """Forget all but the first `length` positions, also after an interrupted read."""
        crop(self._layers(), length)

    def fork(self) -> "TorchReading":
        """Another reading with the same past, its keys and values copied."""
        return TorchReading(self._model, deepcopy(self._cache))

    def branch(self, room: int) -> TorchBranches:
        """Texts that go on from here, behind this reading's own keys and values."""
        return TorchBranches(self._model, self._cache, self._layers(), room)

    def save(self, path: Path) -> None:
        """Write keys and values as safetensors, in the precision they are computed in."""
        tensors: dict[str, Tensor] = {}
        for number, layer in enumerate(self._layers()):
            assert layer.keys is not None
            assert layer.values is not None
            tensors[f"k.{number}"] = layer.keys.contiguous()
            tensors[f"v.{number}"] = layer.values.contiguous()
        partial = path.with_name(path.name + ".partial")
        save_file(tensors, partial)
        partial.replace(path)

    def _layers(self) -> list[GrowingLayer]:
        layers = [layer for layer in self._cache.layers if isinstance(layer, GrowingLayer)]
        assert len(layers) == len(self._cache.layers)  # `growing_cache` has no others
        return layers
