"""Decoding one token at a time through CUDA graphs.

A fast card runs the kernels of a step in less time than it takes to launch them one by one; a graph
launches all of them at once. It repeats the very addresses and shapes that it was captured with, so
a step computes with the whole room of the KV cache, and reads from the device what changes from
token to token: the token itself, and its position, up to which the others are seen.

In the loop over tokens of one text nothing is copied from the host: both numbers are arguments of
kernels. What remains is the sampled token on its way to the host, for the text and the end of the
answer, and the logits, (vocabulary,), where a temperature or log-probabilities are wanted. The
tokens of several rows are copied from the host together, and nothing waits for that.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pandacli.inference.backends.kv_cache import KVCache
from pandacli.modeling.llama import additive_mask

if TYPE_CHECKING:
    from pandacli.modeling.video_panda import VideoPanda

_EAGER_TOKENS = 3  # computed before a capture, which costs about as much as these
_MOST_STEPS = 4  # with buffers at different addresses

_log = logging.getLogger(__name__)


class StaticCache:
    """The whole room of a KV cache, as a `Cache` in which one position is written.

    `place` (1,), on the device, is that position.
    """

    def __init__(self, cache: KVCache, place: Tensor) -> None:
        self._layers, self._place = cache.layers, place
        self.room: int = cache.layers[0].buffers[0].shape[-2]

    @property
    def length(self) -> int:
        """All but one position: what is free of them is left to the mask."""
        return self.room - 1

    def update(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Write (B, heads, 1, head size) at the place; returns those of all the room."""
        held_keys, held_values = self._layers[layer].buffers
        held_keys.index_copy_(-2, self._place, keys)
        held_values.index_copy_(-2, self._place, values)
        return held_keys, held_values


class Step:
    """The computation of a token of each row, on tensors that stay in place."""

    def __init__(self, model: "VideoPanda", cache: KVCache) -> None:
        self._model, device = model, model.device
        rows = len(cache.layers[0].buffers[0])
        self._tokens = torch.zeros(rows, 1, dtype=torch.long, device=device)
        self._place = torch.zeros(1, dtype=torch.long, device=device)
        room = StaticCache(cache, self._place).room
        self._places = torch.arange(room, device=device)
        # held, because the model drops them for larger ones while a graph reads these
        self._tables = model.model.rotary.tables(room, cache.layers[0].keys)
        self._replay: Callable[[], None] | None = None
        self._logits = self._tokens

    def run(self, cache: KVCache, tokens: Sequence[int]) -> Tensor:
        """Append a token to each row of a cache with free room; returns logits (B, vocabulary)."""
        if len(tokens) == 1:
            self._tokens.fill_(tokens[0])
        else:
            self._tokens.copy_(torch.tensor(tokens)[:, None], non_blocking=True)
        self._place.fill_(cache.length)
        if self._replay:
            self._replay()
            logits = self._logits.clone()  # the next replay overwrites them
        else:
            logits = self._compute(cache)
        for layer in cache.layers:
            layer.length += 1
        return logits

    def capture(self, cache: KVCache, stream: "torch.cuda.Stream") -> None:
        """Record the computation on the buffers of a cache, in which only free positions change.

        Raises:
            RuntimeError: It cannot be captured, or memory ran out.
        """
        self._place.fill_(cache.length)
        current = torch.cuda.current_stream(stream.device)
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            self._compute(cache)  # loads kernels and allocates workspaces
            graph = torch.cuda.CUDAGraph()
            # other threads may use the device meanwhile
            graph.capture_begin(capture_error_mode="thread_local")
            try:
                self._logits = self._compute(cache)
            except BaseException:
                with suppress(RuntimeError):  # it says that the capture has failed
                    graph.capture_end()
                raise
            graph.capture_end()
        current.wait_stream(stream)
        self._replay = graph.replay

    def _compute(self, cache: KVCache) -> Tensor:
        mask = additive_mask((self._places <= self._place)[None], self._model.dtype)
        static = StaticCache(cache, self._place)
        logits: Tensor = self._model(self._tokens, static, self._place[None], mask)
        return logits[:, -1]


class StaticDecoder:
    """Appends a token to each row of KV caches, through graphs that it captures when they pay.

    A graph holds the addresses of a cache's buffers, and serves whichever cache has them: also the
    next one that the allocator puts there. Where capturing fails, the ordinary passes go on, and
    `problem` says why. Without `capture` each step runs kernel by kernel, on any device.
    """

    def __init__(self, model: "VideoPanda", *, capture: bool = True) -> None:
        self.problem: str | None = None
        self._model, self._capture = model, capture
        # by addresses: a step, or how many tokens were computed without one
        self._steps: OrderedDict[tuple[int, ...], Step | int] = OrderedDict()
        if capture:
            self._stream = torch.cuda.Stream(model.device)

    @torch.inference_mode()
    def append(self, cache: KVCache, tokens: Sequence[int]) -> Tensor | None:
        """Append a token to each row of a cache that is not empty: the logits (B, vocabulary).

        Returns None, and leaves the cache as it is, where an ordinary pass is to do it.
        """
        if self.problem:
            return None
        for layer in cache.layers:
            layer.reserve(cache.length + 1)
        step = self._step(cache)
        return step.run(cache, tokens) if step else None

    def _step(self, cache: KVCache) -> Step | None:
        buffers = [buffer for layer in cache.layers for buffer in layer.buffers]
        key = (*buffers[0].shape, *(buffer.data_ptr() for buffer in buffers))
        found = self._steps.pop(key, 0)
        if isinstance(found, int):
            found = found + 1 if self._capture and found < _EAGER_TOKENS else self._made(cache)
        if found:
            self._steps[key] = found
            if len(self._steps) > _MOST_STEPS:
                self._steps.popitem(last=False)
        return found if isinstance(found, Step) else None

    def _made(self, cache: KVCache) -> Step | int:
        step = Step(self._model, cache)
        if self._capture:
            try:
                step.capture(cache, self._stream)
            except RuntimeError as error:
                self.problem = str(error).partition("\n")[0]
                self._steps.clear()
                _log.info("decoding without CUDA graphs: %s", self.problem)
                return 0
        return step
