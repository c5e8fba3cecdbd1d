"""The backend protocol: what inference needs of a language model.

A `Backend` computes the Llama of a Video-Panda. A `Sequence` is one text with its KV cache, and a
`SequenceBatch` holds many texts behind a shared prefix.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Sequence(Protocol):
    """A text, frames included, with its KV cache."""

    @property
    def length(self) -> int:
        """How many positions the KV cache holds."""
        ...

    def prefill(self, embeddings: "Tensor") -> None:
        """Append embeddings (n, hidden_size), of text and of frames."""
        ...

    def append(self, ids: list[int]) -> "Tensor":
        """Append token ids; returns the logits (vocabulary,) of the next token."""
        ...

    def truncate(self, length: int) -> None:
        """Drop all but the first `length` positions, also after an interrupted `append`."""
        ...

    def fork(self) -> "Sequence":
        """An independent sequence with the same content."""
        ...

    def batch(self, room: int) -> "SequenceBatch":
        """Sequences that go on from this one and are computed together.

        This sequence must not be used until the batch is closed; then it is as it was before.

        Args:
            room: The most positions of all sequences together, without the shared ones; the batch
                may have less, see `SequenceBatch.room`.

        Raises:
            DeviceError: Out of memory.
        """
        ...

    def save(self, path: Path, length: int | None = None) -> None:
        """Write the KV cache to a file, for `Backend.restore`.

        Args:
            path: The file.
            length: How many positions, from the first; None for all.

        Raises:
            OSError: The file cannot be written.
        """
        ...

    def saved_bytes(self, length: int) -> int:
        """About how many bytes `save` writes for the first `length` positions."""
        ...


class SequenceBatch(Protocol):
    """Sequences behind a shared prefix, which is held once; none sees another.

    Attributes:
        room: How many positions they may have together, without the shared ones.
        most_texts: How many there may be at once; None for any number.
    """

    room: int
    most_texts: int | None

    def append(self, texts: Mapping[int, list[int]]) -> "Tensor":
        """Append token ids to some of the sequences, all in one forward pass.

        Args:
            texts: At least one id for each, by the number of the sequence. A number that is not
                in use starts a sequence.

        Returns:
            (len(texts), vocabulary) the logits of the next tokens, in the order given.
        """
        ...

    def remove(self, text: int) -> None:
        """Drop a sequence; its number may be used again."""
        ...

    def close(self) -> None:
        """Drop all sequences and release the prefix; also after an interrupted `append`."""
        ...


class Backend(Protocol):
    """Computes a Llama."""

    def new_sequence(self) -> Sequence:
        """An empty sequence."""
        ...

    def restore(self, path: Path) -> Sequence:
        """A sequence that `Sequence.save` of the same model wrote.

        Raises:
            ModelError: The file is damaged, or comes from another model.
        """
        ...
