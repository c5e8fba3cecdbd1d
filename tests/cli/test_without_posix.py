"""`panda` starts and answers without the functions that Windows does not have."""

import json
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import ROOT, _runner

SCRIPT = Path(__file__).with_name("without_posix.py")
DEMO = ROOT / "pandacli/assets/demo.mp4"
TINY = ("--model", "tiny", "--device", "cpu", "--max-tokens", "16")


@pytest.fixture
def panda(environment, home):
    return _runner([sys.executable, str(SCRIPT)], environment, home)


def test_help_is_shown(panda):
    assert panda("--help").returncode == 0


def test_question_is_answered(panda):
    done = panda("ask", str(DEMO), "What happens?", *TINY, "--quiet")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.strip()


def test_batch_is_answered_and_resumed(panda, home):
    questions = [{"video": str(DEMO), "question": text} for text in ("Why?", "What?")]
    (home / "q.jsonl").write_text("".join(json.dumps(record) + "\n" for record in questions))
    assert panda("batch", "q.jsonl", *TINY).returncode == 0
    assert len((home / "q.answers.jsonl").read_text().splitlines()) == 2
    assert b"answered already" in panda("batch", "q.jsonl", *TINY).stderr
