"""Records with windows, single times and segments, answered by a batch."""

import json
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import cv2
import numpy as np
import pytest

from pandacli.batch import film_worker, runner
from pandacli.batch.job import Batch, Job
from pandacli.errors import ClipError
from pandacli.inference import windows
from pandacli.inference.spec import GenerationOptions
from pandacli.timeline.looking import as_question
from pandacli.timeline.segments import Segment, SegmentOptions, Segments, WindowScore
from pandacli.video import Clip, sample_frames
from pandacli.video.windows import Span, cut_windows
from tests.batch.conftest import Ran, as_line, ask, settings_of

FILM = "film.avi"
SECONDS = 8


@pytest.fixture(scope="module", autouse=True)
def film(clips: Path) -> Path:
    """A film of eight seconds, of noise that changes every second."""
    path = clips / FILM
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 4, (64, 48))
    rng = np.random.default_rng(5)
    for _ in range(SECONDS):
        scene = rng.integers(0, 256, (48, 64, 3), np.uint8)
        for number in range(4):
            writer.write(np.roll(scene, 3 * number, axis=1))
    writer.release()
    return path


def windowed(name: Any, question: str = "Why?", **more: Any) -> dict[str, Any]:
    return ask(name, FILM, question, **({"every": 2} | more))


def by_id(ran: Ran) -> dict[Any, dict[str, Any]]:
    return {line.get("id"): line for line in ran.lines}


def test_each_window_is_answered_as_a_clip_of_its_range(batch, panda, film) -> None:
    own = {"system": "Be kind.", "max_tokens": 3, "from": "0:01", "every": "1.5s"}
    chosen = windowed("chosen", choices=["a", "b"])
    records = [windowed("plain"), windowed("own", "What?", **own), chosen]
    lines = by_id(batch(records))
    for name, question, span, more in (
        ("plain", "Why?", Span(0, SECONDS), {}),
        ("own", "What?", Span(1, SECONDS), {"system": "Be kind."}),
    ):
        windows = lines[name]["windows"]
        spans = cut_windows(span, 1.5 if name == "own" else 2)
        assert [(each["start"], each["end"]) for each in windows] == spans
        for window in windows:
            session = panda.open(sample_frames(Clip(film, window["start"], window["end"])), **more)
            limit = 3 if name == "own" else 6
            assert window["answer"] == session.ask(question, max_tokens=limit).text
    for window in lines["chosen"]["windows"]:
        session = panda.open(sample_frames(Clip(film, window["start"], window["end"])))
        scores = session.score("Why?", ["a", "b"])
        assert window["answer"] == scores.best.text
        found = [each["probability"] for each in window["choices"]]
        assert found == pytest.approx([each.probability for each in scores.choices], abs=1e-5)
        assert window["coverage"] == pytest.approx(scores.coverage, rel=1e-3)


def test_answer_holds_the_windows_as_text(batch) -> None:
    line = by_id(batch([windowed(1)]))[1]
    rows = line["answer"].split("\n")
    assert len(rows) == len(line["windows"]) == 4
    assert rows[0] == f"0:00 - 0:02  {' '.join(line['windows'][0]['answer'].split())}"
    assert rows[-1].startswith("0:06 - 0:08  ")
    assert line["tokens"] == 4 * 6
    assert line["finish_reason"] == "length"
    assert line["every"] == 2


def test_records_with_equal_windows_share_one_walk(batch, walks, read_clips) -> None:
    lengths = [2, "2s", 2.0, "0:02"]
    records = [windowed(n, f"Why {n}?", every=every) for n, every in enumerate(lengths)]
    ran = batch([*records, windowed("other", every=3), ask("plain", FILM), windowed("part", to=4)])
    assert [len(spans) for spans in walks] == [4, 3, 2]
    assert len(read_clips) == 1
    assert ran.counters.clips == ran.counters.clips_done == 4
    assert (ran.counters.answered, ran.loads) == (7, 1)


def test_repeated_questions_are_answered_once(batch, monkeypatch) -> None:
    asked: list[int] = []
    ask_windows = windows.WindowBatch.ask

    def counting(self: Any, questions: Any, options: GenerationOptions | None = None) -> Any:
        asked.append(len(questions))
        return ask_windows(self, questions, options)

    monkeypatch.setattr(windows.WindowBatch, "ask", counting)
    ran = batch([windowed(n, f"Why {n % 2}?") for n in range(6)])
    assert set(asked) == {2}
    answers = ran.answers
    assert all(answers[n] == answers[n % 2] for n in range(6))


def test_questions_that_can_share_a_pass_over_the_windows_do(batch, monkeypatch) -> None:
    passes: list[str | None] = []
    open_windows = windows.WindowBatch.__init__

    def counting(self: Any, *arguments: Any) -> None:
        passes.append(arguments[3])
        open_windows(self, *arguments)

    monkeypatch.setattr(windows.WindowBatch, "__init__", counting)
    more = [
        {},
        {"choices": ["a", "b"]},
        {"choices": ["c", "d"]},
        {"max_tokens": 2},
        {"system": "s"},
    ]
    records = [windowed(n, f"Why {n}?", every=8, **more[n % len(more)]) for n in range(15)]
    assert batch(records).counters.answered == 15
    assert sorted(passes, key=str) == [None, None, None, None, "s"]


def test_times_are_looked_at_in_place_of_the_range(batch, panda, film) -> None:
    ran = batch(
        [ask(1, FILM, at="0:05,1.5"), ask(2, FILM, at=[1.5, 5]), ask(3, FILM, at=0)], end=3.0
    )
    wanted = panda.open(sample_frames(Clip(film, at=(1.5, 5.0)))).ask("Why?", max_tokens=6).text
    assert ran.answers[1] == ran.answers[2] == wanted
    assert ran.answers[3] != wanted
    assert ran.counters.clips == 2


@pytest.mark.parametrize(
    ("fields", "kind", "message"),
    [
        ({"video": "missing.avi"}, "clip", "no file missing.avi"),
        ({"from": 30}, "question", "the range starts at 0:30, past the end"),
        ({"every": None, "at": 30}, "question", "the time 0:30 is past the end"),
        (
            {"every": None, "at": [*range(9)]},
            "question",
            "looks at 8 frames, and 9 times are given",
        ),
        ({"every": "x"}, "record", "the field 'every'"),
    ],
)
def test_what_cannot_be_looked_at_fails_alone(batch, fields, kind, message) -> None:
    ran = batch([windowed("bad") | fields, windowed("good")])
    (failed,) = [line for line in ran.lines if "error" in line]
    assert failed["error"]["kind"] == kind
    assert message in failed["error"]["message"]
    assert ran.answers["good"]


def test_a_file_that_is_no_video_loads_no_model(batch, clips) -> None:
    (clips / "film.txt.avi").write_text("not a video")
    ran = batch(
        [ask(n, "film.txt.avi", **how) for n, how in enumerate([{"every": 2}, {"when": True}])]
    )
    assert (ran.loads, ran.counters.failed) == (0, 2)
    assert {line["error"]["kind"] for line in ran.lines} == {"clip"}


def break_windows(monkeypatch: pytest.MonkeyPatch, broken: set[float]) -> None:
    """Make the windows that start at these times undecodable."""
    read = runner.FilmReader.read

    def reading(self: Any, spans: Any) -> Any:
        for span, frames in read(self, spans):
            yield span, ClipError("it is damaged") if span.start in broken else frames

    monkeypatch.setattr(runner.FilmReader, "read", reading)


def test_a_window_that_fails_is_left_out_of_the_answer(batch, monkeypatch) -> None:
    break_windows(monkeypatch, {2.0})
    line = by_id(batch([windowed(1)]))[1]
    assert line["windows"][1]["error"] == {"kind": "clip", "message": "it is damaged"}
    assert [row[:4] for row in line["answer"].split("\n")] == ["0:00", "0:04", "0:06"]


def test_a_record_without_any_window_fails(batch, monkeypatch) -> None:
    break_windows(monkeypatch, {0.0, 2.0, 4.0, 6.0})
    (line,) = batch([windowed(1)]).lines
    assert line["error"] == {"kind": "clip", "message": "it is damaged"}


def given_segments(monkeypatch: pytest.MonkeyPatch, rng: Random) -> dict[str, Segments]:
    """Answers of a search by its question, in place of one."""
    found: dict[str, Segments] = {}

    def search(
        _panda: Any, reader: Any, span: Span, question: str, *_: Any, **how: Any
    ) -> Segments:
        spans = cut_windows(span, 2.0, 1.0)
        windows = []
        for number, (window, _frames) in enumerate(reader.read(spans)):
            how["progress"](number, len(spans))
            windows.append(WindowScore(*window, rng.random()))
        segments = tuple(Segment(s, s + 0.25, rng.random()) for s in range(rng.randint(0, 5)))
        found[question] = Segments(segments, (*windows, WindowScore(6, 7, None, ClipError("x"))), 7)
        return found[question]

    monkeypatch.setattr(film_worker, "find_segments", search)
    return found


def test_segments_are_the_result_best_first_with_the_curve(batch, monkeypatch, walks) -> None:
    found = given_segments(monkeypatch, Random(3))
    names = ["Is it red?", "a star appears.", "Is it red?", "Is it blue?"]
    records = [ask(n, FILM, name, when=True) for n, name in enumerate(names)]
    lines = by_id(batch(records))
    assert [*found] == ["Is it red?", as_question("a star appears."), "Is it blue?"]
    assert [len(spans) for spans in walks] == [7]  # the frames are kept for the others
    for number, name in enumerate(names):
        line, wanted = lines[number], found[as_question(name)]
        assert line["question"] == name
        ranked = sorted(wanted.segments, key=lambda each: each.probability, reverse=True)
        assert [(s["start"], s["end"]) for s in line["segments"]] == [each[:2] for each in ranked]
        assert len(line["answer"].splitlines()) == len(ranked)
        *scored, failed = line["windows"]
        assert failed == {"start": 6, "end": 7, "error": {"kind": "clip", "message": "x"}}
        assert [w["probability"] for w in scored] == pytest.approx(
            [w.probability for w in wanted.windows[:-1]], abs=1e-6
        )


def test_options_of_a_search_are_used_and_ask_again(batch, monkeypatch) -> None:
    used: list[SegmentOptions] = []

    def search(*arguments: Any, **_: Any) -> Segments:
        used.append(arguments[4])
        return Segments((), (), 8.0)

    monkeypatch.setattr(film_worker, "find_segments", search)
    records = [ask(1, FILM, when=True), ask(2, FILM)]
    options = [SegmentOptions(), SegmentOptions(threshold=0.8), SegmentOptions(window=4)]
    answered = [batch(records, search=each).counters.answered for each in (*options, *options)]
    assert answered == [2, 1, 1, 0, 0, 0]
    assert used == options


def test_a_search_that_fails_is_the_error_of_its_records(batch, monkeypatch) -> None:
    def search(
        _panda: Any, _reader: Any, _span: Span, question: str, *_: Any, **__: Any
    ) -> Segments:
        if "red" in question:
            raise ClipError("it is damaged")
        return Segments((), (), 7.0)

    monkeypatch.setattr(film_worker, "find_segments", search)
    ran = batch(
        [ask(n, FILM, f"Is it {c}?", when=True) for n, c in enumerate(["red", "blue", "red"])]
    )
    assert [n for n, line in sorted(by_id(ran).items()) if "error" in line] == [0, 2]
    assert by_id(ran)[1] | {"segments": [], "windows": [], "answer": ""} == by_id(ran)[1]


def test_frames_beyond_the_budget_are_read_again(batch, monkeypatch, walks) -> None:
    monkeypatch.setattr(film_worker, "_KEPT_BYTES", 1)
    given_segments(monkeypatch, Random(4))
    batch([ask(n, FILM, f"Is it {n}?", when=True) for n in range(2)])
    assert [len(spans) for spans in walks] == [7, 7]


@pytest.mark.parametrize("view", ["blind", "mirror"])
def test_windows_are_shown_in_a_view(batch, panda, film, view) -> None:
    (line,) = batch([windowed(1)], view=view).lines
    assert line[view] is True
    for window in line["windows"]:
        frames = sample_frames(Clip(film, window["start"], window["end"]))
        pixels = film_worker.viewed(frames, view).pixels
        wanted = panda.open(replace(frames, pixels=pixels)).ask("Why?", max_tokens=6).text
        assert window["answer"] == wanted


def test_sampled_answers_differ_between_repeats_but_not_with_a_seed(batch) -> None:
    records = [windowed(n, **{"from": 5}) for n in range(2)]
    free = batch(records, temperature=9.0, max_tokens=12).answers
    records = [record | {"seeded": True} for record in records]
    seeded = batch(records, temperature=9.0, max_tokens=12, seed=3).lines[2:]
    assert free[0] != free[1]
    assert len({line["answer"] for line in seeded}) == 1


def test_a_stopped_run_is_resumed_film_by_film(
    clips, checkpoint, panda, tmp_path, walks, read_clips, monkeypatch
) -> None:
    given_segments(monkeypatch, Random(1))
    questions = tmp_path / "q.jsonl"
    records = [windowed(n, f"Why {n}?", every=every) for n, every in enumerate([2, 4, 2, 4])]
    records += [ask(4, FILM, "Is it red?", when=True), ask(5, FILM)]
    questions.write_bytes(b"".join(map(as_line, records)))
    job = Job(str(questions), settings_of(checkpoint), video_dir=clips)
    seen: list[int] = []
    for _ in range(len(records) + 1):
        with Batch(job) as opened:
            run = opened.plan()
            outcome = next(run.outcomes(lambda: panda), None)  # the rest is dropped, as by a kill
            seen += [outcome.line] if outcome else []
    assert sorted(seen) == [1, 2, 3, 4, 5, 6]
    assert len(read_clips) == 1
    # a film again for each of its questions
    assert sorted(len(windows) for windows in walks) == [2, 2, 4, 4, 7]
    lines = [json.loads(line) for line in (tmp_path / "q.answers.jsonl").read_bytes().splitlines()]
    assert len({line["digest"] for line in lines}) == len(lines) == 6


@pytest.mark.usefixtures("walks", "read_clips")
def test_no_window_is_begun_once_a_run_is_stopped(
    clips, checkpoint, panda, tmp_path, monkeypatch
) -> None:
    questions = tmp_path / "q.jsonl"
    looks = [{"every": 0.25}, {"when": True}]
    questions.write_bytes(b"".join(as_line(ask(n, FILM, **look)) for n, look in enumerate(looks)))
    job = Job(str(questions), settings_of(checkpoint), video_dir=clips)
    read = runner.FilmReader.read
    with Batch(job) as opened:
        run, begun = opened.plan(), []

        def reading(self: Any, spans: Any) -> Any:
            for number, window in enumerate(read(self, spans)):
                begun.append(number)
                run.stopped.set()
                yield window

        monkeypatch.setattr(runner.FilmReader, "read", reading)
        assert list(run.outcomes(lambda: panda)) == []
    assert len(begun) <= windows.windows_at_once(panda) < 8 / 0.25
    assert (run.counters.left, run.counters.clips_done, run.in_flight()) == (2, 0, 0)
