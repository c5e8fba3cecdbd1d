"""Answers about many clips or windows: lines, JSON lines, captions, errors and notices."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pandacli.errors import ClipError, PandaError, UsageError
from pandacli.inference.spec import Answer, Choice, Scores, Stats
from pandacli.terminal.answers import AnswerDisplay, Layout
from pandacli.terminal.console import Screen
from pandacli.timeline.asking import Look, Outcome
from pandacli.video import Frames, VideoInfo
from pandacli.video.windows import Span

Capture = pytest.CaptureFixture[str]
Result = Answer | Scores | PandaError


def answer(text: str, finish: Any = "stop") -> Answer:
    stats = Stats(8, 1232, 9, 1241, 3, 1.0, 0.25, 0.5, 0.75, 0.3, 10.0, 1_500_000_000)
    return Answer(text, finish, stats, "What happens?")


def scored(text: str, probability: float) -> Scores:
    choices = Choice(text, -0.1, probability), Choice("other", -3.0, 1 - probability)
    return Scores("Is it?", choices, 0.9)


def sampled(step: float = 1.0, notices: tuple[str, ...] = ()) -> Frames:
    info = VideoInfo(64, 48, 25.0, 200, 8.0, "h264", True, ())
    times = tuple(step * number for number in range(8))
    return Frames(np.zeros((0, 48, 64, 3), np.uint8), tuple(range(8)), times, info, notices)


def clip(number: int, count: int, *results: Result, name: str = "", **how: Any) -> Outcome:
    frames = None if how.pop("unread", False) else sampled(**how)
    look = Look(Path(name or f"{number}.mp4"), None, 1, number / count)
    return Outcome(look, frames, results)


def window(number: int, count: int, *results: Result, film: str = "film.mp4") -> Outcome:
    span = Span(10.0 * (number - 1), 10.0 * number)
    return Outcome(Look(Path(film), span, count, number / count), sampled(), results)


def show(*outcomes: Outcome, clips: int = 0, questions: int = 1, **layout: Any) -> AnswerDisplay:
    asked = Layout(clips or len(outcomes), questions, **layout)
    display = AnswerDisplay(Screen(), asked, 1024)
    display.begin("tiny", 8)
    display.show(outcomes)
    return display


def test_clips_take_a_line_each_in_order(capsys: Capture) -> None:
    show(clip(1, 2, answer("A star\nappears.")), clip(2, 2, answer("Nothing.")))
    assert capsys.readouterr().out == "1.mp4: A star appears.\n2.mp4: Nothing.\n"


def test_several_questions_are_numbered(capsys: Capture) -> None:
    show(clip(1, 1, answer("Yes."), answer("No.")), questions=2)
    assert capsys.readouterr().out == "1.mp4 [1]: Yes.\n1.mp4 [2]: No.\n"


def test_windows_of_one_film_have_their_times(capsys: Capture) -> None:
    outcomes = window(1, 2, answer("A.")), window(2, 2, answer("B."))
    show(*outcomes, clips=1, windows=True)
    assert capsys.readouterr().out == "0:00 - 0:10  A.\n0:10 - 0:20  B.\n"


def test_windows_of_several_films_have_the_film_too(capsys: Capture) -> None:
    outcomes = [window(1, 1, answer(n), answer("B."), film=f"{n}.mp4") for n in "xy"]
    show(*outcomes, clips=2, questions=2, windows=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["x.mp4  0:00 - 0:10 [1]  x", "x.mp4  0:00 - 0:10 [2]  B."]
    assert lines[2] == "y.mp4  0:00 - 0:10 [1]  y"


def test_error_has_the_clip_and_does_not_end_the_run(capsys: Capture) -> None:
    display = show(
        clip(1, 3, ClipError("1.mp4 is empty", "a hint"), unread=True),
        clip(2, 3, UsageError("the question is too long")),
        clip(3, 3, answer("C.")),
    )
    shown = capsys.readouterr()
    assert shown.out == "3.mp4: C.\n"
    assert shown.err == "panda: 1.mp4 is empty\npanda: 2.mp4: the question is too long\n"
    assert display.failed == 2


def test_error_of_a_window_has_its_times(capsys: Capture) -> None:
    bad = window(1, 2, ClipError("no frame decodes"))
    display = show(bad, window(2, 2, answer("B.")), clips=1, windows=True)
    shown = capsys.readouterr()
    assert shown.out == "0:10 - 0:20  B.\n"
    assert shown.err == "panda: 0:00 - 0:10: no frame decodes\n"
    assert display.failed == 1


def test_only_film_that_cannot_be_read_is_an_error_of_the_command() -> None:
    with pytest.raises(ClipError, match="is empty"):
        show(clip(1, 1, ClipError("1.mp4 is empty"), unread=True), windows=True)


def test_control_characters_are_escaped_in_lines(capsys: Capture) -> None:
    name = "a\nb\x1b[31m.mp4"
    bad = clip(2, 2, UsageError("no"), name=name)
    show(clip(1, 2, answer("x\x1b[0m"), name=name), bad)
    shown = capsys.readouterr()
    assert shown.out == "a\\nb\\x1b[31m.mp4: x\\x1b[0m\n"
    assert shown.err == "panda: a\\nb\\x1b[31m.mp4: no\n"


def test_json_is_an_object_a_window_with_its_times(capsys: Capture) -> None:
    outcomes = window(1, 2, answer("A.\nB.")), window(2, 2, answer("C."))
    show(*outcomes, clips=1, windows=True, json=True)
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert list(first)[:3] == ["video", "start", "end"]
    assert (first["video"], first["start"], first["end"]) == ("film.mp4", 0.0, 10.0)
    assert [each["answer"] for each in first["answers"]] == ["A.\nB."]
    assert (second["start"], second["model"]) == (10.0, "tiny")


def test_json_of_choices_has_their_probabilities(capsys: Capture) -> None:
    show(clip(1, 1, scored("Yes.", 0.75)), json=True)
    record = json.loads(capsys.readouterr().out)
    assert record["answers"][0]["answer"] == "Yes."
    assert [each["probability"] for each in record["answers"][0]["choices"]] == [0.75, 0.25]


def test_captions_are_of_the_windows_that_have_an_answer(capsys: Capture) -> None:
    outcomes = window(1, 2, ClipError("no frame")), window(2, 2, answer("B."))
    show(*outcomes, clips=1, windows=True, file_format="srt")
    assert capsys.readouterr().out == "1\n00:00:10,000 --> 00:00:20,000\nB.\n\n"


@pytest.mark.parametrize("films", [1, 2])
def test_table_names_the_film_only_where_there_are_several(capsys: Capture, films: int) -> None:
    outcomes = [window(1, 1, scored("Yes, a star.", 0.9), film="a,b.mp4")] * films
    show(*outcomes, windows=True, file_format="csv")
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    expected = {"start": "0.000", "end": "10.000", "text": "Yes, a star.", "probability": "0.9000"}
    assert rows == [({"video": "a,b.mp4"} if films > 1 else {}) | expected] * films


def test_each_notice_is_printed_once(capsys: Capture) -> None:
    outcomes = [
        clip(number, 3, answer("A.", "length"), step=75.0, notices=("1.mp4 is damaged",))
        for number in (1, 2, 3)
    ]
    show(*outcomes, closer="--every")
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "panda: 1.mp4 is damaged",
        "panda: 8 frames from 10:00, one frame each 75 s; --every looks closer",
        "panda: the answer was cut off after 3 tokens: the context is full",
    ]


@pytest.mark.parametrize(
    ("seconds", "said"), [(80.0, "60 windows, about 8:40 left at the pace of the first"), (0.1, "")]
)
def test_long_run_is_announced_after_the_first_answers(
    capsys: Capture, seconds: float, said: str
) -> None:
    now = [0.0]
    display = AnswerDisplay(Screen(), Layout(1, 1, windows=True), 1024, clock=lambda: now[0])
    display.begin("tiny", 8)
    now[0] = seconds
    display.show(window(number, 60, answer("A.")) for number in range(1, 61))
    assert capsys.readouterr().err == (f"panda: {said}\n" if said else "")


@pytest.mark.parametrize(
    ("layout", "written"),
    [({}, "0:00 - 0:10  A.\n"), ({"file_format": "vtt"}, "WEBVTT\n\n00:00:00.000 --> ")],
)
def test_interrupt_keeps_what_is_done_and_says_how_much(
    capsys: Capture, layout: dict[str, Any], written: str
) -> None:
    def outcomes() -> Iterator[Outcome]:
        yield window(1, 5, answer("A."))
        raise KeyboardInterrupt

    display = AnswerDisplay(Screen(), Layout(1, 1, windows=True, **layout), 1024)
    display.begin("tiny", 1)
    with pytest.raises(KeyboardInterrupt):
        display.show(outcomes())
    shown = capsys.readouterr()
    assert shown.out.startswith(written)
    assert shown.out.count("A.") == 1
    assert shown.err.endswith("panda: interrupted after 1 of 5 windows\n")


def test_summary_has_counts_time_and_tokens(capsys: Capture) -> None:
    bad = clip(1, 2, ClipError("1.mp4 is empty"), unread=True)
    show(bad, clip(2, 2, answer("B."))).summary()
    rows = [line.split("  ", 1)[0] for line in capsys.readouterr().err.splitlines()[1:]]
    assert rows == ["clips", "time", "answers", "memory"]


def test_terminal_shows_a_bar_and_whole_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out, err = Terminal(), Terminal()
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr("sys.stderr", err)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "60")
    show(*(window(number, 3, answer("A.")) for number in (1, 2, 3)), clips=1, windows=True)
    assert out.getvalue().count(" - ") == 3
    assert "2/3  66%" in err.getvalue()
    assert err.getvalue().rindex("\x1b[?25h") > err.getvalue().rindex("3/3"), "cursor shown again"
