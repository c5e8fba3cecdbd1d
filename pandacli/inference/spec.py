"""How a model is to be run, and how an answer is to be generated."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from sys import float_info
from typing import Literal, TypedDict

from pandacli.checkpoints.registry import DEFAULT_MODEL
from pandacli.errors import UsageError

Quant = Literal["none", "8bit", "4bit"]

ENGINES = ("auto", "torch", "bitsandbytes", "llama")
"""Values of `--engine`: auto picks one for the device; llama is llama.cpp (pandacli[llama])."""

RAY = "ray"
"""A further value of `--engine` for `panda batch`: run on a Ray cluster, each worker with auto."""


@dataclass(frozen=True)
class RunSpec:
    """Which model to run, and how.

    Attributes:
        model: A name in the registry, or the path of a checkpoint folder.
        quant: "none", "8bit", "4bit" or "auto".
        backend: One of `ENGINES`.
        device: "auto", "cpu", "cuda" or "cuda:N".
    """

    model: str | os.PathLike[str] = DEFAULT_MODEL
    quant: str = "auto"
    backend: str = "auto"
    device: str = "auto"


class OptionFields(TypedDict, total=False):
    """The fields of `GenerationOptions`, as keyword arguments."""

    max_tokens: int
    temperature: float
    seed: int | None
    stop: tuple[str, ...]


@dataclass(frozen=True)
class GenerationOptions:
    """How an answer is generated.

    Attributes:
        max_tokens: The most tokens of an answer.
        temperature: 0 decodes greedily; above, tokens are sampled.
        seed: Makes sampling repeatable; None samples differently each time.
        stop: Strings that end an answer; they are not part of it.
    """

    max_tokens: int = 1024
    temperature: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()

    def check(self) -> None:
        """Raise a `UsageError` for a value out of range."""
        if self.max_tokens < 1:
            raise UsageError(
                f"an answer cannot have {self.max_tokens} tokens", "ask for at least one"
            )
        # in this order, because an int may be too large for any float; nan is refused too
        if not 0 <= self.temperature <= float_info.max:
            raise UsageError(f"a temperature cannot be {self.temperature}", "0 is greedy")
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise UsageError(
                f"a seed cannot be {self.seed}", "use a whole number from 0 to 2^63 - 1"
            )
        if not isinstance(self.stop, tuple) or not all(self.stop):
            raise UsageError("stop must be a tuple of strings that are not empty")


History = Sequence[tuple[str, str | Sequence[int]]]
"""Earlier questions and their answers, as text or as the ids of `Answer.ids`."""


@dataclass(frozen=True)
class Request:
    """A question and the conversation before it.

    Attributes:
        question: Any text.
        history: Earlier turns.
        options: How to generate; None for the options of the generation.
    """

    question: str
    history: History = ()
    options: GenerationOptions | None = None


def check_frame_count(frames: int, chunk_frames: int = 4) -> None:
    """Refuse a number of frames that STAB cannot cut into equal chunks.

    Args:
        frames: How many frames to sample from a clip; a single one is an image.
        chunk_frames: The model's chunk length; chunks may be slightly longer.

    Raises:
        UsageError: With the nearest numbers that are possible.
    """
    if _divides(frames, chunk_frames):
        return
    fewer = [n for n in range(1, frames) if _divides(n, chunk_frames)][-1:]
    more = next(n for n in count(max(frames, 0) + 1) if _divides(n, chunk_frames))
    near = " or ".join(map(str, [*fewer, more]))
    raise UsageError(
        f"the model cannot look at {frames} frames",
        f"{near} would do; 8 is what it was trained with",
    )


def _divides(frames: int, chunk_frames: int) -> bool:
    chunks = frames // chunk_frames
    return frames == 1 or (chunks > 0 and frames % chunks == 0)
