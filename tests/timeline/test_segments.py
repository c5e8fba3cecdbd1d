"""The search for segments, with a model that says exactly in which frames a thing is to be seen."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import log
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pandacli.errors import ClipError, PandaError, UsageError
from pandacli.inference.spec import Choice, Scores
from pandacli.timeline import segments
from pandacli.timeline.looking import NO, YES
from pandacli.timeline.segments import SegmentOptions, Segments, SegmentSearch, find_segments
from pandacli.video.windows import Span

FPS = 25.0
Range = tuple[float, float]


@dataclass
class Film:
    """A film of 60 s that shows a thing in some ranges; others are damaged or slow to come."""

    shown: Sequence[Range]
    damaged: Sequence[Range] = ()
    interrupted_after: int = 10**9
    length: float = 60.0

    def __post_init__(self) -> None:
        self.walks = self.looks = 0

    def read(self, spans: Iterable[Span]) -> Iterator[tuple[Span, Any]]:
        self.walks += 1
        for span in spans:
            self.looks += 1
            if self.looks > self.interrupted_after:
                raise KeyboardInterrupt
            first, last = int(span.start * FPS), int(np.ceil(span.end * FPS)) - 1
            numbers = np.linspace(first, max(first, last), 8).astype(int)
            times = tuple(float(number) / FPS for number in numbers)
            if any(not any(a <= time < b for a, b in self.damaged) for time in times):
                yield span, SimpleNamespace(times=times, notices=())
            else:
                yield span, ClipError("these frames are damaged")

    def probability(self, times: Sequence[float]) -> float:
        """0.95 for one of eight frames, as `tiny` says."""
        seen = sum(any(a <= time < b for a, b in self.shown) for time in times)
        return 0.01 if not seen else min(0.99, 0.94 + 0.01 * seen)


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that searches a film."""

    def scores(film: Film, looks: Iterable[Any], *_: object, **__: object) -> Iterator[Any]:
        for span, frames in looks:
            if isinstance(frames, PandaError):
                yield span, None, frames
                continue
            yes = film.probability(frames.times)
            shares = dict.fromkeys(YES, yes / len(YES)) | dict.fromkeys(NO, (1 - yes) / len(NO))
            choices = tuple(Choice(text, log(p), p) for text, p in shares.items())
            yield span, frames, Scores("?", choices, 1.0)

    monkeypatch.setattr(segments, "scores", scores)

    def run(film: Film, **options: float) -> Segments:
        panda: Any = film
        reader: Any = film
        return find_segments(panda, reader, Span(0.0, film.length), "?", SegmentOptions(**options))

    return run


def ranges(found: Segments) -> list[Range]:
    return [(segment.start, segment.end) for segment in found.segments]


def assert_close(found: Segments, expected: Sequence[Range], tolerance: float) -> None:
    assert len(found.segments) == len(expected), found.segments
    for got, wanted in zip(ranges(found), expected, strict=True):
        assert got == pytest.approx(wanted, abs=tolerance), found.segments


@pytest.mark.parametrize("precision", [0.1, 0.5])
@pytest.mark.parametrize(("window", "stride"), [(2.0, 1.0), (4.0, 2.0), (4.0, 4.0), (8.0, 1.0)])
def test_boundaries_are_as_precise_as_asked(
    search: Any, window: float, stride: float, precision: float
) -> None:
    rng = np.random.default_rng(int(100 * window + stride))
    for _ in range(4):
        edges = np.cumsum(rng.uniform(window + stride + 1, 13, 4)).tolist()
        shown = [(edges[0], edges[1]), (edges[2], edges[3])]
        found = search(Film(shown), window=window, stride=stride, precision=precision)
        assert_close(found, shown, precision / 2 + 2 / FPS)


def test_segments_at_the_ends_of_the_range_reach_them(search: Any) -> None:
    found = search(Film([(0.0, 7.3), (50.2, 60.0)]))
    assert (found.segments[0].start, found.segments[-1].end) == (0.0, 60.0)
    assert_close(found, [(0.0, 7.3), (50.2, 60.0)], 0.3)


def test_all_boundaries_are_refined_in_few_walks_through_the_film(search: Any) -> None:
    film = Film([(float(at), at + 5.0) for at in range(2, 50, 12)])
    search(film, window=4.0, stride=2.0, precision=0.25)
    assert film.walks <= 1 + 4, "one for the windows, then one for each bisection"


def test_nothing_shown_gives_no_segment(search: Any) -> None:
    found = search(Film([]))
    assert found.segments == ()
    assert len(found.windows) == 59


def test_a_gap_within_the_precision_is_closed(search: Any) -> None:
    assert_close(search(Film([(10.0, 20.0), (20.3, 30.0)])), [(10.0, 30.0)], 0.3)


def test_a_flicker_is_dropped_and_a_short_appearance_is_not(search: Any) -> None:
    found = search(Film([(10.0, 10.04), (30.0, 30.4)]), window=1.0, stride=0.5)
    assert_close(found, [(30.0, 30.4)], 0.4)
    (segment,) = found.segments
    assert segment.end - segment.start == pytest.approx(0.5), "the precision"


def test_a_segment_goes_on_through_doubt_but_does_not_begin_with_it(
    search: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sure, doubtful = (10.0, 20.0), (15.0, 25.0)

    def probability(_: Film, times: Sequence[float]) -> float:
        if any(sure[0] <= time < sure[1] for time in times):
            return 0.95
        return 0.5 if any(a <= time < b for time in times for a, b in (doubtful, (40, 50))) else 0.1

    monkeypatch.setattr(Film, "probability", probability)
    (segment,) = search(Film([])).segments
    assert segment.start == pytest.approx(10.0, abs=0.3)
    assert segment.end == pytest.approx(25.0, abs=0.3)
    assert segment.probability == pytest.approx(0.95)


def test_a_damaged_stretch_is_a_gap_that_is_reported(search: Any) -> None:
    found = search(Film([(10.0, 40.0)], damaged=[(20.0, 30.0)]))
    assert_close(found, [(10.0, 20.0), (30.0, 40.0)], 1.1)
    assert [(w.start, w.end) for w in found.failures][::8] == [(20.0, 22.0), (28.0, 30.0)]
    assert all(window.probability is None for window in found.failures)


def test_a_film_without_any_frame_raises_its_error(search: Any) -> None:
    with pytest.raises(ClipError, match="damaged"):
        search(Film([], damaged=[(0.0, 60.0)]))


@pytest.mark.usefixtures("search")
@pytest.mark.parametrize("looks", [0, 1, 25, 59, 60, 62])
def test_an_interrupted_search_has_a_result(looks: int) -> None:
    film: Any = Film([(10.0, 20.0), (40.0, 50.0)], interrupted_after=looks)
    interrupted = SegmentSearch(film, film, Span(0.0, 60.0), "?")
    with pytest.raises(KeyboardInterrupt):
        interrupted.run()
    found = interrupted.result()
    assert len(found.windows) == min(looks, 59)
    expected = {0: [], 1: [], 25: [(10.0, 20.0)]}.get(looks, [(10.0, 20.0), (40.0, 50.0)])
    assert_close(found, expected, 1.1)
    assert found.searched_to == (found.windows[-1].end if looks else 0.0)


@pytest.mark.usefixtures("search")
def test_progress_counts_every_window() -> None:
    film: Any = Film([(10.0, 20.0)])
    calls: list[tuple[int, int]] = []
    find_segments(film, film, Span(0.0, 60.0), "?", progress=lambda *call: calls.append(call))
    assert calls[0] == (0, 59)
    assert calls[-1] == (film.looks, film.looks)
    assert all(done <= total for done, total in calls)


@pytest.mark.parametrize(
    "options",
    [{"window": 0.0}, {"stride": -1.0}, {"precision": 0.0}, {"threshold": 0.0}, {"threshold": 1.0}],
)
def test_options_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        SegmentOptions(**options)
