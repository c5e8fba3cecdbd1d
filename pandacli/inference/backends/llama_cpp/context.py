"""Safe handles of llama.cpp: the weights of a GGUF file, and contexts, which are KV caches.

Memory is freed with the objects, all calls of a model are made on one thread, and a computation can
be interrupted.
"""

import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from ctypes import byref, c_int32, c_size_t, c_void_p, cast
from functools import wraps
from itertools import chain, count, islice
from pathlib import Path
from threading import Event
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from pandacli.background import current_step
from pandacli.errors import DeviceError, ModelError
from pandacli.quantization.llama_library import (
    AbortCallback,
    Batch,
    ProgressCallback,
    llama_library,
)

SLICE = 512  # the most positions that are computed at a time
_SEQUENCES = 128  # of a context; each costs the memory of its logits
_POLL = 0.1  # seconds between checks for an interrupt
_NO_ROOM = 1  # status of llama_decode where the KV cache lacks cells

_P = ParamSpec("_P")
_Result = TypeVar("_Result")


class ContextFullError(Exception):
    """A context has no free cells for new positions."""


class LoadedGguf:
    """The weights of a GGUF file, mapped into memory.

    Raises a `ModelError` if it is missing or damaged; `check_gguf` finds another kind of model.
    """

    def __init__(self, path: Path) -> None:
        self.library = library = llama_library()
        if not path.is_file():
            raise ModelError(f"no file {path}")
        self._worker = ThreadPoolExecutor(1, "llama.cpp")
        self._stop = stop = Event()
        self.abort = AbortCallback(lambda _: stop.is_set())
        step, size = current_step(), path.stat().st_size
        before = step.done if step is not None else 0

        def on_progress(share: float, _: object) -> bool:
            if step is not None:
                step.done = before + int(share * size)
            return not stop.is_set()

        # repacked weights would be a second copy in memory, beside the mapped one
        params = library.llama_model_default_params()
        params.use_extra_bufts = False
        callback = ProgressCallback(on_progress)
        params.progress_callback = cast(callback, c_void_p)
        load = library.llama_model_load_from_file
        self.handle = self.run(lambda: load(bytes(path), params))
        if not self.handle:
            hint = "the file may be damaged: make it again"
            raise ModelError(f"{path} cannot be read by llama.cpp", hint)
        weakref.finalize(self, library.llama_model_free, self.handle)
        self.hidden = int(library.llama_model_n_embd(self.handle))
        vocabulary = library.llama_model_get_vocab(self.handle)
        self.vocabulary = int(library.llama_vocab_n_tokens(vocabulary))

    def run(self, job: Callable[[], _Result]) -> _Result:
        """Run a job on the thread of this model; an interrupt of the caller aborts it."""
        future = self._worker.submit(job)
        try:
            # polled, because a signal just before a wait does not end it
            while not future.done():
                wait([future], timeout=_POLL)
            return future.result()
        except BaseException:
            if not future.done() and not future.cancel():
                self._stop.set()
                while not future.done():
                    with suppress(KeyboardInterrupt):
                        wait([future])
                self._stop.clear()
            raise


def _on_thread(
    method: Callable[Concatenate["LlamaContext", _P], _Result],
) -> Callable[Concatenate["LlamaContext", _P], _Result]:
    @wraps(method)
    def run(context: "LlamaContext", /, *args: _P.args, **kwargs: _P.kwargs) -> _Result:
        return context._model.run(lambda: method(context, *args, **kwargs))

    return run


class LlamaContext:
    """A KV cache in half precision of `size` cells; a position that sequences share takes one."""

    def __init__(self, model: LoadedGguf, size: int, threads: int) -> None:
        self._model, self._library, self._size = model, model.library, size
        self.vocabulary = model.vocabulary
        params = self._library.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = size, SLICE, SLICE
        params.n_seq_max, params.kv_unified = _SEQUENCES, True
        # by default it is the size of a small context, and llama.cpp would abort the process
        params.n_outputs_max = _SEQUENCES
        params.n_threads = params.n_threads_batch = threads
        self._handle = model.run(lambda: self._library.llama_init_from_model(model.handle, params))
        if not self._handle:
            message = f"out of memory: no room for a KV cache of {size} tokens"
            raise DeviceError(message, "free some memory, or try panda with --model tiny")
        weakref.finalize(self, self._library.llama_free, self._handle)
        self._library.llama_set_abort_callback(self._handle, model.abort, None)
        self._memory = self._library.llama_get_memory(self._handle)
        self._unused = deque(range(_SEQUENCES))
        self._released: deque[int] = deque()
        self._cells: list[list[int]] = [[] for _ in range(_SEQUENCES)]  # numbered by `_numbers`
        self._numbers = count()

    @property
    def free(self) -> int:
        """How many cells no sequence uses."""
        self._clear_released()
        return self._size - len(set().union(*self._cells))

    def acquire(self, wanted: int) -> list[int]:
        """Reserve empty sequences; none if fewer are free."""
        self._clear_released()
        return [self._unused.popleft() for _ in range(wanted if wanted <= len(self._unused) else 0)]

    def release(self, *sequences: int) -> None:
        """Release sequences; allowed at any time, from any thread."""
        self._released.extend(sequences)

    def _clear_released(self) -> None:
        while self._released:
            sequence = self._released.popleft()
            self.truncate(sequence, 0)
            self._unused.append(sequence)

    def decode(
        self,
        inputs: NDArray[Any],
        sequences: NDArray[np.int32],
        positions: NDArray[np.int32],
        wanted: NDArray[np.bool_],
    ) -> NDArray[np.float32]:
        """Append n ids (n,) int32 or embeddings (n, hidden) float32 to one or more sequences.

        `sequences` (n,) and `positions` (n,) say where each goes, and `wanted` (n,) whether its
        logits are among those returned, (wanted.sum(), vocabulary); at most one of a sequence.
        Without room raises a `ContextFullError`; after an error some sequences may be longer.
        """
        self._clear_released()
        rows, step = [np.empty((0, self.vocabulary), np.float32)], current_step()
        for start in range(0, len(inputs), SLICE):
            piece = slice(start, start + SLICE)
            members = [[sequence] for sequence in sequences[piece].tolist()]
            rows.append(self._decode_slice(inputs[piece], members, positions[piece], wanted[piece]))
            if step is not None:
                step.reach(min(start + SLICE, len(inputs)), len(inputs))
        return np.concatenate(rows)

    def decode_shared(
        self,
        ids: NDArray[np.int32],
        members: list[list[int]],
        positions: NDArray[np.int32],
        wanted: NDArray[np.bool_],
    ) -> NDArray[np.float32]:
        """Append ids that each belong to one or more sequences, where those do not differ before.

        As `decode`, but any id can be wanted.
        """
        self._clear_released()
        rows, step = [np.empty((0, self.vocabulary), np.float32)], current_step()
        start = 0
        while start < len(ids):
            counts = np.cumsum(wanted[start : start + SLICE])
            end = start + int(np.searchsorted(counts, _SEQUENCES, "right"))
            piece = slice(start, end)
            rows.append(
                self._decode_slice(ids[piece], members[piece], positions[piece], wanted[piece])
            )
            start = end
            if step is not None:
                step.reach(min(end, len(ids)), len(ids))
        return np.concatenate(rows)

    @_on_thread
    def _decode_slice(
        self,
        inputs: NDArray[Any],
        members: list[list[int]],
        positions: NDArray[np.int32],
        wanted: NDArray[np.bool_],
    ) -> NDArray[np.float32]:
        is_ids = inputs.ndim == 1
        flags = wanted.astype(np.int8)
        counts = np.fromiter(map(len, members), np.int32)
        sequences = np.fromiter(chain.from_iterable(members), np.int32)
        starts = np.cumsum(counts, dtype=np.uintp) - counts.astype(np.uintp)
        pointers = starts * sequences.itemsize + sequences.ctypes.data
        batch = Batch(
            n_tokens=len(inputs),
            token=inputs.ctypes.data if is_ids else None,
            embd=None if is_ids else inputs.ctypes.data,
            pos=positions.ctypes.data,
            n_seq_id=counts.ctypes.data,
            seq_id=pointers.ctypes.data,
            logits=flags.ctypes.data,
        )
        status = self._library.llama_decode(self._handle, batch)
        if status == _NO_ROOM:
            raise ContextFullError
        if status:
            raise DeviceError(f"llama.cpp could not compute: it gave status {status}")
        for held in members:
            number = next(self._numbers)  # of a cell, which sequences share
            for sequence in held:
                self._cells[sequence].append(number)
        places = np.flatnonzero(wanted).tolist()
        rows = np.empty((len(places), self.vocabulary), np.float32)
        for row, place in zip(rows, places, strict=True):  # copied: the next call overwrites them
            values = self._library.llama_get_logits_ith(self._handle, place)
            row[:] = np.ctypeslib.as_array(values, row.shape)
        return rows

    @_on_thread
    def share(self, source: int, target: int) -> None:
        """Share the cells of a sequence with an empty one."""
        self._library.llama_memory_seq_cp(self._memory, source, target, -1, -1)
        self._cells[target] = list(self._cells[source])

    @_on_thread
    def truncate(self, sequence: int, length: int) -> None:
        self._library.llama_memory_seq_rm(self._memory, sequence, length, -1)
        del self._cells[sequence][length:]

    @_on_thread
    def bytes_of(self, sequence: int) -> int:
        return int(self._library.llama_state_seq_get_size(self._handle, sequence))

    @_on_thread
    def copy_to(self, other: "LlamaContext", source: int, target: int) -> None:
        """Copy a sequence into an empty one of another context of the same model."""
        size = self._library.llama_state_seq_get_size(self._handle, source)
        state = np.empty(size, np.uint8)
        address = state.ctypes.data
        self._library.llama_state_seq_get_data(self._handle, address, size, source)
        if not self._library.llama_state_seq_set_data(other._handle, address, size, target):
            raise DeviceError("llama.cpp could not copy a KV cache")
        other._fill(target, len(self._cells[source]))

    @_on_thread
    def save(self, sequence: int, path: Path) -> bool:
        """Write a sequence to a file; False if that fails."""
        save = self._library.llama_state_seq_save_file
        return bool(save(self._handle, bytes(path), sequence, None, 0))

    @_on_thread
    def load(self, sequence: int, path: Path) -> int:
        """Load an undamaged file into an empty sequence; returns its length, 0 if too long."""
        # token ids in the file: ours have none, but a null pointer is refused
        ids, ids_count = c_int32(), c_size_t()
        read = self._library.llama_state_seq_load_file(
            self._handle, bytes(path), sequence, byref(ids), 1, byref(ids_count)
        )
        length = 1 + int(self._library.llama_memory_seq_pos_max(self._memory, sequence))
        self._fill(sequence, length)
        return length if read else 0

    def _fill(self, sequence: int, length: int) -> None:
        self._cells[sequence] = list(islice(self._numbers, length))
