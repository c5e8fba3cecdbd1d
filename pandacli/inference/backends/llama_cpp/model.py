"""The llama.cpp backend: the Llama of a GGUF file.

A sequence lives in the KV cache of a llama.cpp context. Forks share that context and the cells of
what they have in common; one that finds no room there moves to a context of its own. An interrupted
`append` leaves a sequence as it was.
"""

import errno
import hashlib
import os
import shutil
import weakref
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pandacli.errors import DeviceError, ModelError
from pandacli.inference.backends.llama_cpp.batch import (
    MOST_TEXTS,
    LlamaCppSequenceBatch,
    useful_room,
)
from pandacli.inference.backends.llama_cpp.context import (
    SLICE,
    ContextFullError,
    LlamaContext,
    LoadedGguf,
)
from pandacli.inference.planning.devices import usable_memory

_SAMPLE = 1 << 20  # bytes of a file's beginning and end that identify it
_DIGEST = 32  # bytes of the digest at the end of a saved sequence


class LlamaCppBackend:
    """A `Backend` on llama.cpp.

    Its memory is freed with the last reference to it and its sequences. They are computed one at a
    time, from whatever thread.

    Args:
        gguf: A file of `export_gguf`, or another GGUF of a Llama.
        context: The most positions of a sequence.
        threads: How many CPU threads to use.

    Attributes:
        hidden: The size of an embedding.
        vocabulary: The number of tokens.
        context: As above.
        fingerprint: 32 bytes that identify the file.

    Raises:
        UsageError: llama.cpp is not installed.
        ModelError: The file is missing, damaged, or holds another kind of model.
    """

    def __init__(self, gguf: Path, *, context: int, threads: int) -> None:
        self._weights = LoadedGguf(gguf)
        self._threads = threads
        self.context = context
        self.hidden, self.vocabulary = self._weights.hidden, self._weights.vocabulary
        self.fingerprint = _fingerprint(gguf)

    def new_sequence(self) -> "LlamaCppSequence":
        """An empty sequence.

        Raises:
            DeviceError: There is no memory for its KV cache.
        """
        return LlamaCppSequence(self, *self.open_context(), 0)

    def restore(self, path: Path) -> "LlamaCppSequence":
        """Load a sequence that `LlamaCppSequence.save` wrote.

        Raises:
            ModelError: The file is missing, damaged, longer than the context, or of another model.
            DeviceError: There is no memory for its KV cache.
        """
        # llama.cpp aborts the process on some damaged files
        if not _is_intact(path, self.fingerprint):
            raise ModelError(f"{path} is damaged, or was not saved by this model")
        context, sequence = self.open_context()
        length = context.load(sequence, path)
        if not 0 < length <= self.context:
            raise ModelError(f"{path} does not fit into a context of {self.context} tokens")
        return LlamaCppSequence(self, context, sequence, length)

    def open_context(self) -> tuple[LlamaContext, int]:
        """A new context, and one of its sequences.

        Raises:
            DeviceError: There is no memory for it.
        """
        context = self.new_context(self.context)
        sequence = context.take()
        assert sequence is not None  # none is in use yet
        return context, sequence

    def new_context(self, size: int) -> LlamaContext:
        """A context whose sequences hold `size` positions together.

        Raises:
            DeviceError: There is no memory for it.
        """
        return LlamaContext(self._weights, size, self._threads)


class LlamaCppSequence:
    """A text with its KV cache (`Sequence`).

    Attributes:
        length: How many positions the KV cache holds.
    """

    def __init__(
        self, model: LlamaCppBackend, context: LlamaContext, sequence: int, length: int
    ) -> None:
        self._model = model
        self._settle(context, sequence)
        self.length = length

    def prefill(self, embeddings: Tensor) -> None:
        """Append embeddings (n, hidden), of any floating type and on any device.

        Raises:
            ValueError: They have another size, or are more than the context has room for.
            DeviceError: llama.cpp could not compute.
        """
        if embeddings.ndim != 2 or embeddings.shape[1] != self._model.hidden:
            wanted, shape = self._model.hidden, tuple(embeddings.shape)
            raise ValueError(f"embeddings of shape {shape}: wanted (n, {wanted})")
        rows = embeddings.detach().to("cpu", torch.float32).contiguous().numpy()
        self._append(rows, logits=False)

    def append(self, ids: list[int]) -> Tensor:
        """Append token ids, at least one.

        Returns:
            (vocabulary,) float32 logits of the next token.

        Raises:
            ValueError: There are none, too many for the context, or one is not a token.
            DeviceError: llama.cpp could not compute.
        """
        if not ids or min(ids) < 0 or max(ids) >= self._model.vocabulary:
            raise ValueError(f"wanted ids from 0 to {self._model.vocabulary - 1}, at least one")
        (logits,) = self._append(np.array(ids, np.int32), logits=True)
        return torch.from_numpy(logits)

    def truncate(self, length: int) -> None:
        """Drop all but the first `length` positions."""
        self.length = min(self.length, length)
        self._context.truncate(self._sequence, length)

    def fork(self) -> "LlamaCppSequence":
        """An independent sequence that shares the cells of this one.

        Raises:
            DeviceError: It needs a context of its own, and there is no memory for it.
        """
        sequence = self._context.take()
        if sequence is None:
            return LlamaCppSequence(self._model, *self._own_copy(), self.length)
        self._context.share(self._sequence, sequence)
        return LlamaCppSequence(self._model, self._context, sequence, self.length)

    def batch(self, room: int) -> LlamaCppSequenceBatch:
        """Sequences that go on from here, at most `MOST_TEXTS` at once.

        Args:
            room: The most positions of all together, without the shared ones. Where the context of
                this sequence lacks it, the sequence is copied to a new one with `useful_room`.

        Raises:
            DeviceError: There is no memory for them.
        """
        taken = None
        context, most = self._context, self._model.context
        room = useful_room(room, most - self.length)
        if context.free >= room:
            taken = context.take_together(MOST_TEXTS + 1)
        if taken is None:
            context = self._roomier(room)
            taken = context.take_together(MOST_TEXTS + 1)
            assert taken is not None  # none is in use yet
        batch = LlamaCppSequenceBatch(context, taken, self.length, room=room, most=most)
        # from here on the batch gives the sequences back, also when it is interrupted
        prefix = taken[0]
        if context is self._context:
            context.share(self._sequence, prefix)
        else:
            self._context.copy_to(context, self._sequence, prefix)
        return batch

    def save(self, path: Path, length: int | None = None) -> None:
        """Write the KV cache to a file for `LlamaCppBackend.restore`, atomically.

        Raises:
            OSError: The file cannot be written.
        """
        if length is not None and length < self.length:
            fork = self.fork()
            fork.truncate(length)
            fork.save(path)
            return
        partial = path.with_name(path.name + ".partial")
        try:
            if not self._context.save(self._sequence, partial):
                raise _write_error(path, self.saved_bytes(self.length))
            _append_digest(partial, self._model.fingerprint)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def saved_bytes(self, length: int) -> int:
        """About how many bytes `save` writes for the first `length` positions."""
        return self._context.bytes_of(self._sequence) * length // max(self.length, 1)

    def _append(self, inputs: NDArray[Any], *, logits: bool) -> NDArray[np.float32]:
        before, end = self.length, self.length + len(inputs)
        if end > self._model.context:
            raise ValueError(f"{end} positions are more than the context's {self._model.context}")
        given = np.empty((0, self._model.vocabulary), np.float32)
        try:
            for start in range(0, len(inputs), SLICE):
                piece = inputs[start : start + SLICE]
                last = start + SLICE >= len(inputs)
                given = self._decode(piece, logits=logits and last)
                self.length += len(piece)
        except BaseException:
            self.truncate(before)
            raise
        return given

    def _decode(self, piece: NDArray[Any], *, logits: bool) -> NDArray[np.float32]:
        """(1, vocabulary) the logits of the next token, or (0, vocabulary)."""
        try:
            return self._decode_here(piece, logits=logits)
        except ContextFullError:
            # filled by forks
            copy = self._own_copy()
            self._leave()
            self._settle(*copy)
            return self._decode_here(piece, logits=logits)

    def _decode_here(self, piece: NDArray[Any], *, logits: bool) -> NDArray[np.float32]:
        count = len(piece)
        sequences = np.full(count, self._sequence, np.int32)
        positions = np.arange(self.length, self.length + count, dtype=np.int32)
        wanted = np.zeros(count, np.bool_)
        wanted[-1] = logits
        return self._context.decode(piece, sequences, positions, wanted)

    def _own_copy(self) -> tuple[LlamaContext, int]:
        context, sequence = self._model.open_context()
        self._context.copy_to(context, self._sequence, sequence)
        return context, sequence

    def _roomier(self, room: int) -> LlamaContext:
        """A new context for this sequence and `room` positions more."""
        size = self.length + room
        taken = self._context.bytes_of(self._sequence)  # twice while it is copied
        # checked first, because a system that overcommits would kill the process instead
        if taken * size // max(self.length, 1) + taken > usable_memory().free:
            raise DeviceError(
                f"out of memory: no room for a KV cache of {size} tokens",
                "free some memory, or answer fewer questions at once",
            )
        return self._model.new_context(size)

    def _settle(self, context: LlamaContext, sequence: int) -> None:
        self._context, self._sequence = context, sequence
        self._leave = weakref.finalize(self, context.leave, sequence)


def _fingerprint(gguf: Path) -> bytes:
    """Hash the size, the beginning and the end of a file."""
    size = gguf.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with gguf.open("rb") as file:
        digest.update(file.read(_SAMPLE))
        file.seek(max(0, size - _SAMPLE))
        digest.update(file.read(_SAMPLE))
    return digest.digest()


def _write_error(path: Path, wanted: int) -> OSError:
    """Why llama.cpp could not write `wanted` bytes, which it does not report."""
    try:
        full = shutil.disk_usage(path.parent).free < wanted
    except OSError as error:
        return error
    number = errno.ENOSPC if full else errno.EIO
    return OSError(number, os.strerror(number), str(path))


def _append_digest(path: Path, key: bytes) -> None:
    """Append a keyed digest of a file to it."""
    with path.open("r+b") as file:
        digest = _keyed_digest(file, path.stat().st_size, key)
        file.write(digest)


def _is_intact(path: Path, key: bytes) -> bool:
    """Whether a file ends with its digest of `_append_digest`."""
    try:
        with path.open("rb") as file:
            digest = _keyed_digest(file, path.stat().st_size - _DIGEST, key)
            return file.read() == digest
    except FileNotFoundError as error:
        raise ModelError(f"no file {path}") from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error


def _keyed_digest(file: BinaryIO, size: int, key: bytes) -> bytes:
    """Hash the next `size` bytes of a file."""
    digest = hashlib.blake2b(key=key, digest_size=_DIGEST)
    while size > 0 and (piece := file.read(min(size, _SAMPLE))):
        digest.update(piece)
        size -= len(piece)
    return digest.digest()
