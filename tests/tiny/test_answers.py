"""`tiny` through the command line, from a file on disk to stdout."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pandacli.evaluation.job import Job, run
from tests.tiny.clear_videos import VIDEOS
from tests.tiny.renderers import all_times, draw, save
from tests.tiny.video_questions import describe
from training.evaluate import answer, render
from training.questions import QUESTION_KINDS

pytestmark = pytest.mark.usefixtures("tiny")


def test_independent_video_is_described_on_stdout(tmp_path):
    video = VIDEOS[0]
    pictures = draw(video, "pillow", all_times(video), np.random.default_rng(0))
    clip = save(pictures, video, "libx264", tmp_path / "video")
    questions = ["what happens?", "What colour is the circle?", "How many shapes are there?"]
    command = [sys.executable, "-m", "pandacli", "ask", str(clip), *questions, "--model", "tiny"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.splitlines() == [describe(video), "Red.", "One."]
    assert (done.returncode, done.stderr) == (0, "")


def wrong_answers(questions: int, per_clip: int, seed: int, folder: Path) -> int:
    """How many questions on held-out clips `tiny` answers wrongly."""
    answers = answer("tiny", list(render(folder, questions, per_clip, seed)), folder)
    (scored,) = run(Job((answers,)))["files"]
    measured = scored["measures"]["exact match"]
    assert measured["count"] == questions == scored["answered"]
    assert set(scored["by_type"]) == set(QUESTION_KINDS)
    return round(questions * (1 - measured["mean"]))


def test_unseen_clips_get_at_most_one_wrong_answer(tmp_path):
    assert wrong_answers(12, per_clip=6, seed=7, folder=tmp_path) <= 1


@pytest.mark.slow
def test_unseen_clips_get_95_percent_exact_answers(tmp_path):
    assert wrong_answers(220, per_clip=11, seed=8, folder=tmp_path) <= 11
