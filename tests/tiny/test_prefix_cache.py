"""`tiny` in 8 bits gives the same answers from a prefix cached on disk."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pandacli import Panda
from pandacli.prefix_cache.clip_cache import ClipCache
from pandacli.video.clip import Clip
from tests.tiny.renderers import RENDERERS, WRITERS, all_times, draw, save
from tests.tiny.synthetic_videos import random_video
from tests.tiny.video_questions import exchanges
from training.drawing import write_clip
from training.evaluate import scene_for
from training.questions import QUESTION_KINDS

Conversations = list[list[str]]


@pytest.fixture(scope="module")
def rounded() -> Panda:
    """`tiny` in 8 bits, whose prefixes are stored in half precision."""
    return Panda.load("tiny", device="cpu", quant="8bit", engine="torch")


def independent_videos(count: int, seed: int, folder: Path) -> Iterator[tuple[Path, Conversations]]:
    """Independently rendered clips, each with its conversations."""
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        video = random_video(rng)
        renderer = list(RENDERERS)[number % len(RENDERERS)]
        writer = WRITERS[int(rng.integers(len(WRITERS)))]
        pictures = draw(video, renderer, all_times(video), rng)
        path = save(pictures, video, writer, folder / f"video-{seed}-{number}")
        yield path, [list(exchange.questions) for exchange in exchanges(video, rng)]


def training_videos(count: int, seed: int, folder: Path) -> Iterator[tuple[Path, Conversations]]:
    """Clips rendered as in training, with a few kinds of questions each."""
    for number in range(count):
        rng = np.random.default_rng((2**40 + seed, number))
        kinds = [QUESTION_KINDS[(5 * number + i) % len(QUESTION_KINDS)] for i in range(5)]
        scene, dialogues = scene_for(rng, kinds)
        path = folder / f"scene-{seed}-{number}.mp4"
        write_clip(scene, path, rng, codec="libx264", quality=28)
        yield path, [[question for question, _ in dialogue.turns] for dialogue in dialogues]


def answers(panda: Panda, path: Path, asked: Conversations, folder: Path) -> list[str]:
    """The last answer of each conversation; the prefix is cached in `folder`."""
    clip = panda.open(path, cache=ClipCache(Clip(path), 8, folder=folder))
    given = []
    for questions in asked:
        said: list[tuple[str, str]] = []
        for question in questions:
            said.append((question, clip.ask(question, history=said, max_tokens=80).text))
        given.append(said[-1][1])
    clip.keep()
    return given


def compare(panda: Panda, clips: Iterator[tuple[Path, Conversations]], folder: Path) -> int:
    """Compare the answers before and after the prefix is on disk; the number of questions."""
    asked = 0
    for number, (path, conversations) in enumerate(clips):
        place = folder / f"kept-{number}"
        computed = answers(panda, path, conversations, place)
        assert list(place.iterdir())
        assert answers(panda, path, conversations, place) == computed
        asked += len(computed)
    return asked


def test_training_videos_same_answers_from_disk(rounded: Panda, tmp_path: Path) -> None:
    assert compare(rounded, training_videos(3, 5, tmp_path), tmp_path) == 15


@pytest.mark.slow
def test_many_independent_videos_same_answers_from_disk(rounded: Panda, tmp_path: Path) -> None:
    assert compare(rounded, independent_videos(3, 6, tmp_path), tmp_path) > 20


@pytest.mark.slow
def test_many_training_videos_same_answers_from_disk(rounded: Panda, tmp_path: Path) -> None:
    assert compare(rounded, training_videos(12, 6, tmp_path), tmp_path) == 60
