"""The llama.cpp backend: the Llama of a GGUF file.

A sequence lives in the KV cache of a llama.cpp context. Forks, and the sequences of a batch, share
that context and the cells of what they have in common; one that finds no room there moves to a
context of its own. An interrupted `append` changes nothing.
"""

import errno
import hashlib
import os
import shutil
import weakref
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pandacli.errors import DeviceError, ModelError
from pandacli.inference.backends.llama_cpp.context import ContextFullError, LlamaContext, LoadedGguf
from pandacli.inference.planning.devices import usable_memory

MAX_TEXTS = 64  # sequences of a batch at once
_DEFAULT_ROOM = 64 * MAX_TEXTS  # positions
_SAMPLE = 1 << 20  # bytes of a file's beginning and end that identify it
_DIGEST = 32  # bytes of the digest at the end of a saved sequence


class LlamaCppBackend:
    """A `Backend` on llama.cpp; `context` is the most positions of a sequence."""

    def __init__(self, gguf: Path, *, context: int, threads: int) -> None:
        self.context, self._threads = context, threads
        self._weights = LoadedGguf(gguf)
        self.hidden, self.vocabulary = self._weights.hidden, self._weights.vocabulary
        self.fingerprint = _fingerprint(gguf)

    def new_sequence(self) -> "LlamaCppSequence":
        return LlamaCppSequence(self, *self.open_context(), 0)

    def restore(self, path: Path) -> "LlamaCppSequence":
        # llama.cpp aborts the process on some damaged files
        if not _is_intact(path, self.fingerprint):
            raise ModelError(f"{path} is damaged, or was not saved by this model")
        context, sequence = self.open_context()
        length = context.load(sequence, path)
        if not 0 < length <= self.context:
            raise ModelError(f"{path} does not fit into a context of {self.context} tokens")
        return LlamaCppSequence(self, context, sequence, length)

    def rows(self, embeddings: Tensor) -> None:
        """llama.cpp has other kernels for larger passes: answers would be other ones."""

    def open_context(self) -> tuple[LlamaContext, int]:
        """A context for one sequence and its forks, and that sequence."""
        context = self.new_context(self.context)
        return context, context.acquire(1)[0]

    def new_context(self, size: int) -> LlamaContext:
        return LlamaContext(self._weights, size, self._threads)


class LlamaCppSequence:
    """A text with its KV cache (`Sequence`)."""

    def __init__(
        self, model: LlamaCppBackend, context: LlamaContext, sequence: int, length: int
    ) -> None:
        self._model, self.length = model, length
        self._move(context, sequence)

    def prefill(self, embeddings: Tensor) -> None:
        if embeddings.ndim != 2 or embeddings.shape[1] != self._model.hidden:
            wanted, shape = self._model.hidden, tuple(embeddings.shape)
            raise ValueError(f"embeddings of shape {shape}: wanted (n, {wanted})")
        self._append(embeddings.detach().to("cpu", torch.float32).contiguous().numpy(), wanted=0)

    def append(self, ids: list[int]) -> Tensor:
        _check_ids(ids, self._model.vocabulary)
        return torch.from_numpy(self._append(np.array(ids, np.int32), wanted=1)[0])

    def truncate(self, length: int) -> None:
        self.length = min(self.length, length)
        self._context.truncate(self._sequence, length)

    def fork(self) -> "LlamaCppSequence":
        if not (taken := self._context.acquire(1)):
            return LlamaCppSequence(self._model, *self._own_copy(), self.length)
        self._context.share(self._sequence, taken[0])
        return LlamaCppSequence(self._model, self._context, taken[0], self.length)

    def batch(self, room: int) -> "LlamaCppSequenceBatch":
        context, most = self._context, self._model.context
        # llama.cpp allocates and clears a KV cache at once: room for short questions and answers,
        # or for one of the longest
        room = min(room, max(_DEFAULT_ROOM, most - self.length))
        taken = context.acquire(MAX_TEXTS + 1) if context.free >= room else []
        if not taken:
            context = self._larger_context(self.length + room)
            taken = context.acquire(MAX_TEXTS + 1)
        batch = LlamaCppSequenceBatch(context, taken, self.length, room=room, most=most)
        # from here on the batch gives the sequences back, also when it is interrupted
        if context is self._context:
            context.share(self._sequence, taken[0])
        else:
            self._context.copy_to(context, self._sequence, taken[0])
        return batch

    def tree(self, ids: list[int], parents: list[int], wanted: list[int]) -> Tensor:
        """Compute a tree of tokens behind this sequence; see `Sequence.tree`.

        A path from the root to a leaf is a sequence of llama.cpp; those of a pass share the cells
        of what they have in common.
        """
        paths: dict[int, list[int]] = {}
        for leaf in sorted(set(range(len(ids))) - set(parents)):
            path = [leaf]
            while (parent := parents[path[-1]]) >= 0:
                path.append(parent)
            paths[leaf] = path[::-1]
        rows = np.empty((len(wanted), self._model.vocabulary), np.float32)
        places = {node: row for row, node in enumerate(wanted)}
        leaves = list(paths)
        for start in range(0, len(leaves), MAX_TEXTS):
            part = [paths[leaf] for leaf in leaves[start : start + MAX_TEXTS]]
            nodes = sorted(set(chain.from_iterable(part)))
            with closing(self.batch(len(nodes))) as batch:
                found = batch.compute_paths(ids, part, nodes, [node in places for node in nodes])
            rows[[places[node] for node in nodes if node in places]] = found
        return torch.from_numpy(rows)

    def save(self, path: Path, length: int | None = None) -> None:
        if length is not None and length < self.length:
            fork = self.fork()
            fork.truncate(length)
            fork.save(path)
            return
        if not self._context.save(self._sequence, path):  # llama.cpp does not report why
            full = shutil.disk_usage(path.parent).free < self.saved_bytes(self.length)
            number = errno.ENOSPC if full else errno.EIO
            raise OSError(number, os.strerror(number), str(path))
        with path.open("r+b") as file:
            file.write(_keyed_digest(file, path.stat().st_size, self._model.fingerprint))

    def saved_bytes(self, length: int) -> int:
        return self._context.bytes_of(self._sequence) * length // max(self.length, 1)

    def _append(self, inputs: NDArray[Any], *, wanted: int) -> NDArray[np.float32]:
        """Append ids or embeddings; returns the last `wanted` logits, 0 or 1."""
        end = self.length + len(inputs)
        if end > self._model.context:
            raise ValueError(f"{end} positions are more than the context's {self._model.context}")
        try:
            try:
                rows = self._decode(inputs, wanted)
            except ContextFullError:  # filled by forks
                self._context.truncate(self._sequence, self.length)
                copy = self._own_copy()
                self._release()
                self._move(*copy)
                rows = self._decode(inputs, wanted)
        except BaseException:
            self._context.truncate(self._sequence, self.length)
            raise
        self.length = end
        return rows

    def _decode(self, inputs: NDArray[Any], wanted: int) -> NDArray[np.float32]:
        sequences = np.full(len(inputs), self._sequence, np.int32)
        positions = np.arange(self.length, self.length + len(inputs), dtype=np.int32)
        logits = np.arange(len(inputs)) >= len(inputs) - wanted
        return self._context.decode(inputs, sequences, positions, logits)

    def _own_copy(self) -> tuple[LlamaContext, int]:
        context, sequence = self._model.open_context()
        self._context.copy_to(context, self._sequence, sequence)
        return context, sequence

    def _larger_context(self, size: int) -> LlamaContext:
        taken = self._context.bytes_of(self._sequence)  # twice while it is copied
        # checked first, because a system that overcommits would kill the process instead
        if taken * size // max(self.length, 1) + taken > usable_memory().free:
            message = f"out of memory: no room for a KV cache of {size} tokens"
            raise DeviceError(message, "free some memory, or answer fewer questions at once")
        return self._model.new_context(size)

    def _move(self, context: LlamaContext, sequence: int) -> None:
        self._context, self._sequence = context, sequence
        self._release = weakref.finalize(self, context.release, sequence)


class LlamaCppSequenceBatch:
    """Sequences behind a prefix (`SequenceBatch`), whose cells belong to all of them.

    Of the `sequences` of a context, the first is to hold the prefix of `length` positions; the
    others, `MAX_TEXTS`, are empty. `most` limits the positions of one, the prefix included.
    """

    max_texts: int | None = MAX_TEXTS

    def __init__(
        self, context: LlamaContext, sequences: list[int], length: int, *, room: int, most: int
    ) -> None:
        self.room, self._shared, self._most = room, length, most
        self._context: LlamaContext | None = context
        self._prefix, *self._unused = sequences
        self._sequences: dict[int, int] = {}
        self._lengths: Counter[int] = Counter()  # without the prefix
        self._release = weakref.finalize(self, context.release, *sequences)

    def append(self, texts: Mapping[int, list[int]]) -> Tensor:
        context = self._opened()
        lengths = self._lengths_after(texts)
        new = [number for number in texts if number not in self._sequences]
        try:
            for number in new:
                self._sequences[number] = self._unused.pop()
                context.share(self._prefix, self._sequences[number])
            logits = self._decode(context, texts)
        except BaseException as error:
            for number in texts:
                if number not in new:
                    length = self._shared + self._lengths[number]
                    context.truncate(self._sequences[number], length)
                elif number in self._sequences:
                    self.remove(number)
            if isinstance(error, ContextFullError):
                message = "no room in the KV cache: other sequences have filled it"
                raise DeviceError(message) from error
            raise
        self._lengths = lengths
        return torch.from_numpy(logits)

    def compute_paths(
        self, ids: list[int], paths: list[list[int]], nodes: list[int], wanted: list[bool]
    ) -> NDArray[np.float32]:
        """The logits of the wanted ones of some nodes, which are those of these paths in a tree.

        Raises:
            DeviceError: No room for them.
        """
        context = self._opened()
        members: dict[int, list[int]] = {node: [] for node in nodes}
        depths: dict[int, int] = {}
        for path in paths:
            sequence = self._unused.pop()
            context.share(self._prefix, sequence)
            for depth, node in enumerate(path):
                members[node].append(sequence)
                depths[node] = self._shared + depth
        try:
            return context.decode_shared(
                np.array([ids[node] for node in nodes], np.int32),
                [members[node] for node in nodes],
                np.array([depths[node] for node in nodes], np.int32),
                np.array(wanted),
            )
        except ContextFullError as error:
            message = "no room in the KV cache: other sequences have filled it"
            raise DeviceError(message) from error

    def remove(self, text: int) -> None:
        sequence = self._sequences[text]
        self._opened().truncate(sequence, 0)
        del self._sequences[text], self._lengths[text]
        self._unused.append(sequence)

    def close(self) -> None:
        self._release()
        self._context = None
        self._sequences.clear()

    def _opened(self) -> LlamaContext:
        if self._context is None:
            raise ValueError("the batch is closed")
        return self._context

    def _lengths_after(self, texts: Mapping[int, list[int]]) -> Counter[int]:
        """The lengths of all sequences with the texts appended, checked."""
        lengths = self._lengths.copy()
        for number, ids in texts.items():
            _check_ids(ids, self._opened().vocabulary)
            lengths[number] += len(ids)
        if len(lengths) > MAX_TEXTS:
            raise ValueError(f"more than {MAX_TEXTS} texts at once")
        if (end := self._shared + max(lengths.values(), default=0)) > self._most:
            raise ValueError(f"{end} positions are more than the context's {self._most}")
        if (used := lengths.total()) > self.room:
            message = f"no room in the KV cache for {used} tokens: there is room for {self.room}"
            raise DeviceError(message, "answer fewer questions at once")
        return lengths

    def _decode(self, context: LlamaContext, texts: Mapping[int, list[int]]) -> NDArray[np.float32]:
        counts = [len(ids) for ids in texts.values()]
        starts = [self._shared + self._lengths[number] for number in texts]
        spans = [range(start, start + n) for start, n in zip(starts, counts, strict=True)]
        ids = np.fromiter(chain.from_iterable(texts.values()), np.int32)
        positions = np.fromiter(chain.from_iterable(spans), np.int32)
        numbers = np.array([self._sequences[number] for number in texts], np.int32)
        wanted = np.zeros(len(ids), np.bool_)
        wanted[np.cumsum(counts, dtype=np.intp) - 1] = True
        return context.decode(ids, np.repeat(numbers, counts), positions, wanted)


def _check_ids(ids: list[int], vocabulary: int) -> None:
    if not ids or min(ids) < 0 or max(ids) >= vocabulary:
        raise ValueError(f"wanted ids from 0 to {vocabulary - 1}, at least one")


def _fingerprint(gguf: Path) -> bytes:
    size = gguf.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with gguf.open("rb") as file:
        digest.update(file.read(_SAMPLE))
        file.seek(max(0, size - _SAMPLE))
        digest.update(file.read(_SAMPLE))
    return digest.digest()


def _is_intact(path: Path, key: bytes) -> bool:
    """Whether a saved sequence ends with its digest."""
    try:
        with path.open("rb") as file:
            return _keyed_digest(file, path.stat().st_size - _DIGEST, key) == file.read()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error


def _keyed_digest(file: BinaryIO, size: int, key: bytes) -> bytes:
    digest = hashlib.blake2b(key=key, digest_size=_DIGEST)
    while size > 0 and (piece := file.read(min(size, _SAMPLE))):
        digest.update(piece)
        size -= len(piece)
    return digest.digest()
