"""An answer, its statistics, and the stream it arrives by."""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self


@dataclass(frozen=True)
class Stats:
    """Tokens, seconds and memory of one answer.

    Attributes:
        frames: Frames of the clip, without padding.
        prefix_tokens: Tokens of the system prompt and the frames.
        question_tokens: Tokens of the question.
        prefilled_tokens: Tokens before the answer that were not in the KV cache already.
        answer_tokens: Tokens generated, the one that ends the answer included.
        load_seconds: Loading the model, once for all answers.
        frames_seconds: Sampling and preprocessing the frames, once for all answers on a clip.
        prefill_seconds: Prefill, that of the prefix included for the first question on a clip.
        first_token_seconds: Prefill and the first token.
        decode_seconds: All further tokens.
        tokens_per_second: Of those; 0 where there were none.
        peak_memory_bytes: The most memory in use so far: of the process on the CPU, of torch on
            CUDA devices.
        history_tokens: Tokens of earlier turns.
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
        finish_reason: "stop" where the model or a stop string ended it, "length" at `max_tokens`
            or the end of the context.
        stats: Tokens, seconds and memory.
        question: The question.
        ids: The tokens of the text, without the one that ends the answer; none where a stop string
            ended it.
    """

    text: str
    finish_reason: Literal["stop", "length"]
    stats: Stats
    question: str
    ids: tuple[int, ...] = ()

    def __str__(self) -> str:
        return self.text


class AnswerStream(Iterator[str]):
    """An iterator over pieces of text that join to `answer.text`, as they are decoded.

    No work is done before the first piece is read. After `close()`, or leaving a `with` block, the
    session is ready for the next question.

    Args:
        pieces: Yields the text and returns the `Answer`.
        stats: Returns the statistics of an answer that has ended or was stopped.
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
        """Statistics of an answer that has ended or was stopped; None without a token."""
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
