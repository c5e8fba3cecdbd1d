"""The clips that the engine keeps, each with its session and the requests about it."""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pandacli.errors import PandaError
from pandacli.inference.spec import Answer, Request, ScoreRequest, Scores, ScoringStats
from pandacli.video.clip import Clip

if TYPE_CHECKING:
    from pandacli.inference.continuous_batching import Generation
    from pandacli.inference.likelihood import Scoring
    from pandacli.inference.panda import Panda
    from pandacli.inference.session import VideoSession
    from pandacli.video import Frames

_log = logging.getLogger(__name__)

Result = str | Answer | Scores | PandaError
"""A piece of an answer's text; or, as the last one, the whole answer, the scores, or an error."""

Deliver = Callable[[Result], None]  # called on the engine's thread


@dataclass(frozen=True)
class ClipKey:
    """What two requests have in common that are about the same frames, behind the same prompt."""

    clip: Clip
    version: tuple[int, int]  # of the file: bytes, and nanoseconds of its last change
    num_frames: int
    system: str | None

    @classmethod
    def of(cls, clip: Clip, num_frames: int, system: str | None) -> "ClipKey":
        """The key of a file as it is now; an OSError if it cannot be read."""
        status = clip.path.stat()
        return cls(clip, (status.st_size, status.st_mtime_ns), num_frames, system)


@dataclass(eq=False)
class Ticket:
    """A request that the engine answers."""

    request: Request | ScoreRequest
    deliver: Deliver
    cancelled: bool = False
    scoring: ScoringStats | None = None  # of scores, once they are delivered

    def cancel(self) -> None:
        """Stop the answer before its next token; nothing is delivered from then on."""
        self.cancelled = True

    def give(self, result: Result) -> None:
        if not self.cancelled:
            try:
                self.deliver(result)
            except Exception:  # costs this request, and not the clip
                self.cancelled = True
                _log.exception("a result could not be delivered")


@dataclass(eq=False)
class OpenClip(Iterator[Request]):
    """A clip with its session and the requests about it; iterates over those that can join."""

    key: ClipKey
    frames: "Frames"
    session: "VideoSession | None" = None  # opened by the first request
    waiting: deque[Ticket] = field(default_factory=deque)
    running: dict[int, Ticket] = field(default_factory=dict)  # by their numbers in the generation
    generation: "Generation | None" = None
    scoring: "Scoring | None" = None
    steps: "Iterator[Sequence[tuple[int, Result]]] | None" = None
    _taken: int = 0

    def __next__(self) -> Request:
        while self.waiting and not isinstance(self.waiting[0].request, ScoreRequest):
            ticket = self.waiting.popleft()
            request = ticket.request
            if not ticket.cancelled and isinstance(request, Request):
                self.running[self._taken] = ticket
                self._taken += 1
                return request
        raise StopIteration

    @property
    def is_idle(self) -> bool:
        return self.steps is None and not self.waiting

    def step(self, panda: "Panda") -> None:
        """Run one forward pass, and deliver what it gave."""
        if self.steps is None:
            self._begin(panda)
        assert self.steps is not None
        for number, ticket in [*self.running.items()]:
            if ticket.cancelled:
                if self.generation is not None:
                    self.generation.cancel(number)
                del self.running[number]
        is_unwanted = self.scoring is not None and not self.running
        results = None if is_unwanted else next(self.steps, None)
        if results is None:
            self.steps = self.generation = self.scoring = None
            self.running.clear()
            return
        for number, result in results:
            if (asked := self.running.get(number)) is not None:
                asked.scoring = self.scoring.stats if self.scoring else None
                asked.give(result)
                if not isinstance(result, str):
                    del self.running[number]

    def fail(self, error: PandaError) -> None:
        """End all requests with an error."""
        tickets = [*self.running.values(), *self.waiting]
        self.steps = self.generation = self.scoring = None
        self.running.clear()
        self.waiting.clear()
        for ticket in tickets:
            ticket.give(error)

    @property
    def held_bytes(self) -> int:
        """What it keeps in memory: its frames and its prefix."""
        return self.frames.pixels.nbytes + (self.session.held_bytes if self.session else 0)

    def open(self, panda: "Panda") -> "VideoSession":
        if self.session is None:
            frames = self.key.num_frames
            self.session = panda.open(self.frames, num_frames=frames, system=self.key.system)
        return self.session

    def _begin(self, panda: "Panda") -> None:
        session = self.open(panda)
        self._taken = 0
        scored: list[ScoreRequest] = []
        while self.waiting and isinstance(request := self.waiting[0].request, ScoreRequest):
            ticket = self.waiting.popleft()
            if not ticket.cancelled:
                self.running[len(scored)] = ticket
                scored.append(request)
        if scored:
            self.scoring = session.score_all(scored)
            self.steps = ([result] for result in self.scoring)
        else:
            self.generation = session.generate(self, joining=True)
            self.steps = self.generation.passes()
