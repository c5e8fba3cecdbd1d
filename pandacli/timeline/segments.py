"""The segments of a film in which the answer to a yes-or-no question is yes.

Overlapping windows are scored first. Hysteresis makes runs of them: a run is of neighbours whose
P(yes) reaches the lower threshold, one of which reaches the upper. The film is taken to show a
thing in a window if any of its frames does. So it is absent up to the last frame of the window
before a run and there by the last frame of the run's first window; the boundary in between is found
by bisection, with short windows. An end is found in the same way, backwards.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple, Protocol

from pandacli.errors import PandaError, UsageError
from pandacli.timeline.looking import NO, YES, probability_of_yes, scores
from pandacli.video.windows import Span, cut_windows

if TYPE_CHECKING:
    from pandacli.inference.panda import Panda
    from pandacli.video import Frames

Progress = Callable[[int, int], None]
"""Called with the number of windows scored and of all that are known to be needed."""

_LEAVE = 0.5  # of the threshold: below it a segment ends


class WindowReader(Protocol):
    """Reads the frames of windows, as a `FilmReader` does."""

    def read(self, spans: Iterable[Span]) -> "Iterator[tuple[Span, Frames | PandaError]]": ...


class Segment(NamedTuple):
    """A time range in seconds, with the highest P(yes) of its windows."""

    start: float
    end: float
    probability: float


class WindowScore(NamedTuple):
    """A window in seconds and its P(yes), or why it has none."""

    start: float
    end: float
    probability: float | None
    error: PandaError | None = None


@dataclass(frozen=True)
class SegmentOptions:
    """How a film is searched; times in seconds. UsageError for a value out of range."""

    window: float = 2.0
    stride: float | None = None  # from one window to the next; None for half a window
    threshold: float = 0.9  # P(yes) with which a segment begins
    precision: float = 0.5  # of boundaries; also the shortest gap and the shortest segment

    def __post_init__(self) -> None:
        if not (self.window > 0 and (self.stride or 1) > 0 and self.precision > 0):
            raise UsageError("window, stride and precision are longer than 0 seconds")
        if not 0 < self.threshold < 1:
            raise UsageError(f"a threshold cannot be {self.threshold:g}", "0.5 is even odds")

    @property
    def leave(self) -> float:
        """The P(yes) below which a segment ends."""
        return _LEAVE * self.threshold


@dataclass(frozen=True)
class Segments:
    """What was found.

    Attributes:
        segments: In order; none touches another.
        windows: Every window that was scored, in order.
        searched_to: Seconds up to which windows were scored.
        complete: Whether the search was not interrupted, so that all boundaries are refined.
        notices: Warnings about the film, such as of damage.
    """

    segments: tuple[Segment, ...]
    windows: tuple[WindowScore, ...]
    searched_to: float
    complete: bool = True
    notices: tuple[str, ...] = ()

    @property
    def failures(self) -> list[WindowScore]:
        return [window for window in self.windows if window.error is not None]


def find_segments(
    panda: "Panda",
    reader: WindowReader,
    span: Span,
    question: str,
    options: SegmentOptions | None = None,
    *,
    num_frames: int = 8,
    system: str | None = None,
    progress: Progress | None = None,
) -> Segments:
    """Find where in a range of a film the answer to a question is yes.

    A PandaError is raised only where no window at all could be scored.
    """
    search = SegmentSearch(
        panda, reader, span, question, options, num_frames=num_frames, system=system
    )
    search.run(progress)
    return search.result()


class SegmentSearch:
    """A search whose result so far can be read at any time, as after KeyboardInterrupt."""

    def __init__(
        self,
        panda: "Panda",
        reader: WindowReader,
        span: Span,
        question: str,
        options: SegmentOptions | None = None,
        *,
        num_frames: int = 8,
        system: str | None = None,
    ) -> None:
        self.panda, self.span, self.question = panda, span, question
        self.options = options or SegmentOptions()
        self._reader, self._num_frames, self._system = reader, num_frames, system
        self._looks: list[_Look] = []
        self._runs: list[_Run] | None = None  # once all windows are scored
        self._notices: dict[str, None] = {}  # in the order in which they came
        self._done, self._complete = 0, False

    def run(self, progress: Progress | None = None) -> None:
        """Score all windows, then refine the boundaries."""
        report = progress or (lambda _done, _total: None)
        stride = self.options.stride or self.options.window / 2
        spans = cut_windows(self.span, self.options.window, stride)
        for look in self._look(spans, report):
            self._looks.append(look)
        failures = [look.error for look in self._looks if look.error is not None]
        if len(failures) == len(self._looks):
            raise failures[0]
        self._runs = self._find_runs()
        while edges := [edge for run in self._runs for edge in run.edges if self._is_wide(edge)]:
            edges.sort(key=lambda edge: edge.next_look.start)
            looks = self._look([edge.next_look for edge in edges], report)
            for edge, look in zip(edges, looks, strict=True):
                edge.narrow(look, yes=(look.probability or 0) >= self.options.leave)
        self._judge_short_runs(report)
        self._complete = True

    def result(self) -> Segments:
        """The segments by what has been looked at; boundaries may not be refined yet."""
        runs = self._find_runs() if self._runs is None else self._runs
        reached = self._looks[-1].span.end if self._looks else self.span.start
        return Segments(
            tuple(self._merged(runs)),
            tuple(self.windows()),
            reached,
            self._complete,
            tuple(self._notices),
        )

    def windows(self, first: int = 0) -> list[WindowScore]:
        """The windows that have been scored, from number `first` on."""
        return [
            WindowScore(look.span.start, look.span.end, look.probability, look.error)
            for look in self._looks[first:]
        ]

    def _look(self, spans: list[Span], report: Progress) -> "Iterator[_Look]":
        """Score windows; they are read in one walk, and asked about in batches."""
        if not spans:
            return
        total = self._done + len(spans)
        report(self._done, total)
        for span, frames, found in scores(
            self.panda,
            self._reader.read(spans),
            self.question,
            (*YES, *NO),
            num_frames=self._num_frames,
            system=self._system,
        ):
            self._done += 1
            report(self._done, total)
            if isinstance(found, PandaError) or frames is None:
                error = found if isinstance(found, PandaError) else None
                yield _Look(span, error=error)
            else:
                self._notices |= dict.fromkeys(frames.notices)
                yield _Look(span, probability_of_yes(found), frames.times[0], frames.times[-1])

    def _is_yes(self, look: "_Look") -> bool:
        return look.probability is not None and look.probability >= self.options.threshold

    def _is_wide(self, edge: "_Edge") -> bool:
        return not edge.stuck and edge.width > self.options.precision

    def _find_runs(self) -> "list[_Run]":
        """Runs of windows by hysteresis, with what is known of their boundaries."""
        leave = self.options.leave
        runs = []
        numbered = enumerate(self._looks)
        for is_in, group in groupby(numbered, lambda item: (item[1].probability or 0) >= leave):
            run = list(group)
            if not is_in or not any(self._is_yes(look) for _, look in run):
                continue
            (first, opening), (last, closing) = run[0], run[-1]
            before = self._looks[first - 1] if first else None
            after = self._looks[last + 1] if last + 1 < len(self._looks) else None
            onset = _Edge(opening.last, opening.span.start)
            if before is not None and before.error is None:
                onset = _Edge(opening.last, before.last, known=True)
            end = _Edge(closing.first, closing.span.end, backwards=True)
            if after is not None and after.error is None:
                end = _Edge(closing.first, after.first, known=True, backwards=True)
            highest = max(look.probability or 0 for _, look in run)
            runs.append(_Run(onset, end, highest))
        return runs

    def _judge_short_runs(self, report: Progress) -> None:
        """Drop runs shorter than the precision, unless a window of that length shows it too.

        Then that window is the segment.
        """
        assert self._runs is not None
        least = self.options.precision
        short = [run for run in self._runs if run.segment.end - run.segment.start < least]
        spans = []
        for run in short:
            middle = (run.segment.start + run.segment.end) / 2
            start = min(max(self.span.start, middle - least / 2), self.span.end - least)
            spans.append(Span(max(self.span.start, start), min(start + least, self.span.end)))
        for run, look in zip(short, self._look(spans, report), strict=True):
            run.dropped, run.short = not self._is_yes(look), look.span

    def _merged(self, runs: "Iterable[_Run]") -> Iterator[Segment]:
        """The segments; those with a gap that is no longer than the precision are one."""
        current: Segment | None = None
        for segment in (run.segment for run in runs if not run.dropped):
            if current is None:
                current = segment
            elif segment.start - current.end <= self.options.precision:
                highest = max(current.probability, segment.probability)
                current = Segment(current.start, max(current.end, segment.end), highest)
            else:
                yield current
                current = segment
        if current is not None:
            yield current


class _Look(NamedTuple):
    """A window that was looked at: its P(yes), and the times of its first and last frame."""

    span: Span
    probability: float | None = None
    first: float = 0.0
    last: float = 0.0
    error: PandaError | None = None


@dataclass
class _Edge:
    """A boundary between a time by which a thing is there and one until which it is absent."""

    present: float
    absent: float
    known: bool = False  # whether it was seen to be absent; else that is where the range ends
    backwards: bool = False  # an end: it is absent after, not before
    stuck: bool = False  # there is nothing to look at in between

    @property
    def width(self) -> float:
        return abs(self.present - self.absent)

    @property
    def estimate(self) -> float:
        return (self.present + self.absent) / 2 if self.known else self.absent

    @property
    def next_look(self) -> Span:
        """The half on the absent side."""
        middle = (self.present + self.absent) / 2
        return Span(middle, self.absent) if self.backwards else Span(self.absent, middle)

    def narrow(self, look: _Look, *, yes: bool) -> None:
        """Move one of the sides, by what was seen in `next_look`."""
        if look.probability is None:
            self.stuck = True
            return
        middle = look.span.start if self.backwards else look.span.end
        if yes:
            self.present = middle
            return
        # the last frames of a short window may be left out of its eight
        unseen = not self.backwards and look.last > self.absent
        self.absent, self.known = (look.last if unseen else middle), True


@dataclass
class _Run:
    """Neighbouring windows that say yes."""

    onset: _Edge
    end: _Edge
    probability: float
    dropped: bool = False
    short: Span | None = None  # the window that stands for a run shorter than the precision

    @property
    def edges(self) -> tuple[_Edge, _Edge]:
        return self.onset, self.end

    @property
    def segment(self) -> Segment:
        start, end = self.short or (self.onset.estimate, self.end.estimate)
        return Segment(min(start, end), max(start, end), self.probability)
