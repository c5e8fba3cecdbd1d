"""`tiny` through the command line, from a file on disk to stdout."""

import subprocess
import sys

import numpy as np
import pytest

from tests.tiny.clear_videos import VIDEOS
from tests.tiny.renderers import all_times, draw, save
from tests.tiny.video_questions import describe
from training.evaluate import evaluate

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


def test_unseen_clips_get_at_most_one_wrong_answer():
    verdicts = list(evaluate("tiny", questions=12, per_clip=6, seed=7))
    wrong = [verdict for verdict in verdicts if not verdict.right]
    assert len(wrong) <= 1, wrong


@pytest.mark.slow
def test_unseen_clips_get_95_percent_exact_answers():
    verdicts = list(evaluate("tiny", questions=220, per_clip=11, seed=8))
    wrong = [verdict for verdict in verdicts if not verdict.right]
    assert len(wrong) <= 11, wrong
