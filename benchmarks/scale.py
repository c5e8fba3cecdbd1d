"""What a large batch costs its driver, and what holds it up: `python -m benchmarks.scale`.

    python -m benchmarks.scale
    python -m benchmarks.scale --records 20000 --workers 1,50 --seconds 2    # half a minute

`panda batch --engine ray` is run as it is, from a file of questions to the last fsync of the
results file. Only the module `ray` is replaced: its workers are simulated, each answers the
questions about a clip in a stated time, and what they are sent and send back is pickled.

First a worker that takes no time: CPU seconds of the driver a record (the simulation of the worker
is not counted), its memory after a tenth of the records and at the end. Then more and more workers
that take 0.2 s a clip: the share of the time for which they have one to answer, and again the
driver's CPU seconds, which a busy machine changes less. Ray's own calls, which the simulation has
not, are measured on a Ray of this machine, if it is installed. At last the CPU seconds of reading
eight frames of a clip of ten seconds in three sizes, which each worker does for itself.
"""

import argparse
import json
import pickle
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from heapq import heappop, heappush
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from statistics import median
from time import perf_counter, process_time, sleep, thread_time
from types import SimpleNamespace
from typing import Any

import psutil  # type: ignore[import-untyped]
from rich.console import Console

from benchmarks.one_form import peak_bytes
from benchmarks.report import Row, table_of
from benchmarks.sample_videos import VIDEOS, Sample, write_all
from pandacli.batch.clip_worker import Settings
from pandacli.batch.job import Batch, Job
from pandacli.batch.ray import connect
from pandacli.batch.records import Question
from pandacli.batch.results import result_line
from pandacli.inference.spec import RunSpec
from pandacli.video import Clip
from pandacli.video.prefetch import read_fitted

QUESTIONS = 5  # about each clip
ANSWER = "A red circle moves slowly from the left to the right."
SIZES = {"240p": (320, 240), "720p": (1280, 720), "1080p": (1920, 1080)}
_CLIP_SECONDS = 10
_IMAGE_SIZE = 448
_RECORD_GOAL = 2.0  # milliseconds of the driver
_MEMORY_GOAL = 0.8  # of the memory at the end, that there is after a tenth of the records
_BUSY_GOAL = 0.9
_FED = 100  # workers that one driver is to feed
_RAY_CALLS = 200  # to be measured


class RayActorError(Exception):
    """Ray's error for a worker that has died; none does here."""


@dataclass(frozen=True, order=True)
class Call:
    """A call of a worker: when it ends, and the pickled questions; b"" for one of `ready`."""

    end: float  # of `perf_counter`
    number: int
    questions: bytes


class Worker:
    """A simulated `RayWorker`, which answers one chunk of questions after the other."""

    def __init__(self, ray: "SimulatedRay") -> None:
        self._ray, self._free = ray, 0.0
        self.ready = SimpleNamespace(remote=lambda: ray.submit(0.0, b""))
        self.answer = SimpleNamespace(remote=self._answer)

    def _answer(self, questions: list[Question]) -> Call:
        now = perf_counter()
        self._ray.began = self._ray.began or now
        self._free = max(now, self._free) + self._ray.seconds
        return self._ray.submit(self._free, pickle.dumps(questions))


class SimulatedRay:
    """As much of the module `ray` as `RayMap` uses.

    Args:
        workers: CPUs of the cluster, one for each worker.
        seconds: What a worker takes to answer a chunk.
    """

    exceptions = SimpleNamespace(
        RayError=RayActorError, RayActorError=RayActorError, OutOfMemoryError=MemoryError
    )

    def __init__(self, workers: int, seconds: float) -> None:
        self.workers, self.seconds = workers, seconds
        self.chunks = 0  # that were answered
        self.began = self.ended = 0.0  # the first chunk was sent, the last one answered
        self.own_seconds = 0.0  # CPU time that workers would take
        self._calls: list[Call] = []  # a heap
        self._numbers = count()

    def is_initialized(self) -> bool:
        return True

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": self.workers}}]

    def remote(self, _actor: type) -> Any:
        return SimpleNamespace(
            options=lambda **_: SimpleNamespace(remote=lambda *_args: Worker(self))
        )

    def kill(self, worker: Worker) -> None:
        pass

    def submit(self, end: float, questions: bytes) -> Call:
        call = Call(end, next(self._numbers), questions)
        heappush(self._calls, call)
        return call

    def wait(self, calls: list[Call], timeout: float) -> tuple[list[Call], list[Call]]:
        """Like Ray's: the first call that has ended, or none in `timeout`; the rest is left out."""
        left = self._calls[0].end - perf_counter() if calls else timeout
        sleep(max(0.0, min(left, timeout)))
        return ([heappop(self._calls)] if calls and left <= timeout else []), []

    def get(self, call: Call) -> Any:
        """What a worker sends back: lines with the positions of their questions, and seconds."""
        if not call.questions:
            return "none by torch"
        self.chunks += 1
        self.ended = max(self.ended, call.end)
        started = thread_time()
        result = {"answer": ANSWER, "model": "simulated", "finish_reason": "stop", "tokens": 12}
        asked: list[Question] = pickle.loads(call.questions)
        lines = [(n, result_line(q, {**result, "seconds": 0.2})) for n, q in enumerate(asked)]
        sent = pickle.dumps((lines, {"decode": self.seconds}))
        self.own_seconds += thread_time() - started
        return pickle.loads(sent)

    @property
    def busy(self) -> float:
        """The share of the time for which the workers had something to answer."""
        return self.chunks * self.seconds / (self.workers * (self.ended - self.began))


@contextmanager
def simulated_ray(workers: int, seconds: float) -> Iterator[SimulatedRay]:
    """Put a simulation in place of the module `ray`."""
    before, ray = sys.modules.get("ray"), SimulatedRay(workers, seconds)
    sys.modules["ray"] = ray  # type: ignore[assignment]
    try:
        yield ray
    finally:
        del sys.modules["ray"]
        if before is not None:
            sys.modules["ray"] = before


@dataclass(frozen=True)
class Driven:
    """A run of the driver.

    Attributes:
        cpu_seconds: Of the driver, from opening the questions to the last fsync.
        busy: The share of the time for which the workers had something to answer.
        memory: Resident bytes after a tenth of the records, and at the end.
        peak: Resident bytes at most, of the process so far.
        line_bytes: Of a line of the results file, on average.
    """

    records: int
    workers: int
    cpu_seconds: float
    busy: float
    memory: tuple[int, int]
    peak: int
    line_bytes: float


def drive(folder: Path, clips: int, workers: int, seconds: float) -> Driven:
    """Run a batch of `clips` with five questions each in an empty folder."""
    records = clips * QUESTIONS
    questions, answers = folder / "questions.jsonl", folder / "answers.jsonl"
    with questions.open("w") as file:
        for number in range(records):
            clip = f"clips/{number // QUESTIONS:08}.mp4"
            asked = f"What happens to thing {number % QUESTIONS} in this video?"
            file.write(json.dumps({"id": number, "video": clip, "question": asked}) + "\n")
    settings = Settings(RunSpec("tiny", device="cpu"))
    job = Job(
        str(questions), settings, output=str(answers), ray=True, address="auto", workers=workers
    )
    memory = [0, 0]
    with simulated_ray(workers, seconds) as ray:
        started = process_time()
        with Batch(job) as batch:
            run = batch.plan()
            for written, _ in enumerate(run.outcomes(_no_model), 1):
                if written in (records // 10, records):
                    memory = [memory[1], psutil.Process().memory_info().rss]
            batch.finish(print)
        spent = process_time() - started - ray.own_seconds
    size = answers.stat().st_size
    for file_path in (questions, answers):
        file_path.unlink()
    start, end = memory
    return Driven(records, workers, spent, ray.busy, (start, end), peak_bytes(), size / records)


def _no_model() -> Any:
    raise AssertionError("the workers have the model")


class Echo:
    """An actor of Ray that sends back what it is sent."""

    def answer(self, lines: Any) -> Any:
        return lines

    def never(self) -> None:
        sleep(3600)


def ray_seconds(waiting: int) -> float | None:
    """CPU seconds of a driver for Ray's own part of a chunk: to send it, wait, and get the answer.

    Args:
        waiting: Other calls that are waited for at the same time.

    Returns:
        The mean; None where Ray is not installed.
    """
    if find_spec("ray") is None:
        return None
    lines = [(n, {"id": n, "question": ANSWER * 2, "answer": ANSWER}) for n in range(QUESTIONS)]
    with connect(None) as ray:
        busy, echo = (ray.remote(Echo).options(num_cpus=0).remote() for _ in range(2))
        others = [busy.never.remote() for _ in range(waiting)]
        ray.get(echo.answer.remote(lines))
        started = process_time()
        for _ in range(_RAY_CALLS):
            call = echo.answer.remote(lines)
            while call not in ray.wait([*others, call], timeout=1)[0]:
                pass
            ray.get(call)
        return (process_time() - started) / _RAY_CALLS


def frame_seconds(folder: Path, size: tuple[int, int], seconds: int, repeats: int) -> float:
    """The median CPU seconds of reading eight frames of a clip of so many seconds, all threads."""
    usual = VIDEOS["h264-720p-1min.mp4"]
    sample = Sample(usual.codec, size, seconds, options=usual.options)
    (path,) = write_all(folder, {f"{size[1]}p.mp4": sample})
    taken = []
    for _ in range(repeats + 1):  # the first brings the file into the page cache
        started = process_time()
        read_fitted(Clip(path), 8, _IMAGE_SIZE)
        taken.append(process_time() - started)
    return median(taken[1:])


def measure(wanted: argparse.Namespace, say: Callable[[str], object]) -> dict[str, Any]:
    """All three parts, of what the command line asks for."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        say(f"{wanted.records} records")
        driver = drive(folder, wanted.records // QUESTIONS, workers=1, seconds=0.0)
        fed = []
        for workers in map(int, wanted.workers.split(",")):
            say(f"{workers} workers")
            clips = max(2, round(workers * wanted.seconds / wanted.answer_seconds))
            fed.append(drive(folder, clips, workers, wanted.answer_seconds))
        say("Ray")
        own = ray_seconds(2 * _FED)  # one chunk is answered and one waits at each worker
        frames = {}
        for name, size in SIZES.items():
            say(f"frames of {name}")
            frames[name] = frame_seconds(folder, size, _CLIP_SECONDS, wanted.repeats)
    return {
        "driver": asdict(driver),
        "answer_seconds": wanted.answer_seconds,
        "fed": [asdict(each) for each in fed],
        "ray_cpu_seconds": own,
        "frames_cpu_seconds": frames,
    }


def rows_of(found: dict[str, Any]) -> Iterator[Row]:
    """The cost of the driver, how busy workers are, and what their frames cost."""
    driver, answer = found["driver"], found["answer_seconds"]
    each = 1000 * driver["cpu_seconds"] / driver["records"]
    group = f"scale, {driver['records']:,} records"
    yield Row(group, "CPU time of one", each, "ms", "the goal", _RECORD_GOAL, 1.0)
    start, end = (size / 2**20 for size in driver["memory"])
    yield Row(group, "memory at the end", end, "MB", "after a tenth", start, _MEMORY_GOAL)
    group = f"scale, workers that take {answer:g} s a clip"
    for fed in found["fed"]:
        alone = fed["workers"] / answer
        ours = alone * fed["busy"]
        yield Row(group, f"{fed['workers']}", ours, "clips/s", "never idle", alone, _BUSY_GOAL)
    if found["ray_cpu_seconds"] is not None:
        both = QUESTIONS * each + 1000 * found["ray_cpu_seconds"]
        budget = 1000 * answer / _FED
        yield Row(
            group, "a clip with Ray's calls", both, "CPU ms", f"for {_FED} workers", budget, 1.0
        )
    group = f"scale, frames of {_CLIP_SECONDS} s"
    for name, seconds in found["frames_cpu_seconds"].items():
        yield Row(group, name, seconds, "CPU s", "its answers", answer)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--records", type=int, default=200_000, help="for the driver's own cost")
    parser.add_argument("--workers", default="1,10,50,100,200,400", help="how many are simulated")
    parser.add_argument("--answer-seconds", type=float, default=0.2, help="a worker's, for a clip")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each number works")
    parser.add_argument("--repeats", type=int, default=3, help="of reading frames")
    parser.add_argument("--json", action="store_true")
    wanted = parser.parse_args(arguments)
    screen = Console(stderr=True)
    with screen.status("measuring") as status:
        found = measure(wanted, lambda what: status.update(f"measuring: {what}"))
    if wanted.json:
        print(json.dumps(found, indent=2))
        return
    console = Console(width=max(110, Console().width))
    console.print(table_of(list(rows_of(found))))
    driver = found["driver"]
    peak, line = driver["peak"] / 2**20, driver["line_bytes"]
    console.print(f"the driver took {peak:.0f} MB at most; a result line has {line:.0f} bytes")


if __name__ == "__main__":
    main()
