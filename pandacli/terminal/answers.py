"""Answers about many clips or windows: a line each, JSON lines or captions, and their progress."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pandacli.errors import PandaError
from pandacli.inference.spec import Answer, Scores
from pandacli.terminal.console import Screen
from pandacli.terminal.progress import RunProgress, live_view, per_second
from pandacli.terminal.report import (
    answers_record,
    scores_record,
    sparse_sampling_notice,
    truncation_notice,
)
from pandacli.terminal.text import sanitize_line, wrap
from pandacli.timeline.formats import Caption, write_captions
from pandacli.units import size
from pandacli.video.clip import format_time

if TYPE_CHECKING:
    from pandacli.timeline.asking import Look, Outcome

_LONG = 3.0  # seconds from which the time that is left is announced

_Found = tuple["Outcome", dict[int, Answer | Scores]]
"""An outcome with what was found, by the number of the question."""


@dataclass(frozen=True)
class Layout:
    """What is written: a line for each answer, or one of the two formats."""

    clips: int  # that are asked about
    questions: int
    windows: bool = False  # of each clip
    json: bool = False
    file_format: str | None = None  # of `CAPTION_FORMATS`
    closer: str | None = None  # what looks closer, for the notice of frames that lie far apart
    remedy: str = "raise --max-tokens"  # for the notice of an answer that is cut off
    numbered: bool = False  # a line begins with its number, such as #1

    @property
    def unit(self) -> str:
        """What the progress counts."""
        return "windows" if self.windows and self.clips == 1 else "clips"


class AnswerDisplay:
    """Writes outcomes as they come, and shows the progress of the run.

    Errors and notices go to stderr, each notice once; on a terminal a bar shows the progress.
    `max_tokens` is the limit of an answer, `clock` is monotonic.
    """

    def __init__(
        self,
        screen: Screen,
        layout: Layout,
        max_tokens: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._screen, self._layout, self._max_tokens, self._clock = (
            screen,
            layout,
            max_tokens,
            clock,
        )
        self._progress = RunProgress(clock)
        self._view = ExitStack()
        self._model, self._first, self._began = "", 1, clock()
        self._announced = False
        self._said: set[str] = set()
        self._tokens = self._peak = self._done = self._lines = 0
        self.failed = 0  # clips or windows with an error

    def set_step(self, step: str) -> None:
        """Note what the run does now, such as "loading video-panda-7b"."""
        self._progress.waiting.say(step)

    def begin(self, model: str, first: int) -> None:
        """Note which model is loaded, and at how many clips or windows it looks first."""
        self._model, self._first, self._began = model, first, self._clock()
        self._progress.begin()
        self.set_step("answering")

    def show(self, outcomes: "Iterable[Outcome]") -> None:
        """Write the outcomes; after Ctrl-C say how many there are.

        Raises:
            PandaError: The only film to be cut into windows cannot be read.
        """
        found = self._track(outcomes)
        try:
            with self._view:
                self._draw()
                if self._layout.file_format:
                    captions = (caption for each in found for caption in self._captions(each))
                    for piece in write_captions(captions, self._layout.file_format):
                        with self._hidden():
                            self._screen.write(piece)
                else:
                    for each in found:
                        with self._hidden():
                            self._write(each)
        except KeyboardInterrupt:
            if self._progress.total:
                done = f"{self._done} of {self._progress.total} {self._layout.unit}"
                self._screen.notice(f"interrupted after {done}")
            raise

    def summary(self) -> None:
        """Print what the answers took, after the model was loaded."""
        seconds = self._clock() - self._began
        failed = f", {self.failed} failed" if self.failed else ""
        rows = [
            (self._layout.unit, f"{self._done}{failed}"),
            ("time", f"{seconds:.2f} s, {per_second(self._done / seconds)}"),
        ]
        if self._tokens:
            rows.append(("answers", f"{self._tokens} tokens"))
            rows.append(("memory", size(self._peak)))
        self._screen.table(rows)

    # --- progress

    def _track(self, outcomes: "Iterable[Outcome]") -> Iterator[_Found]:
        """Print errors and notices, and count; yields what was found."""
        layout, progress = self._layout, self._progress
        for outcome in outcomes:
            look, found = outcome.look, dict[int, Answer | Scores]()
            only = layout.windows and layout.clips == 1
            for number, result in enumerate(outcome.results, 1):
                if not isinstance(result, PandaError):
                    found[number] = result
                elif only and look.span is None:
                    raise result
                else:
                    with self._hidden():
                        self._print_error(outcome, number, result)
            with self._hidden():
                self._print_notices(outcome, found.values())
                self._announce(look)
            progress.total = look.windows if layout.unit == "windows" else layout.clips
            progress.share = look.share
            self._done = int(look.share * progress.total + 1e-6)
            self.failed += len(found) < len(outcome.results)
            if found:
                yield outcome, found

    def _draw(self) -> None:
        if self._screen.animates:
            self._view.enter_context(live_view(self._screen, self._progress))

    @contextmanager
    def _hidden(self) -> Iterator[None]:
        """Draw no progress in the block, which may write on the same terminal."""
        self._view.close()
        yield
        self._draw()

    def _announce(self, look: "Look") -> None:
        """Once, after the first answers of a long run, say how much there is to do."""
        if self._announced or not self._model:
            return
        self._announced = True
        step = 1 / (self._layout.clips * look.windows)
        first = self._first * step
        left = 1 - (look.share - step + first)
        seconds = (self._clock() - self._began) / first * left
        if seconds >= _LONG:
            count = look.windows if self._layout.unit == "windows" else self._layout.clips
            about = format_time(round(seconds))
            sentence = f"{count} {self._layout.unit}, about {about} left at the pace of the first"
            self._screen.notice(sentence)

    def _print_error(self, outcome: "Outcome", number: int, error: PandaError) -> None:
        look, message = outcome.look, error.message
        where = self._label(look, number if outcome.frames else 0)
        said = look.span is None and str(look.video) in message
        self._screen.error(message if said else f"{where}: {message}")

    def _print_notices(self, outcome: "Outcome", found: Iterable[Answer | Scores]) -> None:
        if outcome.frames is None:
            return
        notices = {sentence: sentence for sentence in outcome.frames.notices}
        if self._layout.closer:
            sparse = sparse_sampling_notice(outcome.frames, self._layout.closer)
            notices |= {"sparse": sparse} if sparse else {}
        for each in found:
            if isinstance(each, Answer):
                self._tokens += each.stats.answer_tokens
                self._peak = max(self._peak, each.stats.peak_memory_bytes)
                cut = truncation_notice(each, self._max_tokens, self._layout.remedy)
                notices |= {"cut": cut} if cut else {}
        for kind, sentence in notices.items():
            if kind not in self._said:
                self._said.add(kind)
                self._screen.notice(sentence)

    # --- what is written

    def _write(self, each: _Found) -> None:
        outcome, found = each
        if self._layout.json:
            self._screen.json(self._record(outcome, list(found.values())), one_line=True)
            return
        for number, result in found.items():
            gap = " " if outcome.look.span else ":"
            text = _text(result).replace("\n", " ")
            self._lines += 1
            count = f"#{self._lines}  " if self._layout.numbered else ""
            line = f"{count}{self._label(outcome.look, number)}{gap} {text}"
            if count and self._screen.stdout_is_terminal:  # as a chat wraps its answers
                line = wrap(sanitize_line(line), self._screen.out.width, len(count))
            self._screen.line(line)

    def _record(self, outcome: "Outcome", found: Sequence[Answer | Scores]) -> dict[str, object]:
        look, scores = outcome.look, [each for each in found if isinstance(each, Scores)]
        answers = [each for each in found if isinstance(each, Answer)]
        assert outcome.frames is not None, "there are answers"
        facts = str(look.video), self._model, outcome.frames
        record = scores_record(*facts, scores) if scores else answers_record(*facts, answers)
        if look.span is None:
            return record
        times = {name: round(value, 6) for name, value in look.span._asdict().items()}
        return {"video": record["video"], **times, **record}

    def _captions(self, each: _Found) -> Iterator[Caption]:
        outcome, found = each
        look = outcome.look
        assert look.span is not None, "captions are of windows"
        video = str(look.video) if self._layout.clips > 1 else None
        for result in found.values():
            probability = result.best.probability if isinstance(result, Scores) else None
            yield Caption(*look.span, _text(result), probability, video)

    def _label(self, look: "Look", number: int) -> str:
        """What an answer is about: clip (unless it is the only film), range, question."""
        path = "" if self._layout.unit == "windows" else sanitize_line(str(look.video))
        span = " - ".join(map(format_time, look.span or ()))
        label = "  ".join(filter(None, (path, span)))
        return f"{label} [{number}]" if number and self._layout.questions > 1 else label


def _text(result: Answer | Scores) -> str:
    return result.best.text if isinstance(result, Scores) else result.text
