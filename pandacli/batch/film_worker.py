"""The film worker: answers questions about a film through windows, a result line for each record.

Records of a group are all cut into the same windows, or all ask for segments. A film is one unit of
work: when a run is stopped, windows whose questions are not answered to the end are dropped.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from threading import Event
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from pandacli.batch.clip_worker import Settings, choice_fields, score_fields, viewed
from pandacli.batch.readers.choices import with_letters
from pandacli.batch.records import Question, Record
from pandacli.batch.results import (
    Line,
    Result,
    error_fields,
    error_line,
    error_lines,
    result_line,
)
from pandacli.errors import ClipError, PandaError, UsageError
from pandacli.inference.spec import Answer, Scores
from pandacli.timeline.looking import as_question
from pandacli.timeline.segments import Segments, find_segments
from pandacli.video.clip import Clip, format_times
from pandacli.video.windows import FilmReader, Span, cut_windows, span_of

if TYPE_CHECKING:
    from pandacli.inference import Panda
    from pandacli.video import Frames

_KEPT_BYTES = 512 * 2**20  # of frames, for further questions that ask for segments

Progress = Callable[[int, int], None]
"""Called with the numbers of windows that are done, and of all that are known of."""

_Window = tuple[Span, "Frames | PandaError"]


class _StoppedError(Exception):
    """No further window is to be looked at."""


class _Asked(NamedTuple):
    """What is asked about the windows; records that ask the same share the answers."""

    text: str
    system: str | None
    max_tokens: int
    choices: tuple[str, ...]
    number: int = 0  # of a record with answers of its own, because they are sampled


class _Pass(NamedTuple):
    """What questions have in common that are asked in one pass over some windows."""

    system: str | None
    choices: tuple[str, ...]  # to be scored
    max_tokens: int


@dataclass
class _Answers:
    """The records that ask the same, and the answers so far."""

    waiting: list[Question] = field(default_factory=list)
    windows: list[Line] = field(default_factory=list)
    errors: list[PandaError] = field(default_factory=list)
    tokens: int = 0
    was_cut: bool = False  # at the limit of tokens

    def add(
        self,
        asked: _Asked,
        items: "Iterable[_Window]",
        found: "Iterator[Answer | Scores | PandaError]",  # one for each that has frames
    ) -> None:
        """Add the answers about some windows."""
        for span, frames in items:
            answer = frames if isinstance(frames, PandaError) else next(found)
            self.windows.append(_times(span) | self._answer_fields(asked, answer))

    def _answer_fields(self, asked: _Asked, answer: Answer | Scores | PandaError) -> Line:
        if isinstance(answer, PandaError):
            self.errors.append(answer)
            return {"error": error_fields(answer)}
        if isinstance(answer, Scores):
            return score_fields(answer)
        self.tokens += answer.stats.answer_tokens
        self.was_cut |= answer.finish_reason == "length"
        logprobs = {"logprobs": answer.logprobs_record} if answer.logprobs else {}
        return choice_fields(answer.text, asked.choices) | logprobs

    def fields(self) -> Line:
        """The fields of the result; raises PandaError where no window has an answer."""
        if len(self.errors) == len(self.windows):
            raise self.errors[0]
        answered = [window for window in self.windows if "answer" in window]
        texts = [f"{_shown(each)}  {' '.join(each['answer'].split())}" for each in answered]
        reason = "length" if self.was_cut else "stop"
        fields = {"answer": "\n".join(texts), "windows": self.windows, "finish_reason": reason}
        return fields | {"tokens": self.tokens}


class FilmWorker:
    """Answers the questions about a film, iterated once; begins no window once `stopped`."""

    def __init__(
        self,
        load: "Callable[[], Panda]",  # is called once the film is known to be one
        settings: Settings,
        group: Iterable[Question],
        stopped: Event,
        progress: Progress = lambda _done, _known: None,
    ) -> None:
        self._load, self._settings, self._stopped = load, settings, stopped
        self._group, self._progress = list(group), progress
        self._unwritten = 0
        self.seconds: dict[str, float] = defaultdict(float)  # by stage

    def in_flight(self) -> int:
        """How many questions are answered and their lines not written yet."""
        return self._unwritten

    def results(self, reader: FilmReader, clip: Clip) -> Iterator[Result]:
        """Answer the questions about a range of a film; yield each record with its line."""
        try:
            span = span_of(clip, reader.info().duration)
        except (ClipError, UsageError) as error:
            yield from error_lines(self._group, error)
            return
        self._panda = self._load()
        every, began = self._group[0].record.every, perf_counter()
        is_shared = every is None and len({q.record.question for q in self._group}) > 1
        film = _Film(reader, self._settings.view, _KEPT_BYTES if is_shared else 0)
        with suppress(_StoppedError):
            if every:
                yield from self._windows(film, cut_windows(span, every))
            else:
                yield from self._segments(film, span)
        self.seconds["frames"] += film.waited
        self.seconds["windows"] += perf_counter() - began - film.waited

    def _windows(self, film: "_Film", spans: list[Span]) -> Iterator[Result]:
        began, done = perf_counter(), 0
        asked, looks = self._asked(self._text_about_windows), film.read(spans)
        passes = defaultdict[_Pass, list[_Asked]](list)
        for each in asked:
            is_scored = self._is_scored(each)
            how = (each.choices, 0) if is_scored else ((), each.max_tokens)
            passes[_Pass(each.system, *how)].append(each)
        self._report(done, len(spans))
        while items := list(islice(looks, self._panda.windows_at_once)):
            usable = [frames for _, frames in items if not isinstance(frames, PandaError)]
            for one, together in passes.items():
                rows = self._look(usable, one, [each.text for each in together])
                for place, each in enumerate(together):
                    asked[each].add(each, items, iter([row[place] for row in rows]))
            done += len(items)
            self._report(done, len(spans))
        yield from self._lines(
            [(each.waiting, self._found(each.fields, began)) for each in asked.values()]
        )

    def _look(
        self, frames: "list[Frames]", one: _Pass, texts: list[str]
    ) -> Sequence[Sequence[Answer | Scores | PandaError]]:
        """The answers to all questions of a pass, for each window."""
        if not frames:
            return []
        batch = self._panda.look_together(frames, self._settings.frames, one.system)
        try:
            if one.choices:
                return batch.score_all(texts, one.choices)
            return batch.ask(texts, replace(self._settings.options, max_tokens=one.max_tokens))
        except PandaError as error:
            return [[error for _ in texts] for _ in frames]

    def _segments(self, film: "_Film", span: Span) -> Iterator[Result]:
        for each, answers in self._asked(lambda record: as_question(record.question)).items():
            began = perf_counter()

            def find(asked: _Asked = each) -> Line:
                found = find_segments(
                    self._panda,
                    film,
                    span,
                    asked.text,
                    self._settings.search,
                    num_frames=self._settings.frames,
                    system=asked.system,
                    progress=self._report,
                )
                return _segment_fields(found)

            yield from self._lines([(answers.waiting, self._found(find, began))])

    def _asked(self, text: Callable[[Record], str]) -> dict[_Asked, _Answers]:
        """The different questions, with the records that ask each."""
        options, found = self._settings.options, dict[_Asked, _Answers]()
        repeatable = options.temperature == 0 or options.seed is not None
        for number, question in enumerate(self._group, 1):
            record = question.record
            system = self._settings.system if record.system is None else record.system
            limit = 0 if record.when else record.max_tokens or options.max_tokens
            asked = _Asked(text(record), system, limit, record.choices)
            if not (repeatable or record.when or self._is_scored(asked)):
                asked = asked._replace(number=number)
            found.setdefault(asked, _Answers()).waiting.append(question)
        return found

    def _text_about_windows(self, record: Record) -> str:
        is_listed = record.choices and self._settings.choose != "likelihood"
        return with_letters(record.question, record.choices) if is_listed else record.question

    def _is_scored(self, asked: _Asked) -> bool:
        return bool(asked.choices) and self._settings.choose == "likelihood"

    def _found(self, find: Callable[[], Line], began: float) -> Line | PandaError:
        """A result with what all results have."""
        try:
            shared = {"model": self._panda.name, **self._settings.marks}
            return find() | shared | {"seconds": round(perf_counter() - began, 3)}
        except PandaError as error:
            return error

    def _lines(self, found: list[tuple[list[Question], Line | PandaError]]) -> Iterator[Result]:
        self._unwritten = sum(len(waiting) for waiting, _ in found)
        for waiting, result in found:
            for question in waiting:
                if isinstance(result, PandaError):
                    yield question, error_line(question, result)
                else:
                    yield question, result_line(question, result)
                self._unwritten -= 1

    def _report(self, done: int, known: int) -> None:
        if self._stopped.is_set():
            raise _StoppedError
        self._progress(done, known)


class _Film:
    """The windows of a film as the model is shown them; some are kept for another question."""

    def __init__(self, reader: FilmReader, view: str | None, budget: int) -> None:
        self._reader, self._view, self._budget = reader, view, budget  # in bytes of frames
        self._kept: dict[Span, Frames | PandaError] = {}
        self.waited = 0.0  # seconds, for frames

    def read(self, spans: Iterable[Span]) -> "Iterator[_Window]":
        """As of `FilmReader`."""
        spans = list(spans)
        known = {span: self._kept[span] for span in spans if span in self._kept}
        others = self._reader.read([span for span in spans if span not in known])
        for span in spans:
            yield span, known[span] if span in known else self._next(span, others)

    def _next(self, span: Span, others: "Iterator[_Window]") -> "Frames | PandaError":
        began = perf_counter()
        _, frames = next(others)
        self.waited += perf_counter() - began
        if not isinstance(frames, PandaError):
            frames = viewed(frames, self._view)
            self._budget -= frames.pixels.nbytes
        if self._budget >= 0:
            self._kept[span] = frames
        return frames


def _segment_fields(found: Segments) -> Line:
    """The fields of the result of a search, with the best segment first."""
    ranked = sorted(found.segments, key=lambda each: -each.probability)
    segments = [_times(each) | {"probability": round(each.probability, 6)} for each in ranked]
    windows = [
        _times(each)
        | (
            {"error": error_fields(each.error)}
            if each.error is not None
            else {"probability": round(each.probability or 0.0, 6)}
        )
        for each in found.windows
    ]
    texts = [f"{_shown(each)}  {each['probability']:.2f}" for each in segments]
    fields = {"answer": "\n".join(texts), "segments": segments, "windows": windows}
    return fields | {"finish_reason": "stop", "tokens": 0}


def _times(span: Any) -> Line:
    """Start and end in seconds."""
    return {"start": round(span.start, 6), "end": round(span.end, 6)}


def _shown(window: Line) -> str:
    return " - ".join(format_times([window["start"], window["end"]]))
