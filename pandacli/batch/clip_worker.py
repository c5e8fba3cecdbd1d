"""The clip worker: answers the questions about one clip together, a result line for each record."""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from os import fspath
from threading import Event
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pandacli.batch.readers.choices import Choices, with_letters
from pandacli.batch.records import Question
from pandacli.batch.results import Line, Result, error_line, error_lines, result_line
from pandacli.errors import PandaError
from pandacli.inference import GenerationOptions, Request
from pandacli.inference.spec import RunSpec, ScoreRequest, Scores
from pandacli.timeline.segments import SegmentOptions

if TYPE_CHECKING:
    from pandacli.inference import Panda
    from pandacli.inference.session import VideoSession
    from pandacli.video import Frames

_Pixels = NDArray[np.uint8]  # (T, H, W, 3)

VIEWS: dict[str, Callable[[_Pixels], _Pixels]] = {
    "blind": lambda pixels: np.full_like(pixels, 128),  # the middle of the range, on every clip
    "mirror": lambda pixels: pixels[:, :, ::-1],  # left to right
}
"""What a model can be shown in place of the frames of a clip; size, number and mask stay."""


def viewed(frames: "Frames", view: str | None) -> "Frames":
    """What the model is shown in place of frames."""
    return replace(frames, pixels=VIEWS[view](frames.pixels)) if view else frames


_Key = tuple[str, int, int]  # question, token limit, and a number unless repeats share an answer

_CACHED = 1024  # answers kept for repeated questions on the clip
_SCORED = 64  # questions with choices that are scored before their lines are written
_MAX_REPEATS = 1024  # records held while the answer of the same question is computed


@dataclass(frozen=True)
class Settings:
    """How the questions of a run are answered; a record may override some of it."""

    spec: RunSpec
    options: GenerationOptions = field(default_factory=GenerationOptions)
    frames: int = 8
    start: float | None = None  # seconds; None for the beginning of the clip
    end: float | None = None  # seconds; None for the end of the clip
    system: str | None = None  # the system prompt; None for the one of the training
    batch_size: int | None = None  # questions decoded at a time; None for what fits in memory
    choose: str = "likelihood"  # how choices are answered; or "generate" and look for the letter
    search: SegmentOptions = field(default_factory=SegmentOptions)  # for segments
    view: str | None = None  # one of `VIEWS`; None for the frames as they are

    def digest_fields(self) -> Line:
        """What an answer depends on besides its record; hashed, so names and values are fixed."""
        spec, options = self.spec, self.options
        fields: Line = {"model": fspath(spec.model), "quant": spec.quant, "engine": spec.backend}
        fields |= {name: getattr(self, name) for name in ("frames", "start", "end", "system")}
        fields |= {name: getattr(options, name) for name in ("max_tokens", "temperature", "seed")}
        given = {name: getattr(options, name) for name in ("stop", "logprobs")}
        return fields | {name: value for name, value in given.items() if value} | self.marks

    @property
    def marks(self) -> Line:
        """What each result says of the view: {"blind": True}; nothing without one."""
        return {self.view: True} if self.view else {}


class ClipWorker:
    """Answers the questions on a clip, iterated more than once; starts none once `stopped`."""

    def __init__(
        self, panda: "Panda", settings: Settings, group: Iterable[Question], stopped: Event
    ) -> None:
        self._panda, self._settings, self._group, self._stopped = panda, settings, group, stopped
        self._keys: dict[int, _Key] = {}  # of each request by its number
        # when the question began, and all records that wait for the answer
        self._in_flight: dict[_Key, tuple[float, list[Question]]] = {}
        self._cache: dict[_Key, Line] = {}
        self._ready: deque[Result] = deque()  # repeats whose answer is in the cache
        self._more = False
        self._scoring = 0  # questions with choices
        self.seconds: dict[str, float] = defaultdict(float)  # by stage

    def in_flight(self) -> int:
        """How many questions are being answered, or their lines being written."""
        return len(self._in_flight) + self._scoring

    def results(self, frames: "Frames") -> Iterator[Result]:
        """Answer the questions; yield each record with its line as answers complete."""
        frames = viewed(frames, self._settings.view)
        try:
            session = self._panda.open(frames, num_frames=self._settings.frames)
        except PandaError as error:
            yield from error_lines(self._group, error)
            return
        for system in dict.fromkeys(map(self._system, self._group)):
            if self._stopped.is_set():
                return
            questions = (
                q for q in self._group if self._system(q) == system and not self._is_scored(q)
            )
            try:
                session = session.with_system(system)  # the frames stay encoded
            except PandaError as error:
                yield from error_lines(questions, error)
                continue
            yield from self._score(session, (q for q in self._group if self._system(q) == system))
            self._more = True
            while self._more:  # more than once where many are repeats
                yield from self._answer(session, questions)
            self._cache.clear()

    def _system(self, question: Question) -> str | None:
        own = question.record.system
        return self._settings.system if own is None else own

    def _answer(self, session: "VideoSession", questions: Iterator[Question]) -> Iterator[Result]:
        self._more = False
        started = perf_counter()
        try:
            session.prepare()
        except PandaError as error:
            yield from error_lines(questions, error)
            return
        self.seconds["prefix"] += perf_counter() - started
        requests, batch_size = self._requests(questions), self._settings.batch_size
        generation = session.generate(requests, batch_size=batch_size, stream=False)
        for number, answer in generation.results():
            key = self._keys.pop(number)
            began, waiting = self._in_flight[key]
            if isinstance(answer, PandaError):
                yield from error_lines(waiting, answer)
            else:
                result = {
                    **choice_fields(answer.text, waiting[0].record.choices),
                    "model": self._panda.name,
                    "finish_reason": answer.finish_reason,
                    "tokens": answer.stats.answer_tokens,
                    "seconds": round(perf_counter() - began, 3),
                    **self._settings.marks,
                }
                if answer.logprobs:
                    result["logprobs"] = answer.logprobs_record
                self._cache[key] = result
                if len(self._cache) > _CACHED:
                    del self._cache[next(iter(self._cache))]
                yield from ((question, result_line(question, result)) for question in waiting)
            del self._in_flight[key]  # only now that its lines are written
            yield from self._take_ready()
        yield from self._take_ready()
        for stage in ("prefill", "decode", "rerun"):
            self.seconds[stage] += getattr(generation.seconds, stage)

    def _is_scored(self, question: Question) -> bool:
        return bool(question.record.choices) and self._settings.choose == "likelihood"

    def _score(self, session: "VideoSession", questions: Iterable[Question]) -> Iterator[Result]:
        """Answer questions with choices by the likeliest, many at a time."""
        scored = filter(self._is_scored, questions)
        while group := list(islice(scored, 0 if self._stopped.is_set() else _SCORED)):
            began = perf_counter()
            self._scoring = len(group)
            requests = [ScoreRequest(q.record.question, q.record.choices) for q in group]
            try:
                found = dict(session.score_all(requests))
            except PandaError as error:
                found = dict.fromkeys(range(len(group)), error)
            took = perf_counter() - began
            self.seconds["score"] += took
            for number, question in enumerate(group):
                scores = found[number]
                if isinstance(scores, PandaError):
                    yield question, error_line(question, scores)
                else:
                    result = {
                        **score_fields(scores),
                        "model": self._panda.name,
                        "finish_reason": "stop",
                        "tokens": 0,
                        "seconds": round(took / len(group), 3),
                        **self._settings.marks,
                    }
                    yield question, result_line(question, result)
            self._scoring = 0

    def _requests(self, questions: Iterable[Question]) -> Iterator[Request]:
        """The requests to the session, without repeats where those get the same answer."""
        options = self._settings.options
        repeatable = options.temperature == 0 or options.seed is not None
        number = repeats = 0
        for question in questions:
            if self._stopped.is_set():
                return
            record = question.record
            text = with_letters(record.question, record.choices)
            limit = record.max_tokens or options.max_tokens
            key = (text, limit, 0 if repeatable else number)
            if key in self._in_flight:
                self._in_flight[key][1].append(question)
            elif key in self._cache:
                self._ready.append((question, result_line(question, self._cache[key])))
            else:
                self._keys[number] = key
                self._in_flight[key] = perf_counter(), [question]
                number += 1
                yield Request(text, options=replace(options, max_tokens=limit))
                continue
            repeats += 1
            if repeats == _MAX_REPEATS:  # a clip may have millions; they are in memory
                self._more = True
                return

    def _take_ready(self) -> Iterator[Result]:
        while self._ready:
            yield self._ready.popleft()


def choice_fields(reply: str, choices: tuple[str, ...]) -> Line:
    """The answer to a question that listed these choices, which is one of them if it is named."""
    if not choices:
        return {"answer": reply}
    found = Choices(choices).find(reply)
    return {"answer": reply if found is None else choices[found], "reply": reply}


def score_fields(scores: Scores) -> Line:
    """The likeliest choice, and what all of them scored."""
    choices = [asdict(choice) for choice in scores.choices]
    return {"answer": scores.best.text, "choices": choices, "coverage": scores.coverage}
