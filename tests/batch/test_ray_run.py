"""Batches on a Ray of this machine, with two workers, compared with batches without."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from pandacli import Panda
from pandacli.batch.clip_worker import Settings
from pandacli.batch.counters import Outcome
from pandacli.batch.job import Batch, Job
from pandacli.batch.ray_cluster import joined
from pandacli.batch.ray_run import RayRun
from pandacli.batch.ray_worker import Result
from pandacli.errors import UsageError

pytest.importorskip("ray.data")
pytestmark = pytest.mark.filterwarnings(r"ignore::Warning:ray\..*")  # its own affairs

DEMO = Path(__file__).parents[2] / "pandacli/assets/demo.mp4"
TEXTS = ("What happens?", "Is there a circle?", "What colour is it?")


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """A Ray that all batches of this file use, as it takes seconds to start."""
    with joined(None) as started:
        yield started


def questions(folder: Path, clips: int, texts: tuple[str, ...] = TEXTS) -> Path:
    """A file that asks the same about several parts of the demo."""
    path = folder / "questions.jsonl"
    asked = ((clip, text) for text in texts for clip in range(clips))
    entries = [{"video": str(DEMO), "question": text, "from": clip / 4} for clip, text in asked]
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


def job(path: Path, model: str = "tiny", *, ray: bool = True) -> Job:
    settings = Settings(model, device="cpu", quant="none", engine="torch", max_tokens=24)
    name = "ray.jsonl" if ray else "local.jsonl"
    return Job(str(path), settings, str(path.with_name(name)), ray=ray, workers=2)


def answer(wanted: Job) -> list[Outcome]:
    """All of a batch."""
    with Batch(wanted) as batch:
        return list(batch.plan().outcomes(lambda: Panda.load(wanted.settings.model, device="cpu")))


def lines(wanted: Job) -> list[dict[str, Any]]:
    """What has been written, in an order of its own; without the time that it took."""
    found = [json.loads(line) for line in Path(str(wanted.output)).read_text().splitlines()]
    for line in found:
        line.pop("seconds", None)
    return sorted(found, key=json.dumps)


def workers() -> list[psutil.Process]:
    """The processes that have a model."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "MapWorker" in " ".join(child.cmdline()[:1])]


@pytest.mark.usefixtures("ray")
def test_answers_are_those_of_a_run_without_ray(tmp_path: Path) -> None:
    path = questions(tmp_path, 3)
    with path.open("a") as file:
        file.write('nonsense\n{"video": "none.mp4", "question": "What?"}\n')
    answer(job(path))
    answer(job(path, ray=False))
    assert lines(job(path)) == lines(job(path, ray=False))


def test_workers_that_run_the_model_in_different_ways_are_refused() -> None:
    index: Any = SimpleNamespace(total=9, earlier=0, clips=3)
    unused: Any = None
    run = RayRun(index, Settings("tiny"), unused, unused, canvas_side=168)
    for ran in ("none by torch", "", "none by torch"):
        run._refuse_mixture(Result(ran=ran))
    with pytest.raises(UsageError, match="none by torch, and 8bit by bitsandbytes"):
        run._refuse_mixture(Result(ran="8bit by bitsandbytes"))


@pytest.mark.slow
@pytest.mark.usefixtures("ray")
def test_a_killed_worker_costs_no_answer_and_doubles_none(tmp_path: Path, checkpoint: Path) -> None:
    wanted = job(questions(tmp_path, 24), str(checkpoint))
    with Batch(wanted) as batch:
        outcomes = batch.plan().outcomes(lambda: pytest.fail("the workers load"))
        next(outcomes)
        workers()[0].kill()
        rest = list(outcomes)
    digests = {line["digest"] for line in lines(wanted) if "answer" in line}
    assert (1 + len(rest), len(lines(wanted)), len(digests)) == (72, 72, 72)


@pytest.mark.slow
@pytest.mark.usefixtures("ray")
def test_a_stopped_run_ends_soon_and_the_next_asks_the_rest(
    tmp_path: Path, checkpoint: Path
) -> None:
    wanted = job(questions(tmp_path, 24), str(checkpoint))
    with Batch(wanted) as batch:
        run = batch.plan()
        outcomes = run.outcomes(lambda: pytest.fail("the workers load"))
        next(outcomes)
        run.stopped.set()
        stopped = time.monotonic()
        before = 1 + len(list(outcomes))
        took = time.monotonic() - stopped
    after = len(answer(wanted))
    assert (before < 60, took < 20, before + after) == (True, True, 72)
    assert len({line["digest"] for line in lines(wanted)}) == 72


@pytest.mark.slow
@pytest.mark.usefixtures("ray")
def test_a_run_that_fails_fast_stops_at_the_first_failure(tmp_path: Path) -> None:
    path = questions(tmp_path, 1)
    path.write_text('{"video": "none.mp4", "question": "What?"}\n' * 3 + path.read_text())
    wanted = job(path)
    with Batch(Job(**(vars(wanted) | {"fail_fast": True}))) as batch:
        run = batch.plan()
        failed = [outcome.error for outcome in run.outcomes(lambda: pytest.fail("not here"))]
    assert (sum(map(bool, failed)), run.failed_fast) == (1, True)


ALONE = """
import sys
from tests.batch.test_ray_run import Batch, Path, job, workers
with Batch(job(Path(sys.argv[1]))) as batch:
    outcomes = batch.plan().outcomes(None)
    next(outcomes)
    workers()[0].kill()
    print(len(list(outcomes)))
"""


@pytest.mark.slow
def test_a_ray_of_its_own_is_neither_heard_nor_left_behind(tmp_path: Path) -> None:
    path = questions(tmp_path, 8)
    before = set(Path("/tmp").glob("panda-*"))
    command = [sys.executable, "-c", ALONE, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True)
    left = set(Path("/tmp").glob("panda-*")) - before
    assert (done.stdout, done.stderr, left) == ("23\n", "", set())
