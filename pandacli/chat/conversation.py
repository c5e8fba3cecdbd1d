"""A conversation about a clip: each turn sees those before it and computes only itself."""

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from pandacli.errors import UsageError
from pandacli.inference.answer import Answer, AnswerStream

if TYPE_CHECKING:
    from pandacli.inference.session import VideoSession

_ROOM = 256
"""Tokens that an answer is given room for where turns have to be forgotten, if it may have them."""


@dataclass(frozen=True)
class Turn:
    """A question and its answer.

    Attributes:
        question: What was asked.
        answer: What was answered, as far as it came.
        finish_reason: As in `Answer`; "interrupted" where the user stopped it.
        ids: The answer's tokens, where the model gave them in this process.
    """

    question: str
    answer: str
    finish_reason: Literal["stop", "length", "interrupted"] = "stop"
    ids: tuple[int, ...] = field(default=(), compare=False, repr=False)


class Conversation:
    """Turns about one clip, on one KV cache.

    Nothing is computed twice: a question is read behind what the cache holds of the turns before
    it, and taking turns back crops the cache. Where the turns outgrow the model's context, the
    oldest are forgotten, half of the room at a time, so that this is not to be done at every turn.

    Args:
        clip: What it is about.
        turns: What has been said before.

    Attributes:
        turns: What has been said, the forgotten turns included.
        forgotten: How many turns, from the first on, the model does not see any more.
    """

    def __init__(self, clip: "VideoSession", turns: Iterable[Turn] = ()) -> None:
        self.clip = clip
        self.turns = list(turns)
        self.forgotten = 0

    def ask(
        self,
        question: str,
        *,
        max_tokens: int = 1024,
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> AnswerStream:
        """Ask the next question; its answer, in pieces, becomes a turn.

        An answer that is not read to its end becomes a turn with what there was of it, if there
        was anything.

        Args:
            question: Any text.
            max_tokens: As in `VideoSession.stream`.
            temperature: As in `VideoSession.stream`.
            seed: Makes the conversation repeatable: each turn draws in its own way.

        Raises:
            UsageError: A setting is out of range, or the question alone is longer than the context.
            DeviceError: Out of memory, while reading from the stream.
        """
        self._make_room(question, min(max_tokens, _ROOM))
        stream = self.clip.stream(
            question,
            history=self.seen(),
            max_tokens=max_tokens,
            temperature=temperature,
            seed=None if seed is None else (seed + len(self.turns)) % 2**63,
        )
        return AnswerStream(self._recorded(question, stream), lambda: stream.stats)

    def undo(self) -> Turn | None:
        """Take the last turn back; returns it, or None where there is none."""
        turn = self.turns.pop() if self.turns else None
        self.forgotten = min(self.forgotten, len(self.turns))
        return turn

    def _recorded(self, question: str, stream: AnswerStream) -> Generator[str, None, Answer]:
        pieces: list[str] = []
        turn = None
        try:
            with closing(stream):
                for piece in stream:
                    pieces.append(piece)
                    yield piece
            answer = stream.answer
            turn = Turn(question, answer.text, answer.finish_reason, answer.ids)
            return answer
        finally:
            if turn is None and (text := "".join(pieces).strip()):
                turn = Turn(question, text, "interrupted")
            if turn is not None:
                self.turns.append(turn)

    def seen(self) -> list[tuple[str, str | Sequence[int]]]:
        """The turns that the model still sees, as `VideoSession.stream` takes them."""
        # ids, where there are: other ids can make the same text, and the cache would not do
        return [(turn.question, turn.ids or turn.answer) for turn in self.turns[self.forgotten :]]

    def _make_room(self, question: str, wanted: int) -> None:
        """Forget the oldest turns where the context does not hold them all.

        Raises:
            UsageError: The question alone leaves no room.
        """
        left = self.clip.tokens_left(question, self.seen())
        if left >= wanted:
            return
        alone = self.clip.tokens_left(question)
        if alone < 1:
            raise UsageError(
                f"the question is {1 - alone} tokens too long for the model",
                "ask a shorter one, or look at fewer frames (--frames 4)",
            )
        while self.forgotten < len(self.turns) and left < max(wanted, alone // 2):
            self.forgotten += 1
            left = self.clip.tokens_left(question, self.seen())
