"""A KV cache with room behind what it holds.

transformers' own grows by copying all of itself at every token, which at a thousand tokens of
prefix is more bytes moved than a small model has weights.
"""

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

_STEP = 256  # positions that a layer grows by


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
        new = old.new_empty((*old.shape[:-2], -(-needed // _STEP) * _STEP, old.shape[-1]))
        new[..., :length, :] = old[..., :length, :]
        return new


def growing_cache(layers: int) -> Cache:
    """An empty KV cache for a model of so many layers."""
    return Cache(layers=[GrowingLayer() for _ in range(layers)])  # type: ignore[no-untyped-call]


@torch.inference_mode()
def crop(layers: list[GrowingLayer], length: int) -> None:
    """Forget all but the first positions.

    Layer by layer, because a pass that was interrupted leaves some longer than others.
    """
    for layer in layers:
        surplus = layer.get_seq_length() - length
        if surplus > 0:
            layer.crop(-surplus)
