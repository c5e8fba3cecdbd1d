"""Segments on the screen: lines, curve, notices, formats and progress."""

import csv
import json
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pandacli.errors import ClipError
from pandacli.terminal.console import Screen
from pandacli.terminal.curve import probability_curve
from pandacli.terminal.segments import SegmentDisplay, segment_lines
from pandacli.timeline.segments import Segment, SegmentOptions, Segments, WindowScore
from pandacli.video.windows import Span

STAR = (Segment(21.5, 35.0, 0.97), Segment(62.04, 64.96, 0.9312))
UNREADABLE = ClipError("film.mp4 cannot be decoded there")


def windows(*shares: float | None, start: float = 0.0, length: float = 2.0) -> list[WindowScore]:
    """Windows of a length, one each second."""
    return [
        WindowScore(start + at, start + at + length, share, UNREADABLE if share is None else None)
        for at, share in enumerate(shares)
    ]


def test_a_line_has_the_times_and_the_probability() -> None:
    assert segment_lines(STAR, 0.5) == ["0:21.5 - 0:35.0  0.97", "1:02.0 - 1:05.0  0.93"]
    assert segment_lines(STAR, 0.1)[1] == "1:02.04 - 1:04.96  0.93"


def heights(lines: list[str]) -> list[int]:
    """The level of each column of a curve, in half-blocks."""
    bars = [line[6:].ljust(200) for line in lines[:-2]]
    return [sum({"█": 2, "▄": 1}.get(c, 0) for c in column) for column in zip(*bars, strict=True)]


def test_curve_shows_a_moment_by_the_least_likely_window_over_it() -> None:
    lines = probability_curve(windows(0.0, 1.0, 1.0, 0.5), Span(0.0, 5.0), 0.5, 56, blocks=True)
    levels = heights(lines)
    assert [levels[column] for column in (5, 15, 25, 35, 45)] == [0, 0, 10, 5, 5]


@pytest.mark.parametrize("columns", [1, 20, 80, 200])
@pytest.mark.parametrize("span", [Span(0.0, 0.4), Span(3.2, 9.7), Span(600.0, 7260.0)])
def test_curve_fits_the_width_and_has_times(span: Span, columns: int) -> None:
    lines = probability_curve(windows(0.2, 0.8), span, 0.5, columns, blocks=False)
    assert len({line.isascii() for line in lines}) == 1
    assert all(len(line) <= max(columns, 7) for line in lines)
    if columns >= 80:
        times = lines[-1].split()
        assert times == sorted(times, key=lambda time: (len(time), time))
        assert len(times) >= 3 or span.end < 1


def test_curve_marks_the_threshold_and_gaps() -> None:
    shares = (0.0, None, None, None, 0.0)
    lines = probability_curve(windows(*shares), Span(0.0, 6.0), 0.7, 66, blocks=True)
    assert [line.startswith("0.70 │┈┈┈") for line in lines] == [False, True, *[False] * 5]
    assert lines[4].count("?") == pytest.approx(20, abs=1)


class FakeSearch:
    """A search that is over."""

    def __init__(self, *found: Segment, **fields: Any) -> None:
        self.question, self.span, self.options = "Is there a star?", Span(0, 90), SegmentOptions()
        self.panda = SimpleNamespace(name="tiny")
        known: dict[str, Any] = {"windows": windows(0.2), "searched_to": 90.0} | fields
        self._found = Segments(found, **known)

    def result(self) -> Segments:
        return self._found


def shown(search: Any, **options: Any) -> None:
    info: Any = SimpleNamespace(fps=25.0)
    SegmentDisplay(Screen(), search, **options).show("film.mp4", Path("film.mp4"), info)


def test_json_has_segments_and_windows(capsys: pytest.CaptureFixture[str]) -> None:
    shown(FakeSearch(*STAR, windows=windows(0.25, None)), json=True)
    record = json.loads(capsys.readouterr().out)
    assert record == {
        "video": "film.mp4",
        "model": "tiny",
        "question": "Is there a star?",
        "segments": [
            {"start": 21.5, "end": 35.0, "probability": 0.97},
            {"start": 62.04, "end": 64.96, "probability": 0.9312},
        ],
        "windows": [
            {"start": 0.0, "end": 2.0, "probability": 0.25},
            {"start": 1.0, "end": 3.0, "probability": None, "error": UNREADABLE.message},
        ],
    }


def test_csv_has_a_row_for_each_segment(capsys: pytest.CaptureFixture[str]) -> None:
    shown(FakeSearch(*STAR), file_format="csv")
    rows = list(csv.DictReader(StringIO(capsys.readouterr().out)))
    assert [row["start"] for row in rows] == ["21.500", "62.040"]
    assert {row["text"] for row in rows} == {"Is there a star?"}


def test_notices_name_gaps_damage_and_an_interruption(capsys: pytest.CaptureFixture[str]) -> None:
    shares = [None, None, 0.1, 0.1, None, 0.1, 0.1, None, 0.1, 0.1, None, 0.1]
    scored = windows(*shares, length=1.0)
    shown(FakeSearch(windows=scored, searched_to=12.0, complete=False, notices=("it is damaged",)))
    assert capsys.readouterr().err.splitlines() == [
        "panda: it is damaged",
        "panda: 5 windows could not be looked at"
        " (0:00 to 0:02, 0:04 to 0:05, 0:07 to 0:08 and 1 more): film.mp4 cannot be decoded there",
        "panda: stopped at 0:12 of 1:30; the boundaries are not refined",
        "panda: nothing found: the highest probability of yes is 0.10",
    ]


def test_a_long_search_is_announced_once_the_pace_is_known(
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = 0.0
    search: Any = FakeSearch()
    with SegmentDisplay(Screen(), search, clock=lambda: now).progress() as report:
        report(0, 64)
        for done in range(1, 25):
            now = 4.0 * ((done + 7) // 8)  # eight at once
            report(done, 64)
    assert capsys.readouterr().err == "panda: looking at 64 windows, about 0:28 left\n"
