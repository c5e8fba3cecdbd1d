"""A batch on simulated Ray workers: what the driver does, and what is said about it."""

import json
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from benchmarks import scale
from benchmarks.scale import QUESTIONS, SimulatedRay, drive, rows_of, simulated_ray
from pandacli.batch.clip_worker import Settings
from pandacli.batch.job import Batch, Job
from pandacli.inference.spec import RunSpec


class CountingRay(SimulatedRay):
    """Counts the calls of the driver, and how many chunks wait at once."""

    made: "CountingRay"

    def __init__(self, workers: int, seconds: float) -> None:
        super().__init__(workers, seconds)
        CountingRay.made = self
        self.sent: list[list[str]] = []  # the clips of each chunk
        self.waits = self.most = 0

    def submit(self, end: float, questions: bytes) -> scale.Call:
        if questions:
            self.sent.append([q.record.video for q in pickle.loads(questions)])
            self.most = max(self.most, len(self.sent) - self.chunks)
        return super().submit(end, questions)

    def wait(self, calls: list[scale.Call], timeout: float) -> tuple[list[scale.Call], list[Any]]:
        self.waits += 1
        return super().wait(calls, timeout)


def test_each_clip_is_sent_once_and_at_most_two_wait_at_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scale, "SimulatedRay", CountingRay)
    drive(tmp_path, clips=60, workers=4, seconds=0.01)
    ray = CountingRay.made
    clips = [f"clips/{number:08}.mp4" for number in range(60)]
    assert sorted(ray.sent) == [[clip] * QUESTIONS for clip in clips]
    assert ray.most == 2 * 4
    assert ray.waits <= 4 + 60 + 5  # one for each call that ends, and few that see none end


def test_every_record_has_a_line_with_its_own_answer(tmp_path: Path) -> None:
    questions, answers = tmp_path / "q.jsonl", tmp_path / "a.jsonl"
    asked = [{"id": n, "video": f"{n % 7}.mp4", "question": f"What is {n}?"} for n in range(70)]
    questions.write_text("".join(json.dumps(each) + "\n" for each in asked))
    settings = Settings(RunSpec("tiny", device="cpu"))
    where = {"output": str(answers), "ray": True, "address": "auto", "workers": 3}
    with simulated_ray(3, 0.0), Batch(Job(str(questions), settings, **where)) as batch:
        assert len(list(batch.plan().outcomes(scale._no_model))) == 70
        batch.finish(print)
    lines = [json.loads(line) for line in answers.read_text().splitlines()]
    assert {(line["id"], line["question"]) for line in lines} == {
        (each["id"], each["question"]) for each in asked
    }
    assert {line["answer"] for line in lines} == {scale.ANSWER}


def test_workers_that_wait_for_the_driver_are_not_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = drive(tmp_path, clips=40, workers=2, seconds=0.02)
    get = SimulatedRay.get

    def slowly(self: SimulatedRay, call: scale.Call) -> Any:
        scale.sleep(0.05)
        return get(self, call)

    monkeypatch.setattr(SimulatedRay, "get", slowly)
    held_up = drive(tmp_path, clips=40, workers=2, seconds=0.02)
    assert held_up.busy < at_once.busy <= 1


def test_the_driver_keeps_few_bytes_of_each_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []

    def peak(clips: int) -> int:
        tracemalloc.start()
        drive(tmp_path, clips, workers=1, seconds=0.0)
        held.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        return held[-1]

    monkeypatch.setattr("pandacli.batch.records.SPOOL_BYTES", 1 << 12)  # records are on the disk
    peak(10)  # what is imported and cached once
    few, many = peak(200), peak(1000)
    assert (many - few) / (800 * QUESTIONS) < 300


def found(**driver: Any) -> dict[str, Any]:
    usual = {"records": 1000, "cpu_seconds": 1.0, "memory": [50 << 20, 50 << 20]}
    return {
        "driver": usual | driver,
        "answer_seconds": 0.2,
        "fed": [{"workers": 10, "busy": 0.5}],
        "ray_cpu_seconds": 0.002,
        "frames_cpu_seconds": {"1080p": 2.0},
    }


def test_rows_have_the_goals_and_say_what_is_held_up() -> None:
    cost, memory, fed, ray, frames = rows_of(found(cpu_seconds=4.0))
    assert (cost.ours, cost.ratio, cost.goal) == (4.0, 0.5, 1.0)
    assert (memory.ours, memory.ratio) == (50, 1.0)
    assert (fed.ours, fed.theirs, fed.ratio) == (25, 50, 0.5)
    assert (ray.ours, ray.theirs) == (pytest.approx(5 * 4 + 2), 2)
    assert frames.ratio == pytest.approx(0.1)


def test_frames_are_read_from_a_clip_of_the_size(tmp_path: Path) -> None:
    assert scale.frame_seconds(tmp_path, (64, 48), 1, 1) > 0
    assert [path.name for path in tmp_path.iterdir()] == ["48p.mp4"]
