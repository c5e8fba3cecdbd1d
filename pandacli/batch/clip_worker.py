"""The clip worker: answers the questions about one clip together, a result line for each record."""

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from threading import Event
from time import perf_counter
from typing import TYPE_CHECKING

from pandacli.batch.records import BadLine, Question, Record, RecordError, digest_text
from pandacli.batch.results import BAD_RECORD, Line, answer_line, error_line
from pandacli.errors import ClipError, DeviceError, PandaError, UsageError
from pandacli.inference import Answer, GenerationOptions, Request

if TYPE_CHECKING:
    from pandacli.inference import Panda, VideoSession
    from pandacli.video import Frames

Result = tuple[Question | BadLine, Line]
"""A record with its line."""

_Key = tuple[str, int, int]
"""Question, token limit, and a number that is unique where repeats get different answers."""

_CACHED = 1024  # answers kept for repeated questions on the clip
_MAX_REPEATS = 1024  # records held while the answer of the same question is computed

_ERROR_KINDS = (
    (RecordError, BAD_RECORD),
    (ClipError, "clip"),
    (UsageError, "question"),
    (DeviceError, "memory"),
)


@dataclass(frozen=True)
class Settings:
    """How the questions of a run are answered; a record may override some of it.

    Attributes:
        model: The model, as `Panda.load` takes it.
        quant: The quantisation, as `Panda.load` takes it.
        engine: The backend, as `Panda.load` takes it.
        device: The device, as `Panda.load` takes it.
        frames: How many frames to sample from a clip.
        start: Start of the clip in seconds; None for the beginning.
        end: End of the clip in seconds; None for the end.
        system: The system prompt; None for the one the model was trained with.
        max_tokens: The most tokens of an answer.
        temperature: 0 decodes greedily.
        seed: Makes sampling repeatable.
        batch_size: How many questions to decode at a time; None for what fits in memory.
    """

    model: str
    quant: str = "auto"
    engine: str = "auto"
    device: str = "auto"
    frames: int = 8
    start: float | None = None
    end: float | None = None
    system: str | None = None
    max_tokens: int = 1024
    temperature: float = 0.0
    seed: int | None = None
    batch_size: int | None = None

    def digest_fields(self) -> Line:
        """The settings that answers depend on: if one changes, questions are asked again."""
        names = ("model", "quant", "engine", "frames", "start", "end", "system", "max_tokens")
        return {name: getattr(self, name) for name in (*names, "temperature", "seed")}


def failure(question: Question | BadLine, error: PandaError) -> Line:
    """The line of a record without an answer."""
    message = f"{error.message}; {error.hint}" if error.hint else error.message
    kind = next((kind for cls, kind in _ERROR_KINDS if isinstance(error, cls)), "other")
    digest = digest_text(question.digest)
    if isinstance(question, BadLine):
        return error_line(question.line, question.error.fields, kind, message, digest)
    record = question.record
    return error_line(record.line, record.fields, kind, message, digest, record)


def failures(questions: Iterable[Question | BadLine], error: PandaError) -> Iterator[Result]:
    """The lines of records that failed for one reason; an invalid line keeps its own reason."""
    for question in questions:
        own = question.error if isinstance(question, BadLine) else error
        yield question, failure(question, own)


@dataclass
class _InFlight:
    """A question being answered, and the records that wait for its answer."""

    questions: list[Question]
    started: float = field(default_factory=perf_counter)


class ClipWorker:
    """Answers a batch's questions about one clip.

    Args:
        panda: The model.
        settings: How the questions are answered.
        group: The clip's open questions; iterated more than once.
        stopped: Once set, no further question is started.

    Attributes:
        seconds: Time spent in each stage, by name.
    """

    def __init__(
        self,
        panda: "Panda",
        settings: Settings,
        group: Iterable[Question],
        stopped: Event | None = None,
    ) -> None:
        self._panda, self._settings, self._group = panda, settings, group
        self._stopped = stopped or Event()
        self._keys: dict[int, _Key] = {}
        self._in_flight: dict[_Key, _InFlight] = {}
        self._cache: OrderedDict[_Key, Line] = OrderedDict()
        self._ready: deque[Result] = deque()
        self._repeats = 0
        self._more = False
        self.seconds: dict[str, float] = {}

    @property
    def in_flight(self) -> int:
        """How many questions are being answered, or their lines being written."""
        return len(self._in_flight)

    def results(self, frames: "Frames") -> Iterator[Result]:
        """Answer the questions; yield each record with its line as answers complete."""
        try:
            session = self._panda.open(frames, num_frames=self._settings.frames)
        except PandaError as error:
            yield from failures(self._group, error)
            return
        for system in self._system_prompts():
            try:
                session = session.with_system(system)  # the frames stay encoded
            except PandaError as error:
                yield from failures(self._with_system(system), error)
                continue
            self._more = True
            questions = self._with_system(system)
            while self._more:
                yield from self._answer(session, questions)
            self._cache.clear()

    def _system_prompts(self) -> Iterator[str | None]:
        """The distinct system prompts of the questions."""
        seen: set[str | None] = set()
        for question in self._group:
            if self._stopped.is_set():
                return
            if (system := self._system(question.record)) not in seen:
                seen.add(system)
                yield system

    def _with_system(self, system: str | None) -> Iterator[Question]:
        for question in self._group:
            if self._system(question.record) == system:
                yield question

    def _system(self, record: Record) -> str | None:
        return self._settings.system if record.system is None else record.system

    def _answer(self, session: "VideoSession", questions: Iterator[Question]) -> Iterator[Result]:
        """Answer the next questions: all of them, unless too many are repeats."""
        self._more, self._repeats = False, 0
        started = perf_counter()
        try:
            session.prepare()
        except PandaError as error:
            yield from failures(questions, error)
            return
        self._spend("prefix", perf_counter() - started)
        generation = session.generate(
            self._requests(questions), batch_size=self._settings.batch_size, stream=False
        )
        for number, answer in generation.results():
            key = self._keys.pop(number)
            yield from self._results_of(key, self._in_flight[key], answer)
            del self._in_flight[key]  # only now that its lines are written
            yield from self._take_ready()
        yield from self._take_ready()
        for stage in ("prefill", "decode", "rerun"):
            self._spend(stage, getattr(generation.seconds, stage))

    def _requests(self, questions: Iterable[Question]) -> Iterator[Request]:
        """The requests to the session, without repeats where those get the same answer."""
        repeatable = self._settings.temperature == 0 or self._settings.seed is not None
        number = 0
        for question in questions:
            if self._stopped.is_set():
                return
            record = question.record
            limit = record.max_tokens or self._settings.max_tokens
            key = (record.question, limit, 0 if repeatable else number)
            if not self._is_repeat(key, question):
                self._keys[number] = key
                self._in_flight[key] = _InFlight([question])
                number += 1
                options = GenerationOptions(limit, self._settings.temperature, self._settings.seed)
                yield Request(record.question, options=options)
            elif self._repeats == _MAX_REPEATS:  # a clip may have millions; they are in memory
                self._more = True
                return

    def _is_repeat(self, key: _Key, question: Question) -> bool:
        """Give a repeated question the answer of the first one, now or when it completes."""
        if key in self._in_flight:
            self._in_flight[key].questions.append(question)
        elif key in self._cache:
            self._ready.append((question, _line(question, self._cache[key])))
        else:
            return False
        self._repeats += 1
        return True

    def _results_of(
        self, key: _Key, answered: _InFlight, answer: Answer | PandaError
    ) -> Iterator[Result]:
        if isinstance(answer, PandaError):
            yield from failures(answered.questions, answer)
            return
        fields = {
            "answer": answer.text,
            "model": self._panda.name,
            "finish_reason": answer.finish_reason,
            "tokens": answer.stats.answer_tokens,
            "seconds": perf_counter() - answered.started,
        }
        self._cache[key] = fields
        if len(self._cache) > _CACHED:
            self._cache.popitem(last=False)
        yield from ((question, _line(question, fields)) for question in answered.questions)

    def _take_ready(self) -> Iterator[Result]:
        while self._ready:
            yield self._ready.popleft()

    def _spend(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds


def _line(question: Question, fields: Line) -> Line:
    return answer_line(question.record, **fields, digest=digest_text(question.digest))
