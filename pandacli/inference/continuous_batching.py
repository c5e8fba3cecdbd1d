"""Many questions about one clip, answered together behind the prefix that they share.

A question joins as soon as there is room, in the same pass in which others get their next token,
and leaves when its answer is whole. Sequence many at once rounds sums in another order than reading
one alone. So where exact answers are wanted, a token that was chosen by a hair counts for nothing:
its question is put aside, and asked alone when the others are through. A question without others
is asked alone from the start.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING

from torch import Tensor

from pandacli.errors import DeviceError, PandaError
from pandacli.inference.answer import Answer
from pandacli.inference.planning.devices import memory_errors

if TYPE_CHECKING:
    from pandacli.inference.backends import SequenceBatch

MOST_AT_ONCE = 64
"""How many questions are answered at once where nothing else is said: more gain next to nothing."""

_FIRST_TOKENS = 64  # of an answer that there must be room for before its question joins
_READ_AT_ONCE = 4096
"""Tokens of questions that join together: a mask of each beside each is made for them."""

Choose = Callable[[Tensor], int]
"""From logits (vocabulary,) to a token."""

HAIR, HAIR_INT8 = 1e-4, 1e-3
"""A lead of the likeliest token over the next that may be rounding, relative to the largest logit:
in float32, and on torch's int8 kernels. Measured differences between together and alone are up to
2e-6 and 2e-4. Other forms differ by 1e-2 and more, which too many tokens lead by less than."""


@dataclass(frozen=True)
class Ask:
    """A question to be answered with others, and the most tokens of its answer."""

    question: str
    max_tokens: int = 1024


@dataclass
class Asking:
    """A question under way.

    Attributes:
        number: Its place among all questions, from 0.
        question: Its text.
        ids: Its tokens.
        limit: The most tokens of answer.
        drawing: Makes what draws the tokens of an answer, from its first one on; None where the
            likeliest is taken.
        choose: What draws them, once it has joined.
        answer: The tokens of the answer so far.
        started: When it joined.
        first_token_seconds: How long its first token took from then on.
    """

    number: int
    question: str
    ids: list[int]
    limit: int
    drawing: Callable[[], Choose] | None
    choose: Choose | None = None
    answer: list[int] = field(default_factory=list)
    started: float = 0.0
    first_token_seconds: float = 0.0

    @property
    def unread(self) -> list[int]:
        """What the model has to read before it can give the next token."""
        return self.answer[-1:] or self.ids

    @property
    def positions(self) -> int:
        """How many positions it has in the KV cache, or will have after the next pass."""
        return len(self.ids) + len(self.answer)

    def begin(self) -> None:
        """Join, whether for the first time or anew, with nothing of an answer yet."""
        self.choose = self.drawing() if self.drawing else None
        self.answer.clear()
        self.started = perf_counter()
        self.first_token_seconds = 0.0


@dataclass
class Seconds:
    """Where the time of answering went.

    Attributes:
        prefix: Encoding the frames, and reading them and the system prompt.
        prefill: Passes in which a question was read, whatever else was in them.
        decode: All other passes.
        alone: Questions asked again, alone.
    """

    prefix: float = 0.0
    prefill: float = 0.0
    decode: float = 0.0
    alone: float = 0.0


class Together(Iterator[tuple[int, Answer | PandaError]]):
    """Answers as they become whole, each with the place of its question.

    Args:
        asked: The questions, drawn one by one as there is room; or what is wrong with one.
        branch: From a number of positions to the branches that the questions are read in.
        finish: Makes the answer of a question whose tokens are complete.
        alone: Asks a question again, by itself.
        stop: The tokens that end an answer.
        room: How many positions the questions and answers may take at once, if they get so many.
        at_once: The most questions at once; None for as many as there is room for.
        hair: A lead below which a token is not trusted, so that answers are those that the
            questions get alone; 0 to trust all.
        memory_hint: What to do where the memory turns out to be too little for one question.

    Attributes:
        seconds: Where the time went, so far; the prefix is not in it.
    """

    def __init__(
        self,
        asked: Iterable[Asking | tuple[int, PandaError]],
        *,
        branch: "Callable[[int], SequenceBatch]",
        finish: Callable[[Asking, bool], Answer],
        alone: Callable[[Asking], Answer],
        stop: frozenset[int],
        room: int,
        at_once: int | None,
        hair: float,
        memory_hint: str,
    ) -> None:
        self._asked = iter(asked)
        self._branch, self._finish, self._alone = branch, finish, alone
        self._stop, self._room, self._hair = stop, room, hair
        self._at_once = at_once or MOST_AT_ONCE
        self._memory_hint = memory_hint
        self._waiting: deque[Asking] = deque()
        self._active: dict[int, Asking] = {}
        self._refused: deque[tuple[int, PandaError]] = deque()
        self._by_a_hair: deque[Asking] = deque()
        self.seconds = Seconds()
        self._answers = self._run()

    def __next__(self) -> tuple[int, Answer | PandaError]:
        return next(self._answers)

    def close(self) -> None:
        """Leave the rest unanswered; the clip is ready for the next question."""
        self._answers.close()

    def _run(self) -> Generator[tuple[int, Answer | PandaError], None, None]:
        while self._draw():
            if self._at_once == 1 or not self._draw(2):
                number, answer = self._answer_alone(self._waiting.popleft())
                if isinstance(answer, Answer):
                    self.seconds.prefill += answer.stats.prefill_seconds
                    self.seconds.decode += answer.stats.decode_seconds
                yield number, answer
                yield from self._take(self._refused)
                continue
            try:
                hint = memory_errors(self._memory_hint)
                with hint, closing(self._branch(self._room)) as branches:
                    yield from self._until_done(branches)
            except DeviceError:
                many = self._start_over()
                if many == 0 and self._room > _needed(self._waiting[0]):
                    self._room //= 2  # it was too much to set aside
                else:
                    self._at_once = max(many // 2, 1)  # one is asked alone, and may fail alone
            yield from self._take(self._refused)
        yield from self._take(self._refused)
        while self._by_a_hair:
            started = perf_counter()
            answered = self._answer_alone(self._by_a_hair.popleft())
            self.seconds.alone += perf_counter() - started
            yield answered

    def _answer_alone(self, asking: Asking) -> tuple[int, Answer | PandaError]:
        try:
            return asking.number, self._alone(asking)
        except DeviceError as error:
            return asking.number, error

    def _until_done(self, branches: "SequenceBatch") -> Iterator[tuple[int, Answer]]:
        room = min(self._room, branches.room)
        at_once = min(self._at_once, branches.most_texts or self._at_once)
        while self._join(room, at_once) or self._active:
            self._make_room(branches, room)
            started = perf_counter()
            newcomers = any(not asking.answer for asking in self._active.values())
            logits = branches.append({n: asking.unread for n, asking in self._active.items()})
            tokens = self._choose(logits)
            seconds = perf_counter() - started
            if newcomers:
                self.seconds.prefill += seconds
            else:
                self.seconds.decode += seconds
            for asking, token in zip(list(self._active.values()), tokens, strict=True):
                if token is None:
                    self._by_a_hair.append(asking)
                    self._leave(asking, branches)
                    continue
                stopped = token in self._stop
                asking.first_token_seconds = asking.first_token_seconds or seconds
                asking.answer.append(token)
                if stopped or len(asking.answer) == asking.limit:
                    self._leave(asking, branches)
                    yield asking.number, self._finish(asking, stopped)

    def _draw(self, wanted: int = 1) -> bool:
        """Fill the queue up to `wanted` questions; False where there are fewer left.

        Those that cannot be asked are put aside.
        """
        while len(self._waiting) < wanted:
            match next(self._asked, None):
                case None:
                    return False
                case Asking() as asking:
                    self._waiting.append(asking)
                case refused:
                    self._refused.append(refused)
        return True

    def _join(self, room: int, at_once: int) -> bool:
        """Let questions in while there is room; the first always finds some."""
        used = sum(asking.positions for asking in self._active.values())
        read = 0
        while len(self._active) < at_once and self._draw():
            asking = self._waiting[0]
            used += _needed(asking)
            too_long = read > 0 and read + len(asking.ids) > _READ_AT_ONCE
            if too_long or (self._active and used > room):
                break
            self._waiting.popleft()
            asking.begin()
            self._active[asking.number] = asking
            read += len(asking.ids)
        return read > 0

    def _make_room(self, branches: "SequenceBatch", room: int) -> None:
        """Have the youngest begin anew later, where all together have become too long."""
        used = sum(asking.positions for asking in self._active.values())
        while used > room and len(self._active) > 1:
            youngest = list(self._active.values())[-1]
            used -= youngest.positions
            began = bool(youngest.answer)
            self._active.pop(youngest.number)
            if began:
                branches.remove(youngest.number)
            self._waiting.appendleft(youngest)

    def _start_over(self) -> int:
        """Have all active questions begin anew later; returns how many there were."""
        begun = list(self._active.values())
        self._active.clear()
        self._waiting.extendleft(reversed(begun))
        return len(begun)

    def _leave(self, asking: Asking, branches: "SequenceBatch") -> None:
        del self._active[asking.number]
        branches.remove(asking.number)

    def _choose(self, logits: Tensor) -> list[int | None]:
        """The next token of each active question, or None where it was chosen by a hair."""
        drawn = [asking.choose for asking in self._active.values()]
        if any(drawn):
            return [
                choose(row) if choose else int(row.argmax())
                for choose, row in zip(drawn, logits, strict=True)
            ]
        if not self._hair:
            return list(logits.argmax(-1).tolist())
        leaders = logits.topk(2)
        lead = leaders.values[:, 0] - leaders.values[:, 1]
        clear = lead > self._hair * logits.abs().amax(-1)
        pairs = zip(leaders.indices[:, 0].tolist(), clear.tolist(), strict=True)
        return [token if is_clear else None for token, is_clear in pairs]

    @staticmethod
    def _take(
        refused: deque[tuple[int, PandaError]],
    ) -> Iterator[tuple[int, PandaError]]:
        while refused:
            yield refused.popleft()


def _needed(asking: Asking) -> int:
    """Positions that must be free before a question joins."""
    return len(asking.ids) + min(asking.limit, _FIRST_TOKENS)
