"""Questions about one clip, answered together exactly as one by one."""

from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from pandacli import Panda
from pandacli.batch import clip_worker
from pandacli.batch.clip_worker import ClipWorker
from pandacli.batch.records import Question, Record
from pandacli.errors import DeviceError
from pandacli.inference import Request
from pandacli.inference.session import VideoSession
from pandacli.video import Clip, Frames, sample_frames
from tests.batch.conftest import settings_of

QUESTIONS = [
    "What happens?",
    "Is there a circle?",
    "What colour is the star, and does it move to the left or to the right?",
    "Why?",
    "",  # refused only when questions are read
    "How many shapes are there?",
    "Does the blue square grow",
]


@pytest.fixture(scope="module")
def frames(clips: Path) -> Frames:
    return sample_frames(Clip(clips / "wide.avi"), 8)


def records(*questions: str, **more: Any) -> list[Question]:
    return [
        Question(Record(n, {"id": n}, "wide.avi", question, **more), n)
        for n, question in enumerate(questions, 1)
    ]


@pytest.fixture
def lines(panda: Panda, frames: Frames) -> Callable[..., dict[int, dict[str, Any]]]:
    """Answers records; returns the line of each by its digest."""

    def answered(group: Any, **settings: Any) -> dict[int, dict[str, Any]]:
        how = settings_of(**settings)
        asked = ClipWorker(panda, how, group, Event())
        done = [(question.digest, line) for question, line in asked.results(frames)]
        assert len(dict(done)) == len(done)
        return dict(done)

    return answered


@pytest.fixture
def asks(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """The requests that reach the session."""
    seen: list[Request] = []
    generate = VideoSession.generate

    def recording(clip: VideoSession, asks: Any, **how: Any) -> Any:
        def recorded() -> Iterator[Request]:
            for ask in asks:
                seen.append(ask)
                yield ask

        return generate(clip, recorded(), **how)

    monkeypatch.setattr(VideoSession, "generate", recording)
    return seen


@pytest.mark.parametrize("batch_size", [1, 3, None])
def test_answers_equal_single_questions(lines, panda, frames, batch_size) -> None:
    clip = panda.open(frames)
    alone = [clip.ask(question, max_tokens=24) for question in QUESTIONS]
    answered = lines(records(*QUESTIONS), max_tokens=24, batch_size=batch_size)
    assert [answered[n]["answer"] for n in range(1, 8)] == [answer.text for answer in alone]
    assert len({answer.text for answer in alone}) > 3


def test_record_overrides_the_system_prompt(lines, panda, frames) -> None:
    kind, rude = records("Why?", system="Be kind.")[0], records("Why?", "Why?", system="Be rude.")
    answered = lines([kind, rude[1], *records("", "", "Why?")[2:]])
    clip = panda.open(frames)
    for number, system in ((1, "Be kind."), (2, "Be rude."), (3, None)):
        alone = clip.with_system(system).ask("Why?", max_tokens=6)
        assert answered[number]["answer"] == alone.text


def test_empty_system_prompt_overrides_that_of_the_run(lines, panda, frames) -> None:
    answered = lines(records("Why?", system=""), system="Be kind.")
    alone = panda.open(frames).with_system("").ask("Why?", max_tokens=6)
    assert answered[1]["answer"] == alone.text


def test_record_overrides_the_token_limit(lines) -> None:
    answered = lines([*records("Why?", max_tokens=2), *records("Why?", "Why?")[1:]])
    assert [(answered[n]["tokens"], answered[n]["finish_reason"]) for n in (1, 2)] == [
        (2, "length"),
        (6, "length"),
    ]


def test_repeated_question_is_answered_once_with_a_line_each(lines, asks) -> None:
    answered = lines(records("Why?", "What?", "Why?", "Why?"))
    assert [ask.question for ask in asks] == ["Why?", "What?"]
    assert answered[1]["answer"] == answered[3]["answer"] == answered[4]["answer"]
    assert [answered[n]["id"] for n in range(1, 5)] == [1, 2, 3, 4]


def test_later_repeats_get_the_cached_answer(lines, asks) -> None:
    answered = lines(records("Why?", "What?", "Why?"), batch_size=1)
    assert [ask.question for ask in asks] == ["Why?", "What?"]
    assert answered[3]["answer"] == answered[1]["answer"]


def test_pending_repeats_are_bounded(panda, frames, asks, monkeypatch) -> None:
    monkeypatch.setattr(clip_worker, "_MAX_REPEATS", 5)
    drawn = 0

    class Group:
        def __iter__(self) -> Iterator[Question]:
            nonlocal drawn
            drawn = 0
            for question in records(*["Why?", "What?"] * 20):
                drawn += 1
                yield question

    done = []
    asked = ClipWorker(panda, settings_of(), Group(), Event())
    for question, _ in asked.results(frames):
        done.append(question.digest)
        assert drawn - len(done) < 7
    assert sorted(done) == list(range(1, 41))
    assert len(asks) == 2


def test_sampled_repeats_are_sampled_separately(lines, asks) -> None:
    lines(records("Why?", "Why?"), temperature=1.0)
    assert len(asks) == 2


def test_seeded_repeats_are_sampled_once(lines, asks, panda, frames) -> None:
    answered = lines(records("Why?", "Why?"), temperature=1.0, seed=4)
    alone = panda.open(frames).ask("Why?", max_tokens=6, temperature=1.0, seed=4)
    assert len(asks) == 1
    assert answered[2]["answer"] == alone.text


def test_too_long_question_fails_alone(lines) -> None:
    answered = lines(records("Why?", "why " * 4000, "What?"))
    assert answered[2]["error"]["kind"] == "question"
    assert answered[2]["line"] == 2
    assert answered[1]["answer"]
    assert answered[3]["answer"]


def test_too_long_system_prompt_fails_its_questions(lines) -> None:
    long = records("Why?", "What?", system="be " * 4000)
    answered = lines([*long, *records("", "", "Why?")[2:]])
    assert [answered[n].get("error", {}).get("kind") for n in (1, 2, 3)] == ["question"] * 2 + [
        None
    ]


def test_out_of_memory_on_a_clip_fails_its_questions(lines, monkeypatch) -> None:
    def too_large(*_: Any, **__: Any) -> None:
        raise DeviceError("out of memory", "use fewer --frames")

    monkeypatch.setattr(VideoSession, "prepare", too_large)
    answered = lines(records("Why?", "What?"))
    error = {"kind": "memory", "message": "out of memory; use fewer --frames"}
    assert [line["error"] for line in answered.values()] == [error, error]


def test_stop_finishes_questions_in_flight_only(panda, frames, asks) -> None:
    stopped = Event()
    settings = settings_of(batch_size=2)
    asked = ClipWorker(panda, settings, records(*QUESTIONS[:4]), stopped)
    done = []
    for question, _ in asked.results(frames):
        assert asked.in_flight() == 2 - len(done), "in flight until its line is written"
        done.append(question.digest)
        stopped.set()
    assert done == [1, 2]
    assert len(asks) == 2


def test_stopped_worker_starts_no_question(panda, frames, asks) -> None:
    stopped = Event()
    stopped.set()
    asked = ClipWorker(panda, settings_of(), records("Why?"), stopped)
    assert list(asked.results(frames)) == []
    assert asks == []
