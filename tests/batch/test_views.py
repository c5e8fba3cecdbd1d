"""Runs that show the model something else than the frames: gray ones, or mirrored ones."""

import json
from pathlib import Path
from threading import Event
from typing import Any

import cv2
import numpy as np
import pytest

from pandacli import Panda
from pandacli.batch.clip_worker import VIEWS, ClipWorker, Settings
from pandacli.batch.job import Batch, Job, choose_paths
from pandacli.batch.ray import RayWorker
from pandacli.batch.records import Question, Record
from pandacli.inference.spec import RunSpec
from pandacli.prefix_cache.clip_cache import ClipCache
from pandacli.prefix_cache.store import PrefixStore
from pandacli.video import Clip, Frames, sample_frames
from tests.batch.conftest import ask, settings_of
from tests.tiny.clear_videos import video
from tests.tiny.renderers import all_times, draw, save
from tests.tiny.synthetic_videos import Actor

HOW = ("likelihood", "generate")
CHOICES = {"choices": ["a circle", "a star", "none"]}
DESCRIBE = "What happens?"


@pytest.fixture(scope="module")
def tiny() -> Panda:
    return Panda.load("tiny", device="cpu", quant="none", engine="torch")


@pytest.fixture(scope="module")
def moving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A red circle that moves right, in a file."""
    actor = Actor("red", "circle", "right", (0.2, 0.5), (0.8, 0.5), (0.16, 0.16))
    drawn = video(actor, "black")
    pictures = draw(drawn, "pillow smooth", all_times(drawn), np.random.default_rng(0))
    return save(pictures, drawn, "libx264", tmp_path_factory.mktemp("moving") / "right")


def noise(path: Path, seed: int) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 8, (64, 48))
    for _ in range(16):
        writer.write(np.random.default_rng(seed).integers(0, 256, (48, 64, 3), np.uint8))
    writer.release()
    return path


def results(wanted: Job, panda: Panda) -> list[dict[str, Any]]:
    with Batch(wanted) as opened:
        return [outcome.written for outcome in opened.plan().outcomes(lambda: panda)]


@pytest.mark.parametrize("shown", VIEWS)
def test_only_the_pixels_change(panda, clips, monkeypatch, shown) -> None:
    seen: list[Frames] = []
    opened = Panda.open
    monkeypatch.setattr(Panda, "open", lambda p, f, **how: (seen.append(f), opened(p, f, **how))[1])
    frames = sample_frames(Clip(clips / "tall.avi"), 8)
    group = [Question(Record(1, {}, "tall.avi", "Why?"), 1)]
    list(ClipWorker(panda, settings_of(view=shown), group, Event()).results(frames))
    [given] = seen
    assert given.pixels.shape == frames.pixels.shape
    assert (given.indices, given.times, given.info) == (frames.indices, frames.times, frames.info)
    wanted = np.full_like(frames.pixels, 128) if shown == "blind" else np.flip(frames.pixels, 2)
    assert np.array_equal(given.pixels, wanted)


@pytest.mark.parametrize("choose", HOW)
def test_blind_answers_do_not_depend_on_the_pixels(batch, tmp_path, choose) -> None:
    clips = [str(noise(tmp_path / f"{seed}.avi", seed)) for seed in (1, 2)]
    asked = [
        ask(f"{n} {clip}", clip, **more) for n, more in enumerate((CHOICES, {})) for clip in clips
    ]

    def given(view: str | None) -> list[list[Any]]:
        lines = sorted(batch(asked, view=view, choose=choose).lines, key=lambda line: line["id"])
        kept = ("answer", "choices", "coverage", "reply")
        found = [[line.get(name) for name in kept] for line in lines]
        return [found[0::2], found[1::2]]

    blind, seeing = given("blind"), given(None)
    assert blind[0] == blind[1]
    assert seeing[0] != seeing[1]


@pytest.mark.parametrize("choose", HOW)
def test_results_say_how_the_clip_was_shown(batch, choose) -> None:
    records = [ask(1), ask(2, **CHOICES), ask(3, "gone.avi")]
    for view in (None, *VIEWS):
        lines = batch(records, view=view, choose=choose).lines
        shown = [[name for name in VIEWS if line.get(name) is True] for line in lines]
        assert sorted(shown) == sorted([[], [view], [view]] if view else [[], [], []])


def test_field_of_the_questions_is_not_taken_for_the_view(batch) -> None:
    [line] = batch([ask(1, blind=True, mirror="old")]).lines
    assert not set(VIEWS) & line.keys()
    assert line["given"] == {"blind": True, "mirror": "old"}


def test_no_view_resumes_another(batch, tmp_path) -> None:
    output = str(tmp_path / "all.jsonl")
    for number, view in enumerate((None, "blind", "mirror")):
        ran = batch([ask(1), ask(2, **CHOICES)], view=view, output=output)
        assert (ran.counters.earlier, ran.counters.answered) == (0, 2)
        assert len(ran.lines) == 2 * (number + 1)
    for view in (None, "blind", "mirror"):
        assert batch([ask(1), ask(2, **CHOICES)], view=view, output=output).counters.earlier == 2


def test_views_go_to_files_of_their_own() -> None:
    paths = [choose_paths(None, "q.jsonl", "csv", (1, 2), view) for view in (None, *VIEWS)]
    assert [tuple(map(str, pair)) for pair in paths] == [
        (f"q.answers{part}.1-of-2.csv", f"q.answers{part}.1-of-2.jsonl")
        for part in ("", ".blind", ".mirror")
    ]
    assert choose_paths("a.jsonl", "q.jsonl", "jsonl", (1, 1), "blind")[0] == Path("a.jsonl")


def test_shards_have_the_answers_of_the_whole(batch) -> None:
    records = [ask(n, name) for n, name in enumerate(("wide.avi", "tall.avi", "odd.avi"))]
    whole = batch(records, view="mirror").answers
    parts = [batch(records, view="mirror", shard=(part, 2)).answers for part in (1, 2)]
    assert parts[0] | parts[1] == whole


@pytest.fixture
def asked(tmp_path: Path, moving: Path) -> Path:
    path = tmp_path / "q.jsonl"
    records = [ask(1, str(moving), DESCRIBE)]
    records.append(ask(2, str(moving), "Which way does it move?", choices=["Left.", "Right."]))
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def tiny_answers(tiny: Panda, asked: Path, view: str | None, choose: str) -> dict[int, str]:
    settings = Settings(RunSpec("tiny", "none", "torch", "cpu"), choose=choose, view=view)
    output = str(asked.with_name(f"{view}-{choose}.jsonl"))
    return {line["id"]: line["answer"] for line in results(Job(str(asked), settings, output), tiny)}


@pytest.mark.parametrize("choose", HOW)
def test_tiny_sees_right_as_left_in_a_mirrored_clip(tiny, asked, choose) -> None:
    plain = tiny_answers(tiny, asked, None, choose)
    mirrored = tiny_answers(tiny, asked, "mirror", choose)
    assert plain[1] == "A red circle moves right."
    assert mirrored[1] == "A red circle moves left."
    assert (plain[2], mirrored[2]) == ("Right.", "Left.")


def test_cached_prefix_of_the_clip_is_neither_read_nor_written(tiny, asked, moving) -> None:
    cache = ClipCache(Clip(moving), 8)
    session = tiny.open(Clip(moving), cache=cache)
    alone = session.ask(DESCRIBE).text
    session.keep()
    before = [entry.folder for entry in PrefixStore().entries()]
    assert not cache.is_empty
    answers = [tiny_answers(tiny, asked, view, "likelihood")[1] for view in ("blind", None)]
    assert answers[0] != alone == answers[1]
    assert [entry.folder for entry in PrefixStore().entries()] == before
    again = tiny.open(Clip(moving), cache=ClipCache(Clip(moving), 8))
    assert not len(again.frames.pixels), "it did not come from the cache"
    assert again.ask(DESCRIBE).text == alone


def test_ray_worker_mirrors_too(moving) -> None:
    settings = Settings(RunSpec("tiny", "none", "torch", "cpu"), view="mirror")
    worker = RayWorker(settings, moving.parent, 168, "tiny", None, 1)
    with worker._prefetcher:
        answered = worker.answer([Question(Record(1, {}, moving.name, DESCRIBE), 1)])
    assert isinstance(answered, tuple)
    [(_, line)] = answered[0]
    assert (line["answer"], line["mirror"]) == ("A red circle moves left.", True)
