"""The backend protocol, and which backends can be used on this machine.

All of a backend raise a `DeviceError` if memory runs out or the computation fails.
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib.util import find_spec
from itertools import takewhile
from operator import eq
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pandacli.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor


class Sequence(Protocol):
    """A text, frames included, with its KV cache."""

    @property
    def length(self) -> int:
        """How many positions the KV cache holds."""

    def prefill(self, embeddings: "Tensor") -> None:
        """Append embeddings (n, hidden_size), of any floating type and on any device."""

    def append(self, ids: list[int]) -> "Tensor":
        """Append token ids; returns the logits (vocabulary,) of the next token."""

    def truncate(self, length: int) -> None:
        """Drop all but the first `length` positions, also after an interrupted `append`."""

    def fork(self) -> "Sequence":
        """An independent sequence with the same content."""

    def batch(self, room: int) -> "SequenceBatch":
        """Sequences that go on from this one, with up to `room` positions of their own.

        This sequence must not be used until the batch is closed; then it is as it was before.
        """

    def tree(self, ids: list[int], parents: list[int], wanted: list[int]) -> "Tensor":
        """Compute a tree of tokens behind this sequence, which stays as it is.

        Node i is a token that follows node `parents[i]`, which comes before it, or this sequence
        where that is -1; it sees the nodes on its way to the root only.

        Returns:
            (len(wanted), vocabulary) the logits of the token after each wanted node; they ascend.

        Raises:
            DeviceError: No room for so many nodes.
        """
        ...

    def save(self, path: Path, length: int | None = None) -> None:
        """Write the first `length` positions, or all; an OSError may leave a part of the file."""

    def saved_bytes(self, length: int) -> int:
        """About how many bytes `save` writes for the first `length` positions."""


class SequenceBatch(Protocol):
    """Sequences behind a shared prefix, which is held once; none sees another."""

    room: int  # positions of all together, without the shared ones; may be less than asked for
    max_texts: int | None  # sequences at once; None for any number

    def append(self, texts: Mapping[int, list[int]]) -> "Tensor":
        """Append token ids, at least one each, to sequences by their numbers, in one forward pass.

        A number, from 0, that is not in use starts a sequence. Returns the logits of the next
        tokens, (len(texts), vocabulary), in the order given.
        """

    def remove(self, text: int) -> None:
        """Drop a sequence; its number may be used again."""

    def close(self) -> None:
        """Drop all sequences and release the prefix; also after an interrupted `append`."""


class Rows(Protocol):
    """Texts of one length, each with its own KV cache, computed as the rows of one batch."""

    def batch(self) -> SequenceBatch:
        """Texts that go on from rows 0, 1, ..., until it is closed.

        Each call of `append` names all that have not been removed, with as many ids for each.
        """

    def tree(self, ids: list[int], parents: list[int], wanted: list[int]) -> "Tensor":
        """Compute a tree of tokens behind each row: (rows, len(wanted), vocabulary).

        See `Sequence.tree`.
        """
        ...


class Backend(Protocol):
    """Computes the Llama of a Video-Panda."""

    def new_sequence(self) -> Sequence:
        """An empty sequence."""

    def restore(self, path: Path) -> Sequence:
        """Load a saved sequence; a `ModelError` if it is damaged, or of another model."""

    def rows(self, embeddings: "Tensor") -> Rows | None:
        """Prefill embeddings (rows, n, hidden_size); None where texts are computed one by one."""


class SharedPrefix:
    """The KV cache of a clip: its prefix, and behind it the last request that ran alone.

    `step` shows slow work; see `Panda.step`.
    """

    def __init__(
        self,
        sequence: Sequence,
        step: Callable[[str, int, str], AbstractContextManager[Any]],
        *,
        computed: bool = True,
    ) -> None:
        self.sequence, self._step = sequence, step
        self.length = sequence.length  # of the prefix
        self.prefilled = self.length if computed else 0  # tokens computed before answers so far
        self._held: list[int] = []  # ids behind the prefix

    def append(self, ids: list[int], history: int = 0) -> "Tensor":
        """Prefill a request behind the prefix; returns the logits (vocabulary,) of its answer.

        Of the first `history` ids (earlier turns), those that the cache holds already are kept.
        All others are computed, so that no answer depends on an earlier request.
        """
        kept = self._keep(ids[:history])
        return self._append(ids[kept:])

    def decode(self, token: int) -> "Tensor":
        logits = self.sequence.append([token])
        self._held.append(token)
        return logits

    def batch(self, room: int) -> SequenceBatch:
        """Sequences that each go on from the prefix; see `Sequence.batch`."""
        self._held.clear()
        self.sequence.truncate(self.length)
        return self.sequence.batch(room)

    def tree(
        self, ids: list[int], parents: list[int], wanted: list[int], history: list[int]
    ) -> "Tensor":
        """Logits in a tree of tokens behind earlier turns, which stay; see `Sequence.tree`."""
        kept = self._keep(history)
        if kept < len(history):
            self._append(history[kept:])
        logits = self.sequence.tree(ids, parents, wanted)
        self.prefilled += len(ids)
        return logits

    def _keep(self, ids: list[int]) -> int:
        """Drop what is behind the prefix, but for the beginning of `ids`; returns its length."""
        kept: int = sum(takewhile(bool, map(eq, self._held, ids)))
        del self._held[kept:]
        self.sequence.truncate(self.length + kept)
        return kept

    def _append(self, ids: list[int]) -> "Tensor":
        with self._step("reading the question", len(ids), "tokens"):
            logits = self.sequence.append(ids)
        self._held += ids
        self.prefilled += len(ids)
        return logits


def is_usable(backend: str) -> bool:
    """Whether "torch", "bitsandbytes" or "llama" can be used on this machine."""
    try:
        if backend == "llama":
            require_llama()
        elif backend == "bitsandbytes":
            with quiet_libraries():
                import bitsandbytes  # noqa: F401
    except Exception:  # whatever prevents the import
        return False
    return True


def require_llama() -> None:
    """Raise a `UsageError` if llama.cpp is not installed, or does not work."""
    from pandacli.quantization.llama_library import INSTALL, llama_library

    if find_spec("gguf") is None:
        raise UsageError("the package gguf, which llama.cpp needs, is not installed", INSTALL)
    llama_library()


def has_int8_kernels() -> bool:
    """Whether torch's int8 kernels (fbgemm) support this CPU: x86 with AVX2 or AVX-512."""
    import torch

    return torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


def has_4bit_kernel() -> bool:
    """Whether bitsandbytes has a fused 4-bit kernel for this CPU; otherwise it is very slow."""
    if not is_usable("bitsandbytes"):
        return False
    from bitsandbytes.functional import has_avx512bf16

    return bool(has_avx512bf16())


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep logs and the warnings about torch's own use of `torch.jit` off stderr."""
    # at every 8-bit product bitsandbytes says that it casts its inputs
    casting = logging.getLogger("bitsandbytes.autograd._functions")
    if not casting.filters:
        casting.addFilter(lambda record: "inputs will be cast" not in str(record.msg))
    with ExitStack() as stack:
        for logger in map(logging.getLogger, ("bitsandbytes", "transformers")):
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.ERROR)
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", r"`torch\.jit\.", DeprecationWarning)
        yield
