"""Many sequences behind one prefix, computed by llama.cpp in one pass.

All are in one context. The cells of the prefix belong to all of them, so that it is held once.
"""

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from pandacli.errors import DeviceError
from pandacli.inference.backends.llama_cpp.context import SLICE, ContextFullError, LlamaContext

MOST_TEXTS = 64
"""How many sequences there can be at once."""

_USUAL_ROOM = 64 * MOST_TEXTS  # positions


def useful_room(wanted: int, longest: int) -> int:
    """How many positions to allocate, of those wanted.

    llama.cpp allocates and clears a KV cache at once, so it has room for short questions and
    answers, or for one of the longest.
    """
    return min(wanted, max(_USUAL_ROOM, longest))


@dataclass
class _Text:
    """A sequence of the context, and its positions, the shared ones included."""

    sequence: int
    length: int


class LlamaCppSequenceBatch:
    """Sequences behind a prefix (`SequenceBatch`). An interrupted `append` changes none of them.

    Args:
        context: Holds them.
        sequences: `MOST_TEXTS` and one more, given back in the end. The first is to hold the
            prefix; the others are empty.
        length: How many positions the prefix has.
        room: How many positions all may have together, without the prefix.
        most: How many one may have, the prefix included.
    """

    most_texts: int | None = MOST_TEXTS

    def __init__(
        self, context: LlamaContext, sequences: list[int], length: int, *, room: int, most: int
    ) -> None:
        self._context: LlamaContext | None = context
        self._prefix, *self._unused = sequences
        self._length, self.room, self._most = length, room, most
        self._texts: dict[int, _Text] = {}
        self._leave = weakref.finalize(self, _leave_all, context, sequences)

    def append(self, texts: Mapping[int, list[int]]) -> Tensor:
        """Append token ids to some of the sequences, `SLICE` of all at a time.

        Returns:
            (len(texts), vocabulary) float32 logits of the next tokens.

        Raises:
            ValueError: A sequence has no ids, one that is not a token, or too many; there are more
                than `MOST_TEXTS`; or the batch is closed.
            DeviceError: No room for so many positions, or llama.cpp could not compute.
        """
        context = self._opened()
        self._check(texts, context.vocabulary)
        before = {number: text.length for number, text in self._texts.items()}
        try:
            for number in texts:
                if number not in self._texts:
                    self._start(context, number)
            return self._append(context, texts)
        except BaseException as error:
            self._roll_back(context, before)
            if isinstance(error, ContextFullError):
                raise DeviceError(
                    "no room in the KV cache: other sequences have filled it"
                ) from error
            raise

    def remove(self, text: int) -> None:
        """Drop a sequence; its number may be used again."""
        sequence = self._texts[text].sequence
        self._opened().truncate(sequence, 0)
        del self._texts[text]
        self._unused.append(sequence)

    def close(self) -> None:
        """Drop all sequences and free their memory."""
        self._leave()
        self._context = None
        self._texts.clear()

    def _opened(self) -> LlamaContext:
        if self._context is None:
            raise ValueError("the batch is closed")
        return self._context

    def _check(self, texts: Mapping[int, list[int]], vocabulary: int) -> None:
        for ids in texts.values():
            if not ids or min(ids) < 0 or max(ids) >= vocabulary:
                raise ValueError(f"wanted ids from 0 to {vocabulary - 1}, at least one")
        if len(self._texts.keys() | texts.keys()) > MOST_TEXTS:
            raise ValueError(f"more than {MOST_TEXTS} texts at once")
        lengths = {number: text.length - self._length for number, text in self._texts.items()}
        for number, ids in texts.items():
            lengths[number] = lengths.get(number, 0) + len(ids)
        if lengths and (end := self._length + max(lengths.values())) > self._most:
            raise ValueError(f"{end} positions are more than the context's {self._most}")
        if (used := sum(lengths.values())) > self.room:
            raise DeviceError(
                f"no room in the KV cache for {used} tokens: there is room for {self.room}",
                "answer fewer questions at once",
            )

    def _start(self, context: LlamaContext, number: int) -> None:
        sequence = self._unused.pop()
        self._texts[number] = _Text(sequence, self._length)
        context.share(self._prefix, sequence)

    def _append(self, context: LlamaContext, texts: Mapping[int, list[int]]) -> Tensor:
        places = [self._texts[number] for number in texts]
        counts = [len(ids) for ids in texts.values()]
        ids = np.fromiter(chain.from_iterable(texts.values()), np.int32)
        sequences = np.repeat(np.array([place.sequence for place in places], np.int32), counts)
        positions = np.fromiter(
            chain.from_iterable(
                range(place.length, place.length + count)
                for place, count in zip(places, counts, strict=True)
            ),
            np.int32,
        )
        wanted = np.zeros(len(ids), np.bool_)
        wanted[np.cumsum(counts, dtype=np.intp) - 1] = True
        logits = [np.empty((0, context.vocabulary), np.float32)]
        for start in range(0, len(ids), SLICE):
            piece = slice(start, start + SLICE)
            logits.append(
                context.decode(ids[piece], sequences[piece], positions[piece], wanted[piece])
            )
        for place, count in zip(places, counts, strict=True):
            place.length += count
        return torch.from_numpy(np.concatenate(logits))

    def _roll_back(self, context: LlamaContext, before: Mapping[int, int]) -> None:
        """Restore the sequences and lengths of before."""
        for number, text in list(self._texts.items()):
            if number in before:
                text.length = before[number]
                context.truncate(text.sequence, text.length)
            else:
                self.remove(number)


def _leave_all(context: LlamaContext, sequences: list[int]) -> None:
    for sequence in sequences:
        context.leave(sequence)
