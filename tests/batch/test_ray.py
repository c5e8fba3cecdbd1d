"""Batches on a Ray cluster of this machine, with two workers, compared with batches without."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import psutil
import pytest

from pandacli import Panda
from pandacli.batch.clip_worker import Settings
from pandacli.batch.job import Batch, Job
from pandacli.batch.ray import Chunk, Placement, RayWorker, chunks, connect, place
from pandacli.batch.readers.questions import read_questions
from pandacli.batch.records import Index, Question, Record
from pandacli.batch.results import Outcome
from pandacli.errors import DeviceError, PandaError, UsageError
from pandacli.inference.planning.planner import resolve_run
from pandacli.inference.spec import GenerationOptions, RunSpec

pytestmark = pytest.mark.filterwarnings(r"ignore::Warning:ray\..*")

DEMO = Path(__file__).parents[2] / "pandacli/assets/demo.mp4"
TEXTS = ("What happens?", "Is there a circle?", "What colour is it?")


# chunks


def cut(folder: Path, videos: str, size: int) -> list[Chunk]:
    """The chunks of a file of questions; each letter of `videos` is the video of one."""
    path = folder / "q.jsonl"
    entries = ({"video": video, "question": str(n)} for n, video in enumerate(videos))
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    with read_questions(path) as questions:
        return list(chunks(Index(questions.records, {}), size))


def asked(chunk: Chunk) -> str:
    return "".join(q.record.question for q in chunk.questions)


@pytest.mark.parametrize(
    ("videos", "size", "expected"),
    [
        ("abacb", 9, ["02", "14", "3"]),
        ("aaabaa", 2, ["01", "24", "5", "3"]),
        ("aaa", 3, ["012"]),
    ],
    ids=["one clip each", "a long clip is cut", "a clip that just fits is not"],
)
def test_cuts_clips_into_chunks(
    tmp_path: Path, videos: str, size: int, expected: list[str]
) -> None:
    assert [asked(chunk) for chunk in cut(tmp_path, videos, size)] == expected


def test_chunk_knows_how_many_its_clip_has(tmp_path: Path) -> None:
    found = [(chunk.clip, chunk.parts) for chunk in cut(tmp_path, "aaab", 2)]
    assert found == [(0, 2), (0, 2), (1, 1)]


# placement


def node(cpus: float, gpus: float = 0, *, alive: bool = True) -> dict[str, Any]:
    resources = {"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}
    return {"Alive": alive, "Resources": resources}


@pytest.mark.parametrize(
    ("nodes", "device", "workers", "expected"),
    [
        ([node(16, 4), node(16, 4)], "auto", None, Placement(8, "cuda", 0, 1, 4)),
        ([node(16, 4)], "cuda", 2, Placement(2, "cuda", 0, 1, 4)),
        ([node(8)], "auto", None, Placement(1, "cpu", 8, 0, 8)),
        ([node(8, 2)], "cpu", None, Placement(1, "cpu", 8, 0, 8)),
        ([node(8), node(8)], "cpu", None, Placement(2, "cpu", 8, 0, 8)),
        ([node(9)], "cpu", 2, Placement(2, "cpu", 4, 0, 4)),
        ([node(8), node(4)], "cpu", 2, Placement(2, "cpu", 4, 0, 4)),
        ([node(2)], "cpu", 5, Placement(5, "cpu", 0, 0, 1)),
        ([node(8), node(8, alive=False)], "cpu", None, Placement(1, "cpu", 8, 0, 8)),
    ],
    ids=[
        "one worker a GPU",
        "fewer workers leave GPUs free",
        "no GPUs",
        "cpu leaves GPUs free",
        "one worker a machine",
        "workers share the cores of a machine",
        "machines of different sizes",
        "more workers than cores",
        "a dead machine",
    ],
)
def test_places_workers(
    nodes: list[dict[str, Any]], device: str, workers: int | None, expected: Placement
) -> None:
    assert place(nodes, device, workers) == expected


def test_refuses_more_workers_than_gpus() -> None:
    with pytest.raises(DeviceError) as caught:
        place([node(16, 2)], "auto", 3)
    assert caught.value.hint == "use --workers 2"


def test_refuses_cuda_without_gpus() -> None:
    with pytest.raises(DeviceError, match="has no GPU"):
        place([node(8)], "cuda", None)


def test_refuses_gpu_by_number() -> None:
    with pytest.raises(UsageError, match="cuda:1 does not go with Ray"):
        place([node(8, 2)], "cuda:1", None)


# connections


def test_missing_ray_names_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError) as caught, connect(None):
        pass
    assert caught.value.hint == "install it with: pip install 'pandacli[ray]'"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:1", r"no Ray cluster at 127\.0\.0\.1:1: "),
        ("auto", "no Ray cluster runs here"),
    ],
)
def test_unreachable_cluster_is_a_device_error(address: str, message: str) -> None:
    pytest.importorskip("ray")
    with pytest.raises(DeviceError, match=message), connect(address):
        pass


# a worker, called without Ray

QUESTIONS: list[Question] = [Question(Record(1, {}, "none.mp4", "What?"), 1)]


def worker(model: str = "tiny", weights: str | None = None) -> RayWorker:
    import torch

    settings = Settings(RunSpec(model, "none", "torch", "cpu"))
    return RayWorker(settings, Path("/nowhere"), 448, "tiny", weights, torch.get_num_threads())


def test_worker_fails_chunk_without_video() -> None:
    started = worker()
    assert started.ready() == "none by torch"
    answered = started.answer(QUESTIONS)
    assert isinstance(answered, tuple)
    assert [(at, line["error"]["kind"]) for at, line in answered[0]] == [(0, "clip")]


def test_stopped_worker_answers_nothing() -> None:
    started = worker()
    started.stop()
    assert started.answer(QUESTIONS) == ([], {})


@pytest.mark.parametrize("stopped", [False, True])
def test_worker_looks_at_a_film_through_windows(*, stopped: bool) -> None:
    started = worker()
    if stopped:
        started.stop()
    records = [
        Record(1, {}, str(DEMO), "Is there a circle?", every=4.0),
        Record(2, {}, str(DEMO), "How many shapes are there?", every=4.0),
    ]
    answered = started.answer([Question(record, n) for n, record in enumerate(records)])
    assert isinstance(answered, tuple)
    found = {at: [each["answer"] for each in line["windows"]] for at, line in answered[0]}
    assert found == ({} if stopped else {0: ["Yes.", "Yes."], 1: ["Two.", "Three."]})


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"model": "/nowhere"}, "/nowhere"),
        ({"weights": "0" * 64}, "tiny on a worker has other weights than here"),
    ],
    ids=["missing", "another"],
)
def test_worker_without_the_model_is_not_ready(wrong: dict[str, str], says: str) -> None:
    error = worker(**wrong).ready()
    assert isinstance(error, PandaError)
    assert says in error.message


# runs


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """One cluster for this module, as it takes seconds to start."""
    pytest.importorskip("ray")
    with connect(None) as started:
        yield started


def job(folder: Path, clips: int, model: str = "tiny", *, ray: bool = True) -> Job:
    """A job with the same questions about several clips of the demo."""
    path = folder / "questions.jsonl"
    entries = [
        {"video": str(DEMO), "question": text, "from": clip / 4}
        for text in TEXTS
        for clip in range(clips)
    ]
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    settings = Settings(RunSpec(model, "none", "torch", "cpu"), GenerationOptions(max_tokens=24))
    name = "ray.jsonl" if ray else "local.jsonl"
    return Job(str(path), settings, str(folder / name), ray=ray, workers=2)


def run(wanted: Job) -> list[Outcome]:
    with Batch(wanted) as batch:
        return list(
            batch.plan().outcomes(lambda: Panda.from_plan(resolve_run(wanted.settings.spec)))
        )


def load() -> Panda:
    pytest.fail("the workers load the model")


def lines(wanted: Job) -> list[dict[str, Any]]:
    """The results, sorted, without their times."""
    found = [json.loads(line) for line in Path(str(wanted.output)).read_text().splitlines()]
    for line in found:
        line.pop("seconds", None)
    return sorted(found, key=json.dumps)


def workers() -> list[psutil.Process]:
    """The actor processes."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "RayWorker" in " ".join(child.cmdline()[:1])]


class RayErrors:
    """Ray's exceptions, where there is no Ray."""

    RayError = RayActorError = OutOfMemoryError = ArithmeticError


@pytest.mark.usefixtures("ray")
def test_answers_equal_those_without_ray(tmp_path: Path) -> None:
    here, there = job(tmp_path, 3, ray=False), job(tmp_path, 3)
    with Path(there.questions).open("a") as file:
        file.write('nonsense\n{"video": "none.mp4", "question": "What?"}\n')
    run(there)
    run(here)
    assert lines(there) == lines(here)
    assert not workers()


def test_refuses_workers_that_run_the_model_in_different_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = iter(["none by torch", "8bit by bitsandbytes"])
    actors = SimpleNamespace(remote=lambda *_: Mock())
    cluster = Mock(exceptions=RayErrors)
    cluster.nodes.return_value = [node(2)]
    cluster.remote.return_value.options.return_value = actors
    cluster.wait.side_effect = lambda calls, timeout: (calls, [])  # noqa: ARG005
    cluster.get.side_effect = lambda _: next(ran)
    monkeypatch.setattr("pandacli.batch.ray.connect", lambda _: nullcontext(cluster))
    with pytest.raises(UsageError, match="none by torch, and 8bit by bitsandbytes"):
        run(job(tmp_path, 2))


@pytest.mark.slow
@pytest.mark.usefixtures("ray")
def test_killed_worker_loses_and_repeats_no_answer(tmp_path: Path, checkpoint: Path) -> None:
    wanted = job(tmp_path, 24, str(checkpoint))
    with Batch(wanted) as batch:
        outcomes = batch.plan().outcomes(load)
        next(outcomes)
        workers()[0].kill()
        rest = list(outcomes)
        assert batch.run.counters.clips_done == 24
    digests = {line["digest"] for line in lines(wanted) if "answer" in line}
    assert (1 + len(rest), len(lines(wanted)), len(digests)) == (72, 72, 72)


@pytest.mark.slow
@pytest.mark.usefixtures("ray")
def test_question_whose_workers_die_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class CrashingWorker(RayWorker):  # local, so that actors get its code
        def answer(self, questions: list[Question]) -> Any:
            if any(q.record.question == "die" for q in questions):
                os._exit(1)
            return super().answer(questions)

    wanted = job(tmp_path, 3)
    with Path(wanted.questions).open("a") as file:
        file.write(json.dumps({"video": str(DEMO), "question": "die", "from": 5}) + "\n")
    monkeypatch.setattr("pandacli.batch.ray.RayWorker", CrashingWorker)
    outcomes = run(wanted)
    failed = {outcome.question: outcome.error for outcome in outcomes if outcome.error}
    assert len(outcomes) == 10
    assert "3 workers ended while they answered it" in failed["die"]


@pytest.mark.slow
@pytest.mark.usefixtures("ray")
def test_stopped_run_ends_soon_and_resumes(tmp_path: Path, checkpoint: Path) -> None:
    wanted = job(tmp_path, 24, str(checkpoint))
    with Batch(wanted) as batch:
        planned = batch.plan()
        outcomes = planned.outcomes(load)
        next(outcomes)
        planned.stopped.set()
        stopped = time.monotonic()
        before = 1 + len(list(outcomes))
        took = time.monotonic() - stopped
    after = len(run(wanted))
    assert (before < 60, took < 20, before + after) == (True, True, 72)
    assert len({line["digest"] for line in lines(wanted)}) == 72


@pytest.mark.slow
@pytest.mark.usefixtures("ray")
def test_fail_fast_stops_at_the_first_failure(tmp_path: Path) -> None:
    wanted = job(tmp_path, 1)
    path = Path(wanted.questions)
    path.write_text('{"video": "none.mp4", "question": "What?"}\n' * 3 + path.read_text())
    with Batch(replace(wanted, fail_fast=True)) as batch:
        planned = batch.plan()
        failed = [outcome.error for outcome in planned.outcomes(load)]
    assert (sum(map(bool, failed)), planned.failed_fast) == (1, True)


ALONE = """
import sys
from tests.batch.test_ray import Batch, Path, job, workers
with Batch(job(Path(sys.argv[1]), 8)) as batch:
    outcomes = batch.plan().outcomes(None)
    next(outcomes)
    workers()[0].kill()
    print(len(list(outcomes)))
"""


@pytest.mark.slow
def test_local_cluster_is_silent_and_leaves_nothing_behind(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    before = set(Path("/tmp").glob("panda-*"))
    command = [sys.executable, "-c", ALONE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True)
    left = set(Path("/tmp").glob("panda-*")) - before
    assert (done.stdout, done.stderr, left) == ("23\n", "", set())
