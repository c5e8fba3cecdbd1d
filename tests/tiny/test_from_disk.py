"""What `tiny` in 8 bits has seen of a clip, it says the same of from the disk."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pandacli import Panda
from pandacli.prefix_cache.clip import ClipPrefixes
from pandacli.video.clip import Clip
from tests.tiny.brushes import BRUSHES, WRITERS, all_times, draw, save
from tests.tiny.film_questions import exchanges
from tests.tiny.films import random_film
from training.drawing import write_clip
from training.evaluate import scene_for
from training.questions import QUESTION_KINDS

Conversations = list[list[str]]


@pytest.fixture(scope="module")
def rounded() -> Panda:
    """`tiny` in 8 bits, whose prefixes are rounded to half precision."""
    return Panda.load("tiny", device="cpu", quant="8bit", engine="torch")


def films_of_another_hand(
    count: int, seed: int, folder: Path
) -> Iterator[tuple[Path, Conversations]]:
    """Clips, and what is asked about each."""
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        film = random_film(rng)
        brush = list(BRUSHES)[number % len(BRUSHES)]
        writer = WRITERS[int(rng.integers(len(WRITERS)))]
        pictures = draw(film, brush, all_times(film), rng)
        path = save(pictures, film, writer, folder / f"film-{seed}-{number}")
        yield path, [list(exchange.questions) for exchange in exchanges(film, rng)]


def films_as_in_training(
    count: int, seed: int, folder: Path
) -> Iterator[tuple[Path, Conversations]]:
    """Clips, and a question of each kind about them, a few a clip."""
    for number in range(count):
        rng = np.random.default_rng((2**40 + seed, number))
        kinds = [QUESTION_KINDS[(5 * number + i) % len(QUESTION_KINDS)] for i in range(5)]
        scene, dialogues = scene_for(rng, kinds)
        path = folder / f"scene-{seed}-{number}.mp4"
        write_clip(scene, path, rng, codec="libx264", quality=28)
        yield path, [[question for question, _ in dialogue.turns] for dialogue in dialogues]


def answers(panda: Panda, path: Path, asked: Conversations, folder: Path) -> list[str]:
    """The answer that ends each conversation; the prefix is kept in, or comes from, a folder."""
    clip = panda.open(path, cache=ClipPrefixes(Clip(path), 8, folder=folder))
    given = []
    for questions in asked:
        said: list[tuple[str, str]] = []
        for question in questions:
            said.append((question, clip.ask(question, history=said, max_tokens=80).text))
        given.append(said[-1][1])
    clip.keep()
    return given


def compare(panda: Panda, clips: Iterator[tuple[Path, Conversations]], folder: Path) -> int:
    """Ask about each clip before and after its prefix is on the disk; how many times."""
    asked = 0
    for number, (path, conversations) in enumerate(clips):
        place = folder / f"kept-{number}"
        computed = answers(panda, path, conversations, place)
        assert list(place.iterdir())
        assert answers(panda, path, conversations, place) == computed
        asked += len(computed)
    return asked


def test_answers_about_films_as_in_training_are_the_same(rounded: Panda, tmp_path: Path) -> None:
    assert compare(rounded, films_as_in_training(3, 5, tmp_path), tmp_path) == 15


@pytest.mark.slow
def test_answers_about_many_films_of_another_hand_are_the_same(
    rounded: Panda, tmp_path: Path
) -> None:
    assert compare(rounded, films_of_another_hand(3, 6, tmp_path), tmp_path) > 20


@pytest.mark.slow
def test_answers_about_many_films_as_in_training_are_the_same(
    rounded: Panda, tmp_path: Path
) -> None:
    assert compare(rounded, films_as_in_training(12, 6, tmp_path), tmp_path) == 60
