"""What the engine asks of a language model, whatever computes it.

A `LanguageModel` is the Llama of a Video-Panda; a `Reading` is one text that it is in the middle
of, frames included. The rest of the engine knows these two and not what stands behind them:
torch (`torch_llama`) or llama.cpp (`llama_cpp`).
"""

from pathlib import Path
from typing import Protocol

from torch import Tensor


class Reading(Protocol):
    """What a language model has read so far: its KV cache."""

    @property
    def length(self) -> int:
        """How many positions have been read."""
        ...

    def read_embeddings(self, embeddings: Tensor) -> None:
        """Read embeddings (n, hidden_size), of text and of frames."""
        ...

    def read(self, ids: list[int]) -> Tensor:
        """Read ids of text; returns the logits (vocabulary,) of the token that comes next."""
        ...

    def crop(self, length: int) -> None:
        """Forget all but the first `length` positions, also after an interrupted read."""
        ...

    def fork(self) -> "Reading":
        """Another reading with the same past; what either reads, the other does not."""
        ...

    def save(self, path: Path) -> None:
        """Write what has been read into a file, for `LanguageModel.restore`."""
        ...


class LanguageModel(Protocol):
    """A Llama that reads embeddings and ids."""

    def start(self) -> Reading:
        """A reading of nothing yet."""
        ...

    def restore(self, path: Path) -> Reading:
        """A reading that `Reading.save` of the same model wrote.

        Raises:
            ModelError: The file is damaged, or comes from another model.
        """
        ...
