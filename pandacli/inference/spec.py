"""What inference takes and returns: run specs, requests with their options, and answers."""

import os
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from math import fsum
from sys import float_info
from typing import Any, Literal, NamedTuple, Self, TypedDict, TypeVar

from pandacli.checkpoints.registry import DEFAULT_MODEL
from pandacli.errors import UsageError

Quant = Literal["none", "8bit", "4bit"]
ENGINES = ("auto", "torch", "bitsandbytes", "llama")  # of --engine; "llama" is llama.cpp
RAY = "ray"  # of --engine for `panda batch`: a Ray cluster, with "auto" on each worker

FinishReason = Literal["stop", "length"]
"""An end token or stop string; or `max_tokens` or the end of the context."""

History = Sequence[tuple[str, str | Sequence[int]]]
"""Earlier questions and their answers, as text or as `Answer.ids`."""

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class RunSpec:
    model: str | os.PathLike[str] = DEFAULT_MODEL  # a registered name, or a checkpoint folder
    quant: str = "auto"  # "none", "8bit", "4bit" or "auto"
    backend: str = "auto"  # one of ENGINES
    device: str = "auto"  # "auto", "cpu", "cuda" or "cuda:N"


class OptionFields(TypedDict, total=False):
    """The fields of `GenerationOptions`, as keyword arguments."""

    max_tokens: int
    temperature: float
    seed: int | None
    stop: tuple[str, ...]
    logprobs: bool


@dataclass(frozen=True)
class GenerationOptions:
    max_tokens: int = 1024
    temperature: float = 0.0  # 0 decodes greedily; above, tokens are sampled
    seed: int | None = None  # makes sampling repeatable
    stop: tuple[str, ...] = ()  # strings that end an answer and are not part of it
    logprobs: bool = False  # whether `Answer.logprobs` is wanted

    def check(self) -> None:
        """Raise a UsageError for a value out of range."""
        if self.max_tokens < 1:
            raise UsageError(f"an answer cannot have {self.max_tokens} tokens", "use at least 1")
        # in this order, because an int may be too large for any float; nan is refused too
        if not 0 <= self.temperature <= float_info.max:
            raise UsageError(f"a temperature cannot be {self.temperature}", "0 is greedy")
        if self.seed is not None and not 0 <= self.seed < 2**63:
            hint = "use a whole number from 0 to 2^63 - 1"
            raise UsageError(f"a seed cannot be {self.seed}", hint)
        if not isinstance(self.stop, tuple) or not all(self.stop):
            raise UsageError("stop must be a tuple of strings that are not empty")


@dataclass(frozen=True)
class Request:
    question: str
    history: History = ()
    options: GenerationOptions | None = None  # None: the options of the generation


def check_choices(texts: Iterable[str], what: str = "the choices") -> tuple[str, ...]:
    """The choices without space around them: two or more, all different and none empty.

    Raises:
        UsageError: They are not; `what` names them in the message.
    """
    texts = tuple(text.strip() for text in texts)  # as the text of an answer is
    if not all(texts):
        raise UsageError(f"{what}: one is empty")
    if double := next((text for text, times in Counter(texts).items() if times > 1), None):
        raise UsageError(f"{what}: {double[:80]!r} is given twice")
    if len(texts) < 2:
        raise UsageError(f"{what}: only one is given", "give at least two")
    return texts


@dataclass(frozen=True)
class ScoreRequest:
    """A question whose possible answers are given, after the turns of `history`."""

    question: str
    choices: tuple[str, ...]
    history: History = ()


@dataclass(frozen=True)
class Choice:
    """A possible answer.

    Attributes:
        text: The answer.
        logprob: The log-probability of this answer and its end.
        probability: Its share of the probability of all choices.
    """

    text: str
    logprob: float
    probability: float


@dataclass(frozen=True)
class Scores:
    """The choices of a question, in the order given.

    Attributes:
        question: The question.
        choices: The choices.
        coverage: The probability of all choices together; near 0 where none fits the question.
    """

    question: str
    choices: tuple[Choice, ...]
    coverage: float

    @property
    def best(self) -> Choice:
        """The likeliest choice; of equal ones the first."""
        return max(self.choices, key=lambda choice: choice.logprob)

    @property
    def record(self) -> dict[str, Any]:
        """The choices and their coverage as they stand in JSON."""
        return {"choices": [asdict(choice) for choice in self.choices], "coverage": self.coverage}


@dataclass(frozen=True)
class ScoringStats:
    frames: int  # without padding
    prefix_tokens: int  # system prompt and frames
    tokens: int  # computed behind the prefix: questions and choices, common beginnings once
    passes: int  # that computed them
    load_seconds: float  # of the model
    frames_seconds: float  # sampling and preprocessing
    prefix_seconds: float  # 0 where it was computed before
    scoring_seconds: float
    peak_memory_bytes: int  # so far; of the process on the CPU, of torch on CUDA


@dataclass(frozen=True)
class Stats:
    frames: int  # without padding
    prefix_tokens: int  # system prompt and frames
    question_tokens: int
    prefilled_tokens: int  # computed before the answer: not in the KV cache already
    answer_tokens: int  # with the one that ends the answer
    load_seconds: float  # of the model, once for all answers
    frames_seconds: float  # sampling and preprocessing, once for all answers on a clip
    prefill_seconds: float  # with the prefix, for the first question on a clip
    first_token_seconds: float  # prefill and the first token
    decode_seconds: float  # all further tokens
    tokens_per_second: float  # of those; 0 if there are none
    peak_memory_bytes: int  # so far; of the process on the CPU, of torch on CUDA
    history_tokens: int = 0  # of earlier turns

    @property
    def total_tokens(self) -> int:
        return self.prefix_tokens + self.history_tokens + self.question_tokens + self.answer_tokens


@dataclass
class Seconds:
    """What the answers of a generation took."""

    prefill: float = 0.0  # passes in which a request was prefilled, together with others' decoding
    decode: float = 0.0  # all other passes
    rerun: float = 0.0  # requests with a near-tie, run again alone


class TokenLogprob(NamedTuple):
    """A generated token and its log-probability at a temperature of 1."""

    token: str
    logprob: float


@dataclass(frozen=True)
class Answer:
    text: str  # without space around it
    finish_reason: FinishReason
    stats: Stats
    question: str
    ids: tuple[int, ...] = ()  # without the end token; empty if a stop string ended the text
    logprobs: tuple[TokenLogprob, ...] = ()  # of all tokens and the end, where they were asked for

    @property
    def logprobs_record(self) -> dict[str, Any]:
        """The log-probabilities as they stand in JSON, with their mean."""
        values = [each.logprob for each in self.logprobs]
        return {
            "mean": fsum(values) / len(values),
            "tokens": [each._asdict() for each in self.logprobs],
        }

    def __str__(self) -> str:
        return self.text


class ClosableIterator(Iterator[_Item]):
    """Iterate over a generator; `close` or the end of a `with` block stops it early."""

    def __init__(self, items: Generator[_Item, None, Any]) -> None:
        self._items = items

    def __next__(self) -> _Item:
        return next(self._items)

    def close(self) -> None:
        self._items.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AnswerStream(ClosableIterator[str]):
    """Pieces of text that join to `answer.text`; the first `next` starts the work."""

    def __init__(
        self, pieces: Generator[str, None, Answer], stats: Callable[[], Stats | None]
    ) -> None:
        super().__init__(self._read(pieces))
        self._stats = stats
        self._answer: Answer | None = None

    def _read(self, pieces: Generator[str, None, Answer]) -> Generator[str, None, None]:
        self._answer = yield from pieces

    @property
    def answer(self) -> Answer:
        """The whole answer; a RuntimeError before the stream has been read to its end."""
        if self._answer is None:
            raise RuntimeError("the stream was not read to the end")
        return self._answer

    @property
    def stats(self) -> Stats | None:
        """Statistics of an answer that has ended or was stopped; None without a token."""
        return self._answer.stats if self._answer else self._stats()


def check_frame_count(frames: int, chunk_frames: int = 4) -> None:
    """Raise a UsageError unless STAB can cut the frames into equal chunks; one is an image."""

    def fits(number: int) -> bool:
        chunks = number // chunk_frames
        return number == 1 or (chunks > 0 and number % chunks == 0)

    if not fits(frames):
        fewer = next(filter(fits, range(frames - 1, 0, -1)), None)
        more = next(filter(fits, count(max(frames, 0) + 1)))
        near = f"{fewer} or {more}" if fewer else more
        hint = f"{near} would do; 8 is what it was trained with"
        raise UsageError(f"the model cannot look at {frames} frames", hint)
