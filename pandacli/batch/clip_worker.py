"""The questions about one clip, answered together: each record that is asked comes back as a line.

This is the unit of work, here and on every machine of a cluster.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from threading import Event
from time import perf_counter
from typing import TYPE_CHECKING, Any

from pandacli.batch.records import BadLine, Question, Record, RecordError, digest_text
from pandacli.batch.result_lines import BAD_RECORD, answer_line, error_line
from pandacli.errors import ClipError, DeviceError, PandaError, UsageError
from pandacli.inference import Answer, GenerationOptions, Request

if TYPE_CHECKING:
    from pandacli.inference import Panda, VideoSession
    from pandacli.video import Frames

Line = dict[str, Any]

_Asking = tuple[str, int, int]
"""What is asked, the most tokens of answer, and a number where every asking has its own answer."""

Done = tuple[Question | BadLine, Line]
"""A question and the line that came of it."""

_REMEMBERED = 1024  # answers, for the same question about the same clip
_REPEATS = 1024  # records with a question that is asked already, which wait for its answer

_KINDS = (
    (RecordError, BAD_RECORD),
    (ClipError, "clip"),
    (UsageError, "question"),
    (DeviceError, "memory"),
)


@dataclass(frozen=True)
class Settings:
    """How all questions of a run are asked; a record may differ in some.

    Attributes:
        model: What `Panda.load` takes.
        quant: As of `Panda.load`, and so are engine and device.
        engine: See there.
        device: See there.
        frames: How many frames the model is shown.
        start: First moment asked about, in seconds.
        end: The moment to stop at, in seconds.
        system: The system prompt; None is the one that the model was trained with.
        max_tokens: The most tokens of an answer.
        temperature: 0 takes the likeliest token every time.
        seed: Makes drawing repeatable.
        batch_size: How many questions are answered at a time; None for what memory allows.
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

    def decisive(self) -> Line:
        """Those that an answer depends on: with another value, a question is asked again."""
        names = ("model", "quant", "engine", "frames", "start", "end", "system", "max_tokens")
        return {name: getattr(self, name) for name in (*names, "temperature", "seed")}


def error_kind(error: PandaError) -> str:
    """What kind of error a record has, in a word."""
    return next((kind for cls, kind in _KINDS if isinstance(error, cls)), "other")


def failure(question: Question | BadLine, error: PandaError) -> Line:
    """The line of a record that has no answer."""
    message = f"{error.message}; {error.hint}" if error.hint else error.message
    kind, digest = error_kind(error), digest_text(question.digest)
    if isinstance(question, BadLine):
        return error_line(question.line, question.error.fields, kind, message, digest)
    record = question.record
    return error_line(record.line, record.fields, kind, message, digest, record)


def failures(questions: Iterable[Question | BadLine], error: PandaError) -> Iterator[Done]:
    """The lines of questions that have all failed for the same reason."""
    for question in questions:
        own = question.error if isinstance(question, BadLine) else error
        yield question, failure(question, own)


@dataclass
class _Asked:
    """A question under way, and the records that wait for its answer."""

    questions: list[Question]
    started: float = field(default_factory=perf_counter)


class ClipWorker:
    """Asks what a batch wants to know about one clip.

    Args:
        panda: The model.
        settings: How it is asked.
        group: Its open questions; they are gone through more than once.
        stopped: Once set, no question is begun any more.

    Attributes:
        seconds: What each stage took, by its name.
        in_flight: How many questions are being answered.
    """

    def __init__(
        self,
        panda: "Panda",
        settings: Settings,
        group: Iterable[Question | BadLine],
        stopped: Event | None = None,
    ) -> None:
        self._panda, self._settings, self._group = panda, settings, group
        self._stopped = stopped or Event()
        self._numbered: dict[int, _Asking] = {}
        self._asked: dict[_Asking, _Asked] = {}
        self._remembered: OrderedDict[_Asking, Line] = OrderedDict()
        self._ready: deque[Done] = deque()
        self._repeats = 0
        self._more = False
        self.seconds: dict[str, float] = {}

    @property
    def in_flight(self) -> int:
        """How many questions are being answered; one whose line is being written counts."""
        return len(self._asked)

    def lines(self, frames: "Frames") -> Iterator[Done]:
        """Each record with its line, as the answers become whole."""
        try:
            clip = self._panda.open(frames, num_frames=self._settings.frames)
        except PandaError as error:
            yield from failures(self._group, error)
            return
        for system in self._systems():
            yield from self._take_ready()
            try:
                clip = clip.with_system(system)  # the frames stay encoded
            except PandaError as error:
                yield from failures(self._under(system), error)
                continue
            yield from self._answer(clip, self._under(system))
        yield from self._take_ready()

    def _systems(self) -> Iterator[str | None]:
        """The system prompts of the questions, each once."""
        seen: set[str | None] = set()
        for question in self._group:
            if self._stopped.is_set():
                return
            if isinstance(question, BadLine):
                self._ready.append((question, failure(question, question.error)))
            elif (system := self._system(question.record)) not in seen:
                seen.add(system)
                yield system

    def _under(self, system: str | None) -> Iterator[Question]:
        """The questions with a system prompt."""
        for question in self._group:
            if isinstance(question, Question) and self._system(question.record) == system:
                yield question

    def _answer(self, clip: "VideoSession", questions: Iterator[Question]) -> Iterator[Done]:
        self._more = True
        while self._more:
            self._more, self._repeats = False, 0
            yield from self._answer_some(clip, questions)
        self._remembered.clear()

    def _answer_some(self, clip: "VideoSession", questions: Iterator[Question]) -> Iterator[Done]:
        """Answer the next questions: all of them, unless too many are the same."""
        started = perf_counter()
        try:
            clip.prepare()
        except PandaError as error:
            yield from failures(questions, error)
            return
        self._spent("prefix", perf_counter() - started)
        generation = clip.generate(
            self._asks(questions), batch_size=self._settings.batch_size, stream=False
        )
        for number, answer in generation.results():
            yield from self._settle(number, answer)
            yield from self._take_ready()
        yield from self._take_ready()
        for stage in ("prefill", "decode", "rerun"):
            self._spent(stage, getattr(generation.seconds, stage))

    def _asks(self, questions: Iterable[Question]) -> Iterator[Request]:
        """What is to be asked: the same question is asked once, where it gets the same answer."""
        repeatable = self._settings.temperature == 0 or self._settings.seed is not None
        number = 0
        for question in questions:
            if self._stopped.is_set():
                return
            record = question.record
            limit = record.max_tokens or self._settings.max_tokens
            asking = (record.question, limit, 0 if repeatable else number)
            if not self._wait_for_same(asking, question):
                self._numbered[number] = asking
                self._asked[asking] = _Asked([question])
                number += 1
                options = GenerationOptions(limit, self._settings.temperature, self._settings.seed)
                yield Request(record.question, options=options)
            elif self._repeats == _REPEATS:  # held in memory, which a clip may have millions of
                self._more = True
                return

    def _wait_for_same(self, asking: _Asking, question: Question) -> bool:
        """Have a record wait for the answer of the same question, if that has been asked."""
        if asking in self._asked:
            self._asked[asking].questions.append(question)
        elif asking in self._remembered:
            self._ready.append((question, _line(question, self._remembered[asking])))
        else:
            return False
        self._repeats += 1
        return True

    def _settle(self, number: int, answer: Answer | PandaError) -> Iterator[Done]:
        asking = self._numbered.pop(number)
        yield from self._settled(asking, self._asked[asking], answer)
        del self._asked[asking]  # not before its lines are written: it was in flight

    def _settled(
        self, asking: _Asking, asked: _Asked, answer: Answer | PandaError
    ) -> Iterator[Done]:
        if isinstance(answer, PandaError):
            yield from failures(asked.questions, answer)
            return
        said = {
            "answer": answer.text,
            "model": self._panda.name,
            "finish_reason": answer.finish_reason,
            "tokens": answer.stats.answer_tokens,
            "seconds": perf_counter() - asked.started,
        }
        self._remembered[asking] = said
        if len(self._remembered) > _REMEMBERED:
            self._remembered.popitem(last=False)
        yield from ((question, _line(question, said)) for question in asked.questions)

    def _take_ready(self) -> Iterator[Done]:
        while self._ready:
            yield self._ready.popleft()

    def _system(self, record: Record) -> str | None:
        return self._settings.system if record.system is None else record.system

    def _spent(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds


def _line(question: Question, said: Line) -> Line:
    return answer_line(question.record, **said, digest=digest_text(question.digest))
