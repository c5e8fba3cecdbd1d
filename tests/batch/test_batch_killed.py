"""Batches killed with SIGKILL and resumed: every question is answered once."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.batch import killed_batches

ROOT = Path(__file__).parents[2]
QUESTIONS = [
    {"id": n, "video": ("wide.avi", "tall.avi", "odd.avi")[n % 3], "question": f"Why {n}?"}
    for n in range(120)
]
QUESTIONS += [
    {"id": 120 + n, "video": video, "question": "Why?", "every": 0.5}
    for n, video in enumerate(("wide.avi", "tall.avi", "wide.avi"))
]


def kill(times: int, clips: Path, checkpoint: Path, folder: Path) -> dict[str, Any]:
    """Kills batches so many times; returns the report of the script."""
    questions = folder / "q.jsonl"
    questions.write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS))
    files = [str(path) for path in (clips, checkpoint, questions, folder / "answers.jsonl")]
    done = subprocess.run(
        [sys.executable, killed_batches.__file__, *files, str(times)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The lines of a file sorted by id, without their times."""
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    timeless = [{name: line[name] for name in line if name != "seconds"} for line in lines]
    return sorted(timeless, key=lambda line: line["id"])


@pytest.mark.parametrize("kills", [3, pytest.param(100, marks=pytest.mark.slow)])
def test_resumes_after_sigkill(kills, clips, checkpoint, tmp_path) -> None:
    report = kill(kills, clips, checkpoint, tmp_path)
    assert len(report["killed_at"]) == kills
    unbroken, *others = [lines_of(tmp_path / f"answers.jsonl.{n}") for n in range(report["rounds"])]
    assert [line["id"] for line in unbroken] == list(range(len(QUESTIONS)))
    assert others
    assert all(lines == unbroken for lines in others)
    assert report["orphans"] == 0
    assert kills < 100 or len(set(report["killed_at"])) > 4, "killed before any line was written"
