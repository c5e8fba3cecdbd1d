"""A batch on Ray: a pool of actors, each with a model, over the clips of an index.

Ray Data would hold the whole data set, and cannot stop waiting questions or bound retries.
"""

import logging
import os
import socket
import sys
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Lock, current_thread
from time import perf_counter
from typing import Any, NamedTuple, TextIO, cast

from pandacli import checkpoints
from pandacli.batch.clip_worker import ClipWorker, Settings
from pandacli.batch.film_worker import FilmWorker
from pandacli.batch.records import Index, Question
from pandacli.batch.results import Line, Result, error_lines
from pandacli.batch.runner import Load, Runner, Say, find_clip
from pandacli.errors import DeviceError, ModelError, PandaError, UsageError
from pandacli.video.clip import Clip
from pandacli.video.prefetch import FramePrefetcher
from pandacli.video.windows import FilmReader

DEFAULT_PORT = 6379
ATTEMPTS = 3  # workers that may die on a chunk of questions before it fails
CHUNK = 256  # questions at most in a chunk; several workers share a clip with more

_QUEUED = 2  # chunks at a worker: one is answered while the frames of the next are read
_OBJECT_STORE = 256 * 2**20  # bytes; only questions and answers go through it
_ENVIRONMENT = {  # read when Ray is imported, and by the processes it starts
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # workers run in this environment
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # or Ray warns that it hides the GPUs
    "RAY_worker_niceness": "0",
}

Answered = tuple[list[tuple[int, Line]], dict[str, float]]
"""Lines with the positions of their questions in a chunk, and the seconds of each stage."""


@dataclass(eq=False)
class Chunk:
    """Questions about one clip for one worker."""

    clip: int  # its number, from 0
    parts: int  # how many chunks the clip has
    questions: list[Question]
    attempts: int = 0  # workers that died while they answered it


def chunks(index: Index, size: int = CHUNK) -> Iterator[Chunk]:
    """The open questions of an index in its order, read lazily."""
    for clip, group in enumerate(index.groups()):
        questions, parts = iter(group), -(-len(group) // size)
        for _ in range(parts):
            yield Chunk(clip, parts, list(islice(questions, size)))


class Placement(NamedTuple):
    """The number of workers, and the resources of each."""

    workers: int
    device: str  # "cpu" or "cuda"
    cpus: int  # reserved with Ray
    gpus: int
    threads: int


def place(nodes: list[dict[str, Any]], device: str, workers: int | None) -> Placement:
    """Place workers on the machines of `ray.nodes()`: by default one a GPU, or else one a machine.

    Raises UsageError for one GPU by number, DeviceError where there are too few GPUs.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"--device {device} does not go with Ray", "use auto, cpu or cuda")
    resources = [node["Resources"] for node in nodes if node["Alive"]]
    cpus = [int(has.get("CPU", 0)) for has in resources]
    gpus = sum(int(has.get("GPU", 0)) for has in resources)
    if device == "cpu" or (device == "auto" and not gpus):
        count = workers or sum(has > 0 for has in cpus) or 1
        # the most CPUs for each with which all workers fit; 0 where there are more than CPUs
        sizes = range(max(cpus, default=0), 0, -1)
        each = next((n for n in sizes if sum(has // n for has in cpus) >= count), 0)
        return Placement(count, "cpu", each, 0, max(1, each))
    if not gpus:
        raise DeviceError("no CUDA device found: the Ray cluster has no GPU", "use --device cpu")
    if workers and workers > gpus:
        message = f"there are fewer GPUs ({gpus}) than workers ({workers}), which take one each"
        raise DeviceError(message, f"use --workers {gpus}")
    return Placement(workers or gpus, "cuda", 0, 1, max(1, sum(cpus) // gpus))


class RayWorker:
    """An actor with a model, which must have the weights of the run. Ray calls it from threads."""

    def __init__(
        self,
        settings: Settings,
        videos: Path,
        image_size: int,
        model: str,
        weights: str | None,
        threads: int,
    ) -> None:
        import torch

        from pandacli import Panda
        from pandacli.inference.planning.planner import resolve_run

        self._settings, self._videos, self._image_size = settings, videos, image_size
        self._prefetcher = FramePrefetcher(settings.frames, image_size, workers=1)
        self._reading, self._answering, self._stopped = Lock(), Lock(), Event()
        self._error: PandaError | None = None
        torch.set_num_threads(threads)
        started = perf_counter()
        try:
            own = checkpoints.model_digest(checkpoints.resolve(settings.spec.model))
            if weights not in (None, own):
                raise ModelError(f"{model} on a worker has other weights than here")
            self._panda = Panda.from_plan(resolve_run(settings.spec))
            self._panda.name = model
        except PandaError as error:
            self._error = error
        self._free_since = perf_counter()
        self._load_seconds = self._free_since - started

    def ready(self) -> str | PandaError:
        """The quantisation and backend of the loaded model, or why it is not loaded."""
        return self._error or f"{self._panda.quant} by {self._panda.engine}"

    def answer(self, questions: list[Question]) -> Answered | PandaError:
        """Answer a chunk; an error means that this worker cannot answer any."""
        called = perf_counter()
        clip = find_clip(questions, self._videos, self._settings)
        if questions[0].record.has_windows and isinstance(clip, Clip):
            return self._answer_film(questions, clip)
        try:
            with self._reading:
                ((_, frames),) = self._prefetcher.read([(None, clip)])
        except PandaError as error:  # no process can be started to read frames
            return error
        with self._answering:
            if self._stopped.is_set():
                return [], {}
            waited = perf_counter() - max(called, self._free_since)
            seconds = {"load": self._load_seconds, "frames": waited}
            self._load_seconds = 0.0
            if isinstance(frames, PandaError):
                return _numbered(questions, error_lines(questions, frames)), seconds
            worker = ClipWorker(self._panda, self._settings, questions, self._stopped)
            lines = _numbered(questions, worker.results(frames))
            self._free_since = perf_counter()
        return lines, seconds | worker.seconds

    def _answer_film(self, questions: list[Question], clip: Clip) -> Answered | PandaError:
        with self._answering:
            seconds = {"load": self._load_seconds}
            self._load_seconds = 0.0
            worker = FilmWorker(lambda: self._panda, self._settings, questions, self._stopped)
            try:
                with FilmReader(clip.path, self._settings.frames, self._image_size) as reader:
                    lines = _numbered(questions, worker.results(reader, clip))
            except PandaError as error:  # no process can be started to read frames
                return error
            self._free_since = perf_counter()
        return lines, seconds | worker.seconds

    def stop(self) -> None:
        """Start no further question."""
        self._stopped.set()


def _numbered(questions: list[Question], results: Iterable[Result]) -> list[tuple[int, Line]]:
    """Lines with the positions of their questions, which are not sent back."""
    positions = {id(question): position for position, question in enumerate(questions)}
    return [(positions[id(question)], line) for question, line in results]


@dataclass(eq=False)
class RayMap:
    """Answers clips on a pool of actors; one that dies is replaced, and its chunks are retried."""

    settings: Settings
    videos: Path  # their folder, on all machines
    image_size: int
    model: checkpoints.ResolvedModel  # on all machines, too
    weights: str | None  # the digest of the model's weights
    address: str | None  # as of `connect`
    workers: int | None
    _queues: dict[Any, deque[Chunk]] = field(default_factory=dict)  # of each actor, oldest first
    _calls: dict[Any, tuple[Any, Chunk | None]] = field(default_factory=dict)  # None: `ready`
    _ready: set[Any] = field(default_factory=set)
    _failed_starts: int = 0
    _new_worker: Callable[[], Any] = field(init=False)

    def in_flight(self) -> int:
        return sum(len(chunk.questions) for _, chunk in list(self._calls.values()) if chunk)

    def results(self, run: Runner, load: Load, say: Say) -> Iterator[Result]:
        """A `ClipMap`; the seconds are those of all workers together."""
        del load  # the workers load the model
        run.in_flight = self.in_flight
        say(f"joining Ray at {self.address}" if self.address else "starting Ray")
        with connect(self.address) as ray:
            spec = self.settings.spec
            placed = place(ray.nodes(), spec.device, self.workers)
            where = self.model.folder.absolute() if self.model.kind == "folder" else spec.model
            settings = replace(self.settings, spec=replace(spec, model=where, device=placed.device))
            clips = settings, self.videos.absolute(), self.image_size
            loaded = self.model.name, self.weights, placed.threads
            actor = ray.remote(RayWorker).options(
                num_cpus=placed.cpus, num_gpus=placed.gpus, max_concurrency=_QUEUED + 1
            )
            self._new_worker = lambda: actor.remote(*clips, *loaded)
            rest = chunks(run.index)
            first = list(islice(rest, placed.workers))  # no more workers than chunks
            for _ in first:
                self._start_worker()
            say(f"loading {self.model.name} on {len(first)} workers")
            parts_done: Counter[int] = Counter()
            try:
                for chunk, (lines, seconds) in self._map(ray, chain(first, rest), run.stopped):
                    say("answering")
                    for stage, spent in seconds.items():
                        run.counters.spend(stage, spent)
                    yield from ((chunk.questions[at], line) for at, line in lines)
                    parts_done[chunk.clip] += len(lines) == len(chunk.questions)
                    if parts_done[chunk.clip] == chunk.parts:
                        del parts_done[chunk.clip]
                        run.counters.clips_done += 1
            except ray.exceptions.RayError as error:
                why = f"Ray has given up: {type(error).__name__}"
                raise DeviceError(why, "run the same command again to resume") from error
            finally:
                for worker in self._queues:
                    ray.kill(worker)
                self._queues.clear()
                self._calls.clear()

    def _start_worker(self) -> None:
        worker = self._new_worker()
        self._queues[worker] = deque()
        self._calls[worker.ready.remote()] = worker, None

    def _map(
        self, ray: Any, waiting: Iterator[Chunk], stopped: Event
    ) -> Iterator[tuple[Chunk, Answered]]:
        """Yield each chunk as it completes; raise PandaError where a worker cannot answer any."""
        retries: deque[Chunk] = deque()
        stopping, ran = False, ""
        while True:
            if not stopped.is_set():
                self._submit(retries, waiting)
            elif not stopping:
                stopping = True
                for worker in self._queues:
                    worker.stop.remote()
            if not self.in_flight() and (stopping or self._ready):  # `_submit` found no chunk
                return
            for call in ray.wait(list(self._calls), timeout=0.2)[0]:
                if call not in self._calls:  # its worker is known to be dead
                    continue
                worker, chunk = self._calls.pop(call)
                try:
                    result = ray.get(call)
                except (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError):
                    lost = self._replace(worker)
                    retries += [each for each in lost if each.attempts < ATTEMPTS]
                    yield from (_failed(each) for each in lost if each.attempts >= ATTEMPTS)
                    continue
                if isinstance(result, PandaError):
                    raise result
                if chunk is not None:
                    self._queues[worker].remove(chunk)
                    yield chunk, result
                    continue
                ran = ran or result
                if result != ran:  # which no digest would show
                    raise UsageError(
                        f"workers run the model in different ways: {ran}, and {result}",
                        "give the same --quant to all, or leave some out with --device, --workers",
                    )
                self._failed_starts = 0
                self._ready.add(worker)

    def _submit(self, retries: deque[Chunk], waiting: Iterator[Chunk]) -> None:
        for depth in range(_QUEUED):  # one to each worker before a second to any
            for worker in self._ready:
                queue = self._queues[worker]
                if len(queue) > depth:
                    continue
                chunk = retries.popleft() if retries else next(waiting, None)
                if chunk is None:
                    return
                queue.append(chunk)
                self._calls[worker.answer.remote(chunk.questions)] = worker, chunk

    def _replace(self, dead: Any) -> deque[Chunk]:
        """Start a worker in place of a dead one; return the chunks that it had."""
        lost = self._queues.pop(dead)
        self._ready.discard(dead)
        self._calls = {call: entry for call, entry in self._calls.items() if entry[0] is not dead}
        if lost:
            lost[0].attempts += 1  # the oldest was being answered
        else:
            self._failed_starts += 1
            if self._failed_starts >= ATTEMPTS * (1 + len(self._queues)):
                hint = "panda must be installed on all machines, with memory for the model on each"
                raise DeviceError("the Ray workers end before the model is loaded", hint)
        self._start_worker()
        return lost


def _failed(chunk: Chunk) -> tuple[Chunk, Answered]:
    hint = "there may be too little memory: use fewer --workers, or a --batch-size"
    error = DeviceError(f"{ATTEMPTS} workers ended while they answered it", hint)
    return chunk, (_numbered(chunk.questions, error_lines(chunk.questions, error)), {})


@contextmanager
def connect(address: str | None) -> Iterator[Any]:
    """The `ray` module, connected until the context ends to a cluster, or to a new one for None.

    A cluster that this process is connected to already is used as it is. Raises UsageError if Ray
    is not installed, DeviceError if there is no such cluster or Ray cannot be started.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        hint = "install it with: pip install 'pandacli[ray]'"
        raise UsageError("--engine ray needs Ray, which is not installed", hint) from error
    warnings.filterwarnings("ignore", module=r"ray\.")
    if ray.is_initialized():
        yield ray
        return
    how: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    with ExitStack() as stack:
        if address is None:
            # in /tmp, because the paths of sockets must be short
            root = "/tmp" if Path("/tmp").is_dir() else None
            folder = TemporaryDirectory(prefix="panda-", dir=root, ignore_cleanup_errors=True)
            how["_temp_dir"] = stack.enter_context(folder)
            how |= {"include_dashboard": False, "object_store_memory": _OBJECT_STORE}
        stack.callback(ray.shutdown)
        try:
            ray.init("local" if address is None else _reachable(address), **how)
        except (OSError, RuntimeError, ValueError) as error:
            why = (str(error).strip() or type(error).__name__).splitlines()[0].strip().rstrip(".")
            if address is None:
                raise DeviceError(f"Ray cannot be started: {why}") from error
            why = "no Ray cluster " + ("runs here" if address == "auto" else f"at {address}: {why}")
            raise DeviceError(why, "start one with:", command="ray start --head") from error
        stack.enter_context(redirect_stdout(cast(TextIO, _OwnOutput(sys.stdout))))
        yield ray


class _OwnOutput:
    """A stream that drops what Ray's threads print, as they do when a worker dies."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        return len(text) if current_thread().name.startswith("ray") else self._stream.write(text)


def _reachable(address: str) -> str:
    """The address with its port, once a connection has succeeded; Ray would try for minutes."""
    if address == "auto":
        return address
    scheme, separator, place = address.rpartition("://")
    host, _, port = place.partition(":")
    port = port if port.isdigit() else str(DEFAULT_PORT)
    with socket.create_connection((host, int(port)), timeout=5.0):
        return f"{scheme}{separator}{host}:{port}"
