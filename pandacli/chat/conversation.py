"""Turns about one clip on one KV cache: each turn prefills only itself, after those before it."""

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from pandacli.errors import PandaError, UsageError
from pandacli.inference.spec import (
    Answer,
    AnswerStream,
    GenerationOptions,
    History,
    ScoreRequest,
    Scores,
    ScoringStats,
)

if TYPE_CHECKING:
    from pandacli.inference.session import VideoSession

_RESERVED = 256  # tokens kept free for an answer when old turns have to be dropped


@dataclass(frozen=True)
class Turn:
    question: str
    answer: str  # partial if it was interrupted
    finish_reason: Literal["stop", "length", "interrupted"] = "stop"
    ids: tuple[int, ...] = field(default=(), compare=False, repr=False)  # if generated here
    scores: Scores | None = field(default=None, compare=False)  # if it is the likeliest of choices


class Conversation:
    """Turns about one clip.

    When the turns outgrow the context, the oldest are dropped until half of it is free, so that
    not every later turn has to prefill the history again.
    """

    def __init__(self, session: "VideoSession", turns: list[Turn] | None = None) -> None:
        self.session = session
        self.turns = [] if turns is None else turns  # with the dropped ones
        self.dropped = 0  # how many of the first turns the model no longer sees
        self._counted: tuple[int, int] | None = None  # turns, and the tokens they take

    def ask(
        self,
        question: str,
        options: GenerationOptions = GenerationOptions(),  # noqa: B008  (frozen)
    ) -> AnswerStream:
        """Ask the next question and stream its answer, which becomes a turn.

        A stream that is closed early becomes a turn with the text so far, if any. Each turn has a
        seed of its own, derived from the one in `options`. Errors as of `VideoSession.stream`.
        """
        options.check()
        self._make_room(question, min(options.max_tokens, _RESERVED))
        if options.seed is not None:
            options = replace(options, seed=(options.seed + len(self.turns)) % 2**63)
        stream = self.session.stream(question, history=self.history(), **vars(options))
        return AnswerStream(self._recorded(question, stream), lambda: stream.stats)

    def score(self, question: str, choices: tuple[str, ...]) -> tuple[Scores, ScoringStats]:
        """Score choices as answers to the next question; the likeliest becomes a turn.

        Errors as of `VideoSession.score`.
        """
        alone = ScoreRequest(question, choices)
        encoded = [self.session.encode_choice(alone, choice) for choice in choices]
        self._make_room(question, max(len(answer) for _, answer in encoded))
        scoring = self.session.score_all([replace(alone, history=self.history())])
        ((_, scores),) = scoring
        if isinstance(scores, PandaError):
            raise scores
        self.turns.append(Turn(question, scores.best.text, scores=scores))
        self._counted = None
        return scores, scoring.stats

    def undo(self) -> Turn | None:
        turn = self.turns.pop() if self.turns else None
        self.dropped = min(self.dropped, len(self.turns))
        return turn

    def history(self) -> History:
        # token ids where known: other ids may spell the same text and miss the KV cache
        return [(turn.question, turn.ids or turn.answer) for turn in self.turns[self.dropped :]]

    def tokens(self) -> int:
        if not self.turns:
            return self.session.prefix_tokens
        if self._counted is None or self._counted[0] != len(self.turns):
            left = self.session.tokens_left("", self.history())
            self._counted = len(self.turns), self.session.panda.context - left
        return self._counted[1]

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
                stats = stream.stats
                self._counted = (len(self.turns), stats.total_tokens) if stats else None

    def _make_room(self, question: str, wanted: int) -> None:
        """Drop the oldest turns if the context cannot hold them and `wanted` tokens more."""
        left = self.session.tokens_left(question, self.history())
        if left >= wanted:
            return
        alone = self.session.tokens_left(question)
        if alone < 1:
            hint = "ask a shorter one, or look at fewer frames (--frames 4)"
            raise UsageError(f"the question is {1 - alone} tokens too long for the model", hint)
        while self.dropped < len(self.turns) and left < max(wanted, alone // 2):
            self.dropped += 1
            left = self.session.tokens_left(question, self.history())
