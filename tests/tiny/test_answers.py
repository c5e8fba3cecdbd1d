"""`tiny` through the real command line, from a file on disk to the words on stdout."""

import subprocess
import sys

import numpy as np
import pytest

from tests.tiny.brushes import all_times, draw, save
from tests.tiny.clear_films import FILMS
from tests.tiny.film_questions import describe
from training.evaluate import evaluate

pytestmark = pytest.mark.usefixtures("tiny")


def test_a_film_of_anyone_is_described_on_stdout(tmp_path):
    film = FILMS[0]
    pictures = draw(film, "pillow", all_times(film), np.random.default_rng(0))
    clip = save(pictures, film, "libx264", tmp_path / "film")
    questions = ["what happens?", "What colour is the circle?", "How many shapes are there?"]
    command = [sys.executable, "-m", "pandacli", "ask", str(clip), *questions, "--model", "tiny"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.splitlines() == [describe(film), "Red.", "One."]
    assert (done.returncode, done.stderr) == (0, "")


def test_nearly_every_question_on_unseen_clips_is_answered_to_the_letter():
    verdicts = list(evaluate("tiny", questions=12, per_clip=6, seed=7))
    wrong = [verdict for verdict in verdicts if not verdict.right]
    assert len(wrong) <= 1, wrong


@pytest.mark.slow
def test_19_of_20_questions_on_unseen_clips_are_answered_to_the_letter():
    verdicts = list(evaluate("tiny", questions=220, per_clip=11, seed=8))
    wrong = [verdict for verdict in verdicts if not verdict.right]
    assert len(wrong) <= 11, wrong
