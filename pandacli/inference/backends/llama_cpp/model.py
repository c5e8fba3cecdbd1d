"""llama.cpp as a language model: the Llama of a GGUF file, which reads ids and embeddings.

A reading is a sequence in the KV cache of a llama.cpp context. Forks stay in the context of the
reading they come from and share its past without a copy; a reading that finds no room there moves
to a context of its own. A reading that is interrupted is left as it was before.
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

_SAMPLE = 1 << 20  # bytes of a file's beginning and end that tell it from others

_SEAL = 32  # bytes of the digest behind a saved reading


class LlamaCppBackend:
    """A language model (`Backend`) that llama.cpp computes.

    Its memory is freed when neither it nor one of its readings is referred to. Readings are
    computed one at a time, whichever threads ask.

    Args:
        gguf: A file of `export_gguf`, or another GGUF of a Llama.
        context: The most positions that a reading can hold.
        threads: How many threads compute.

    Attributes:
        hidden: The width of an embedding.
        vocabulary: How many tokens there are.
        context: As above.
        mark: 32 bytes that tell the file from others.

    Raises:
        UsageError: llama.cpp is not installed.
        ModelError: The file is missing, damaged, or holds another kind of model.
    """

    def __init__(self, gguf: Path, *, context: int, threads: int) -> None:
        self._weights = LoadedGguf(gguf)
        self._threads = threads
        self.context = context
        self.hidden, self.vocabulary = self._weights.hidden, self._weights.vocabulary
        self.mark = _mark(gguf)

    def new_sequence(self) -> "LlamaCppSequence":
        """A reading that has read nothing.

        Raises:
            DeviceError: There is no memory for its KV cache.
        """
        return LlamaCppSequence(self, *self.open_context(), 0)

    def restore(self, path: Path) -> "LlamaCppSequence":
        """The reading that was saved to a file.

        Raises:
            ModelError: The file is missing, damaged, longer than the context, or of another model.
            DeviceError: There is no memory for its KV cache.
        """
        # llama.cpp ends the process over some damaged files: it is given none
        if not _is_sealed(path, self.mark):
            raise ModelError(f"{path} is damaged, or was not saved by this model")
        context, sequence = self.open_context()
        length = context.load(sequence, path)
        if not 0 < length <= self.context:
            raise ModelError(f"{path} does not fit into a context of {self.context} tokens")
        return LlamaCppSequence(self, context, sequence, length)

    def open_context(self) -> tuple[LlamaContext, int]:
        """A new context, and a sequence of it for a reading.

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
    """What a `LlamaCppBackend` has read so far (`Sequence`).

    Attributes:
        length: Positions read.
    """

    def __init__(
        self, model: LlamaCppBackend, context: LlamaContext, sequence: int, length: int
    ) -> None:
        self._model = model
        self._settle(context, sequence)
        self.length = length

    def prefill(self, embeddings: Tensor) -> None:
        """Read embeddings (n, hidden), of any floating type and on any device.

        Raises:
            ValueError: They are of another width, or more than the context has room for.
            DeviceError: llama.cpp could not compute.
        """
        if embeddings.ndim != 2 or embeddings.shape[1] != self._model.hidden:
            wanted, shape = self._model.hidden, tuple(embeddings.shape)
            raise ValueError(f"embeddings of shape {shape}: wanted (n, {wanted})")
        rows = embeddings.detach().to("cpu", torch.float32).contiguous().numpy()
        self._read(rows, logits=False)

    def append(self, ids: list[int]) -> Tensor:
        """Read ids of text, at least one.

        Returns:
            (vocabulary,) float32 logits of the token that comes next.

        Raises:
            ValueError: There are none, more than the context has room for, or one is no token.
            DeviceError: llama.cpp could not compute.
        """
        if not ids or min(ids) < 0 or max(ids) >= self._model.vocabulary:
            raise ValueError(f"wanted ids from 0 to {self._model.vocabulary - 1}, at least one")
        (logits,) = self._read(np.array(ids, np.int32), logits=True)
        return torch.from_numpy(logits)

    def truncate(self, length: int) -> None:
        """Go back to the first `length` positions, where there are more."""
        self.length = min(self.length, length)
        self._context.truncate(self._sequence, length)

    def fork(self) -> "LlamaCppSequence":
        """An independent reading with the same past, which both share in memory.

        Raises:
            DeviceError: There is no memory for a KV cache of its own, where it needs one.
        """
        sequence = self._context.take()
        if sequence is None:
            return LlamaCppSequence(self._model, *self._own_copy(), self.length)
        self._context.share(self._sequence, sequence)
        return LlamaCppSequence(self._model, self._context, sequence, self.length)

    def batch(self, room: int) -> LlamaCppSequenceBatch:
        """Texts that go on from here and are read together, `MOST_TEXTS` at once at most.

        Args:
            room: How many positions they may have at once at most, without those they share. Where
                this reading's context has no such room, what has been read is copied to another;
                that has `useful_room`.

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
        branches = LlamaCppSequenceBatch(context, taken, self.length, room=room, most=most)
        # from here on the branches give the sequences back, whatever is interrupted
        past = taken[0]
        if context is self._context:
            context.share(self._sequence, past)
        else:
            self._context.copy_to(context, self._sequence, past)
        return branches

    def save(self, path: Path, length: int | None = None) -> None:
        """Write the KV cache to a file for `LlamaCppBackend.restore`; it is there once it is whole.

        Raises:
            OSError: The file cannot be written.
        """
        if length is not None and length < self.length:
            start = self.fork()
            start.truncate(length)
            start.save(path)
            return
        partial = path.with_name(path.name + ".partial")
        try:
            if not self._context.save(self._sequence, partial):
                raise _unwritten(path, self.saved_bytes(self.length))
            _seal(partial, self._model.mark)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def saved_bytes(self, length: int) -> int:
        """What `save` would write of the first `length` positions, about."""
        return self._context.bytes_of(self._sequence) * length // max(self.length, 1)

    def _read(self, inputs: NDArray[Any], *, logits: bool) -> NDArray[np.float32]:
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
            # as it was before, whatever was interrupted
            self.truncate(before)
            raise
        return given

    def _decode(self, piece: NDArray[Any], *, logits: bool) -> NDArray[np.float32]:
        """(1, vocabulary) the logits of what comes next, or (0, vocabulary)."""
        try:
            return self._decode_here(piece, logits=logits)
        except ContextFullError:
            # filled by forks of the same past
            place = self._own_copy()
            self._leave()
            self._settle(*place)
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
        """A new context for what has been read and `room` positions more."""
        size = self.length + room
        taken = self._context.bytes_of(self._sequence)  # and once more while it is copied
        # a system that promises more than it has would end the process instead
        if taken * size // max(self.length, 1) + taken > usable_memory().free:
            raise DeviceError(
                f"out of memory: no room for a KV cache of {size} tokens",
                "free some memory, or answer fewer questions at once",
            )
        return self._model.new_context(size)

    def _settle(self, context: LlamaContext, sequence: int) -> None:
        self._context, self._sequence = context, sequence
        self._leave = weakref.finalize(self, context.leave, sequence)


def _mark(gguf: Path) -> bytes:
    """32 bytes that tell a file from others: of its size, its beginning and its end."""
    size = gguf.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with gguf.open("rb") as file:
        digest.update(file.read(_SAMPLE))
        file.seek(max(0, size - _SAMPLE))
        digest.update(file.read(_SAMPLE))
    return digest.digest()


def _unwritten(path: Path, wanted: int) -> OSError:
    """Why llama.cpp could not write so many bytes, which it does not tell."""
    try:
        full = shutil.disk_usage(path.parent).free < wanted
    except OSError as error:
        return error
    number = errno.ENOSPC if full else errno.EIO
    return OSError(number, os.strerror(number), str(path))


def _seal(path: Path, mark: bytes) -> None:
    """Write a digest behind a file, which depends on the mark of the model too."""
    with path.open("r+b") as file:
        digest = _keyed_digest(file, path.stat().st_size, mark)
        file.write(digest)


def _is_sealed(path: Path, mark: bytes) -> bool:
    """Whether a file is as `_seal` left it."""
    try:
        with path.open("rb") as file:
            digest = _keyed_digest(file, path.stat().st_size - _SEAL, mark)
            return file.read() == digest
    except FileNotFoundError as error:
        raise ModelError(f"no file {path}") from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error


def _keyed_digest(file: BinaryIO, size: int, mark: bytes) -> bytes:
    """Of the next `size` bytes of a file, which are read."""
    digest = hashlib.blake2b(key=mark, digest_size=_SEAL)
    while size > 0 and (piece := file.read(min(size, _SAMPLE))):
        digest.update(piece)
        size -= len(piece)
    return digest.digest()
