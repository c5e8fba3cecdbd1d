"""The backend protocol: what inference needs of a language model.

A `Backend` computes the Llama of a Video-Panda. A `Sequence` is one text with its KV cache, and a
`SequenceBatch` holds many texts behind a shared prefix.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from torch import Tensor


class Sequence(Protocol):
    """What a language model has read so far: its KV cache."""

    @property
    def length(self) -> int:
        """How many positions have been read."""
        ...

    def prefill(self, embeddings: Tensor) -> None:
        """Read embeddings (n, hidden_size), of text and of frames."""
        ...

    def append(self, ids: list[int]) -> Tensor:
        """Read ids of text; returns the logits (vocabulary,) of the token that comes next."""
        ...

    def truncate(self, length: int) -> None:
        """Forget all but the first `length` positions, also after an interrupted read."""
        ...

    def fork(self) -> "Sequence":
        """Another reading with the same past; what either reads, the other does not."""
        ...

    def batch(self, room: int) -> "SequenceBatch":
        """Texts that go on from here and are read together.

        This reading must not be used until they are closed; then it is as it was before.

        Args:
            room: How many positions they may have at once at most, all texts together, without
                those that they share; they may be given less, see `SequenceBatch.room`.

        Raises:
            DeviceError: There is no memory for them.
        """
        ...

    def save(self, path: Path, length: int | None = None) -> None:
        """Write what has been read into a file, for `Backend.restore`.

        Args:
            path: The file.
            length: Only so many positions, the first; None for all.

        Raises:
            OSError: The file cannot be written.
        """
        ...

    def saved_bytes(self, length: int) -> int:
        """What `save` would write of the first `length` positions, about."""
        ...


class SequenceBatch(Protocol):
    """Texts that share a past, which is held once, and of which none sees the others.

    Attributes:
        room: How many positions they may have at once, without those that they share.
        most_texts: How many there may be at once; None for any number.
    """

    room: int
    most_texts: int | None

    def append(self, texts: Mapping[int, list[int]]) -> Tensor:
        """Read on in some of the texts, all in one pass.

        Args:
            texts: The ids to read, at least one each, by the number of their text. A number that
                is not in use begins a text.

        Returns:
            (len(texts), vocabulary) the logits of the tokens that come next, in the order given.
        """
        ...

    def remove(self, text: int) -> None:
        """Forget a text; its number may be used anew."""
        ...

    def close(self) -> None:
        """Forget all texts and give the reading back; also after an interrupted read."""
        ...


class Backend(Protocol):
    """A Llama that reads embeddings and ids."""

    def new_sequence(self) -> Sequence:
        """A reading of nothing yet."""
        ...

    def restore(self, path: Path) -> Sequence:
        """A reading that `Sequence.save` of the same model wrote.

        Raises:
            ModelError: The file is damaged, or comes from another model.
        """
        ...
