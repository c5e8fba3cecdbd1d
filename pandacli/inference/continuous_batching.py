"""Continuous batching: many requests about one clip, behind their shared prefix.

A request joins the batch as soon as there is room, in the same pass in which others decode, and
leaves it with its last token. A batch sums in another order than a single sequence, which may flip
near-ties: where logits are otherwise exact, a request with a near-tie is run again alone.
"""

import sys
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from copy import copy
from time import perf_counter
from typing import TYPE_CHECKING

from torch import Tensor

from pandacli.errors import DeviceError, PandaError
from pandacli.inference.generation import RequestState
from pandacli.inference.planning.devices import memory_errors
from pandacli.inference.spec import Answer, ClosableIterator, Seconds, Stats

if TYPE_CHECKING:
    from pandacli.inference.backends import Rows, SequenceBatch, SharedPrefix
    from pandacli.inference.panda import Panda
    from pandacli.inference.session import VideoSession

MAX_BATCH_SIZE = 64  # the default: larger batches are hardly faster

_RESERVED = 64  # tokens of its answer that must have room before a request joins
_MAX_PREFILL = 4096  # tokens prefilled in one pass: the mask grows with their square

Event = tuple[int, str | Answer | PandaError]
"""The index of a request, and a piece of its answer's text, the whole answer, or an error."""

Failure = tuple[int, PandaError]


def _near_tie(panda: "Panda") -> float:
    """The lead of the best token, relative to the largest logit, that rounding may explain; or 0.

    Batched and single logits differ by up to 2e-6 in float32 and 2e-4 on torch's int8 kernels.
    Elsewhere it is 1e-2 and more: too many tokens lead by less to decode them all again.
    """
    if panda.engine != "torch" or panda.dtype != "float32":
        return 0
    return 1e-4 if panda.quant == "none" else 1e-3


class Generation(ClosableIterator[Event]):
    """Events of requests as they are answered; the first `next` starts the work.

    The pieces of a request join to the text of its `Answer`; that, or an error, is its last event.
    A request alone is decoded on the session's own sequence, where it shares a KV cache with
    earlier turns; several are decoded in a `SequenceBatch`. An invalid request is its error.

    With `joining`, `requests` is asked again in each pass after it has ended, and a request that
    comes later joins those that run.
    """

    def __init__(
        self,
        session: "VideoSession",
        requests: Iterable[RequestState | Failure],
        *,
        batch_size: int | None,  # None if only memory limits it
        stream: bool,  # whether pieces of text are wanted
        joining: bool = False,
    ) -> None:
        self._passes = self._run()
        super().__init__(self._events())
        self.seconds = Seconds()
        self._joining = joining
        self._cancelled: set[int] = set()
        self._session, self._requests, self._stream = session, iter(requests), stream
        self._hint = session.panda.memory_hint
        self._near_tie = _near_tie(session.panda)
        self._batch_size = batch_size or MAX_BATCH_SIZE
        self._room = 0  # positions of a batch
        self._waiting: deque[RequestState] = deque()
        self._running: dict[int, RequestState] = {}
        self._failed: deque[Failure] = deque()
        self._near_ties: deque[RequestState] = deque()

    def results(self) -> Iterator[tuple[int, Answer | PandaError]]:
        """The events without the pieces: one for each request."""
        return ((index, event) for index, event in self if not isinstance(event, str))

    def passes(self) -> Generator[list[Event], None, None]:
        """The events of each forward pass, instead of one by one."""
        return self._passes

    def cancel(self, index: int) -> None:
        """Drop a request before the next pass; it has no further event."""
        self._cancelled.add(index)

    def close(self) -> None:
        super().close()
        self._passes.close()

    def _events(self) -> Generator[Event, None, None]:
        for events in self._passes:
            yield from events

    def _run(self) -> Generator[list[Event], None, None]:
        if not self._fetch():
            yield self._failures()
            return
        self._session.turn = turn = self._session.turn + 1  # takes over the session's sequence
        first, started = self._waiting[0], perf_counter()
        with memory_errors(self._hint):
            prefix, first.prefilled = self._session.shared_prefix()
        first.prefill_seconds = perf_counter() - started
        while self._fetch():
            if self._batch_size == 1 or not self._fetch(2):
                state = self._waiting.popleft()
                yield from self._run_alone(state, prefix, turn, self.seconds)
            else:
                self._room = self._room or self._session.batch_positions()
                try:
                    with memory_errors(self._hint), closing(prefix.batch(self._room)) as batch:
                        yield from self._run_batch(batch)
                except DeviceError:
                    self._reduce()
            yield self._failures()
            if self._joining:
                yield from self._rerun(prefix, turn)
        yield self._failures()
        yield from self._rerun(prefix, turn)

    def _rerun(self, prefix: "SharedPrefix", turn: int) -> Iterator[list[Event]]:
        while self._near_ties:
            state, seconds = self._near_ties.popleft(), Seconds()
            yield from self._run_alone(state, prefix, turn, seconds, to_the_end=True)
            self.seconds.rerun += seconds.prefill + seconds.decode

    def _run_alone(
        self,
        state: RequestState,
        prefix: "SharedPrefix",
        turn: int,
        seconds: Seconds,
        *,
        to_the_end: bool = False,  # also where another request comes
    ) -> Iterator[list[Event]]:
        if self._near_tie and not state.options.temperature:
            state.restart()  # its tokens are the same again, and now exact
        try:
            with memory_errors(self._hint):
                started, before = perf_counter(), prefix.prefilled
                logits = prefix.append(state.pending, state.history)
                token = state.sample(logits)  # a card has computed the logits only then
                took = perf_counter() - started
                state.prefilled += prefix.prefilled - before
                seconds.prefill += took
                state.add_prefill(took)
                while True:
                    piece = state.add(token, logits, stream=self._stream)
                    yield [(state.index, piece)] if piece and self._stream else []
                    if state.finish_reason:
                        break
                    if state.index in self._cancelled:
                        return
                    if self._joining and not to_the_end and self._fetch():
                        self._waiting.appendleft(state)  # both run in a batch
                        return
                    if self._session.turn != turn:
                        raise RuntimeError("a newer question on this clip was asked meanwhile")
                    started = perf_counter()
                    logits = prefix.decode(token)
                    token = state.sample(logits)
                    took = perf_counter() - started
                    state.decode_seconds += took
                    seconds.decode += took
        except DeviceError as error:
            yield [(state.index, error)]
            return
        finally:
            if state.tokens:
                state.stats = self._stats(state)
        yield [(state.index, state.answer())]

    def _run_batch(self, batch: "SequenceBatch") -> Iterator[list[Event]]:
        room = min(self._room, batch.room)
        size = min(self._batch_size, batch.max_texts or self._batch_size)
        while True:
            self._drop_cancelled(batch)
            self._join(room, size)
            if self._failed:
                yield self._failures()
            if not self._running:
                return
            self._preempt(batch, room)
            states = list(self._running.values())
            started = perf_counter()
            with self._step(states):
                logits = batch.append({state.index: state.pending for state in states})
            tokens = self._next_tokens(logits, states)
            took = perf_counter() - started
            events: list[Event] = []
            if all(state.in_batch for state in states):
                self.seconds.decode += took
            else:
                self.seconds.prefill += took
            for state, token, row in zip(states, tokens, logits, strict=True):
                state.count_pass(took)
                if token is None:
                    self._near_ties.append(state)
                    self._remove(state, batch)
                    continue
                piece = state.add(token, row, stream=self._stream)
                if state.finish_reason:
                    self._remove(state, batch)
                    state.stats = self._stats(state)
                if piece and self._stream:
                    events.append((state.index, piece))
                if state.finish_reason:
                    events.append((state.index, state.answer()))
            yield events

    def _stats(self, state: RequestState) -> Stats:
        return self._session.stats(state)

    def _step(self, states: Sequence[RequestState]) -> AbstractContextManager[object]:
        """Show a pass that reads questions; those that only decode are short."""
        tokens = sum(len(state.pending) for state in states if not state.in_batch)
        step = self._session.panda.step
        return step("reading the questions", tokens, "tokens") if tokens else nullcontext()

    def _fetch(self, wanted: int = 1) -> bool:
        """Fill the queue up to `wanted` requests; whether there are as many."""
        while len(self._waiting) < wanted:
            match next(self._requests, None):
                case None:
                    return False
                case RequestState() as state:
                    if state.index not in self._cancelled:
                        self._waiting.append(state)
                case failure:
                    self._failed.append(failure)
        return True

    def _failures(self) -> list[Event]:
        failed: list[Event] = [*self._failed]
        self._failed.clear()
        return failed

    def _drop_cancelled(self, batch: "SequenceBatch") -> None:
        for index in self._cancelled & self._running.keys():
            self._remove(self._running[index], batch)
        for queue in (self._waiting, self._near_ties):
            kept = [state for state in queue if state.index not in self._cancelled]
            queue.clear()
            queue.extend(kept)

    def _join(self, room: int, size: int) -> None:
        """Move requests from the queue into the batch while there is room; at least one."""
        if self._joining and self._near_ties:
            return  # they wait for this batch to end
        used = sum(state.positions for state in self._running.values())
        prefill = 0
        while len(self._running) < size and self._fetch():
            state = self._waiting[0]
            used += state.positions + min(state.limit - len(state.tokens), _RESERVED)
            too_long = prefill > 0 and prefill + state.positions > _MAX_PREFILL
            if too_long or (self._running and used > room):
                return
            self._running[state.index] = self._waiting.popleft()
            prefill += state.positions

    def _preempt(self, batch: "SequenceBatch", room: int) -> None:
        """Move the newest requests back into the queue while the batch exceeds its room."""
        used = sum(state.positions for state in self._running.values())
        while used > room and len(self._running) > 1:
            newest = list(self._running.values())[-1]
            used -= newest.positions
            self._remove(newest, batch)
            self._waiting.appendleft(newest)

    def _reduce(self) -> None:
        """After running out of memory: requeue the running requests, and allow fewer at once."""
        running = list(self._running.values())
        for state in running:
            state.in_batch = False
        self._running.clear()
        self._waiting.extendleft(reversed(running))
        first = self._waiting[0]
        if not running and self._room > first.positions + min(first.limit, _RESERVED):
            self._room //= 2  # the batch could not be allocated
        else:
            self._batch_size = max(len(running) // 2, 1)  # 1: each runs, and may fail, alone

    def _remove(self, state: RequestState, batch: "SequenceBatch") -> None:
        del self._running[state.index]
        if state.in_batch:
            batch.remove(state.index)
            state.in_batch = False

    def _next_tokens(self, logits: Tensor, states: list[RequestState]) -> list[int | None]:
        """The next token of each request, from logits (B, vocabulary); None for a near-tie."""
        if all(state.options.temperature for state in states):
            return [state.sample(row) for state, row in zip(states, logits, strict=True)]
        greedy: list[int] = logits.argmax(-1).tolist()
        ties = [False] * len(states)
        if self._near_tie:
            first, second = logits.topk(2).values.unbind(-1)
            ties = (first - second <= self._near_tie * logits.abs().amax(-1)).tolist()
        return [
            state.sample(row) if state.options.temperature else None if tie else token
            for state, row, token, tie in zip(states, logits, greedy, ties, strict=True)
        ]


class RowGeneration(Generation):
    """Events of one request about each of several clips, the rows of one batch.

    All prompts are of one length. Raises a `DeviceError` if memory runs out.
    """

    def __init__(
        self, sessions: "Sequence[VideoSession]", rows: "Rows", states: Sequence[RequestState]
    ) -> None:
        super().__init__(sessions[0], (), batch_size=len(sessions), stream=False)
        self._sessions, self._rows = sessions, rows
        self._running = {state.index: state for state in states}  # no other may join them
        self._room = sys.maxsize  # rows have their memory already, but for answers

    def _run(self) -> Generator[list[Event], None, None]:
        with memory_errors(self._hint), closing(self._rows.batch()) as batch:
            yield from self._run_batch(batch)
        for state in self._near_ties:
            # the prefix of a copy is released with it
            session = copy(self._sessions[state.index])
            alone = Generation(session, [state], batch_size=1, stream=False)
            yield from alone.passes()
            self.seconds.rerun += alone.seconds.prefill + alone.seconds.decode

    def _stats(self, state: RequestState) -> Stats:
        return self._sessions[state.index].stats(state)
