"""What comes out of the engine: an answer, and the stream that it arrives by."""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self


@dataclass(frozen=True)
class Stats:
    """What one answer took.

    Attributes:
        frames: Frames looked at, padding not counted.
        prefix_tokens: Tokens of the system prompt and the frames.
        question_tokens: Tokens of the question.
        prefilled_tokens: Of all tokens before the answer, those that were computed for it; the
            others were in the KV cache.
        answer_tokens: Tokens generated, with the one that ends the answer.
        load_seconds: Loading the model, once for all answers.
        frames_seconds: Sequence and fitting the frames, once for all answers on a clip.
        prefill_seconds: Computing what comes before the answer; the prefix is in it only for the
            first question on a clip.
        first_token_seconds: From the start of the work on this question to its first token.
        decode_seconds: The tokens after the first.
        tokens_per_second: Of those tokens; 0 where there were none.
        peak_memory_bytes: The most memory in use so far: of the process on the CPU, of torch on
            a CUDA device.
        history_tokens: Tokens of the turns between the frames and the question.
    """

    frames: int
    prefix_tokens: int
    question_tokens: int
    prefilled_tokens: int
    answer_tokens: int
    load_seconds: float
    frames_seconds: float
    prefill_seconds: float
    first_token_seconds: float
    decode_seconds: float
    tokens_per_second: float
    peak_memory_bytes: int
    history_tokens: int = 0


@dataclass(frozen=True)
class Answer:
    """An answer.

    Attributes:
        text: The answer, without space around it.
        finish_reason: "stop" where the model ended it, "length" where it ran into `max_tokens` or
            the end of the context.
        stats: What it took.
        question: What was asked.
        ids: The tokens of the text, without the one that ends the answer.
    """

    text: str
    finish_reason: Literal["stop", "length"]
    stats: Stats
    question: str
    ids: tuple[int, ...] = ()

    def __str__(self) -> str:
        return self.text


class AnswerStream(Iterator[str]):
    """An answer as it is decoded: an iterator over pieces of text that join to `answer.text`.

    No work is done before the first piece is asked for. Ending early, by `close()` or by leaving
    a `with` block, leaves the clip ready for the next question.

    Args:
        pieces: Yields the text and returns the `Answer`.
        stats: What the answer has taken, once it has ended, also where it was stopped.
    """

    def __init__(
        self,
        pieces: Generator[str, None, Answer],
        stats: Callable[[], Stats | None] = lambda: None,
    ) -> None:
        self._pieces = pieces
        self._stats = stats
        self._answer: Answer | None = None

    def __next__(self) -> str:
        try:
            return next(self._pieces)
        except StopIteration as end:
            self._answer = self._answer or end.value
            raise StopIteration from None

    @property
    def answer(self) -> Answer:
        """The whole answer.

        Raises:
            RuntimeError: The stream has not been read to its end.
        """
        if self._answer is None:
            raise RuntimeError("the answer is whole only when its stream has been read to the end")
        return self._answer

    @property
    def stats(self) -> Stats | None:
        """What the answer took, as far as it came; None before the end and without a token."""
        return self._answer.stats if self._answer else self._stats()

    def close(self) -> None:
        """Stop decoding."""
        self._pieces.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
