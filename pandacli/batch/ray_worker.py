"""A worker of a run on Ray: it has a model, and answers the shares that Ray hands to it."""

import pickle
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock, Thread
from time import perf_counter
from typing import TYPE_CHECKING, Any

from pandacli.batch.clip_worker import ClipWorker, Line, Settings, failures
from pandacli.batch.prefetch import FramePrefetcher
from pandacli.batch.ray_board import DEALT_WITH
from pandacli.batch.records import BadLine, Question
from pandacli.batch.runner import find_clip
from pandacli.batch.videos import VideoFolder
from pandacli.errors import DeviceError, ModelError, PandaError

if TYPE_CHECKING:
    from pandacli.inference import Panda
    from pandacli.video import Frames

ATTEMPTS = 3
"""How often the answering of a share is begun before it is taken for what ends the workers."""


@dataclass(frozen=True)
class Task:
    """What all workers of a run have to know.

    Attributes:
        settings: How it is asked; the device is the worker's, and a folder of a model is absolute.
        name: What the model is called in the answers.
        weights: The identity of the model, which must be the same everywhere.
        videos: The folder of the videos.
        canvas_side: The side in pixels of the square that the model sees.
        threads: How many threads a worker computes with.
    """

    settings: Settings
    name: str
    weights: str | None
    videos: Path
    canvas_side: int
    threads: int


@dataclass
class Result:
    """What has become of a share.

    Attributes:
        lines: Each question that is dealt with, by its place in the share, with its line.
        seconds: What each stage took, by its name.
        error: Why this worker can answer nothing at all.
        ran: The quantisation and the engine that the answers were computed with, in words.
    """

    lines: list[tuple[int, Line]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    error: PandaError | None = None
    ran: str = ""


class RayWorker:
    """Answers shares; Ray makes one an actor, and calls it with two at a time.

    The frames of one share are read while another is answered.

    Args:
        task: What is to be known.
        board: The actor to be told which share is begun, and to hear from when to stop.
    """

    def __init__(self, task: Task, board: Any) -> None:
        self._task, self._board = task, board
        self._videos = VideoFolder(task.videos)
        self._ahead = FramePrefetcher(task.settings.frames, task.canvas_side, workers=1)
        self._reading, self._answering = Lock(), Lock()
        self._stopped = Event()
        self._seconds: dict[str, float] = {}
        self._error: PandaError | None = None
        Thread(target=self._hear_of_stop, daemon=True).start()
        started = perf_counter()
        try:
            self._panda = _load(task)
        except PandaError as error:  # told with the first share; Ray would tell it in a page
            self._error = error
        self._free_since = perf_counter()
        self._seconds["load"] = self._free_since - started

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """From a row with a share to a row with its result."""
        number, share = int(batch["number"][0]), bytes(batch["share"][0])
        if self._error is not None:
            result = Result(error=self._error)
        elif share == DEALT_WITH or self._stopped.is_set():
            result = Result()
        else:
            result = self._deal_with(number, pickle.loads(share))
        return {"number": [number], "result": [pickle.dumps(result)]}

    def _deal_with(self, number: int, questions: list[Question | BadLine]) -> Result:
        came = perf_counter()
        try:
            with self._reading:
                frames = self._read(questions)
        except PandaError as error:  # no process that reads can be started here
            return Result(error=error)
        with self._answering:
            waited = perf_counter() - max(came, self._free_since)
            result = self._answer(number, questions, frames)
            self._free_since = perf_counter()
        result.ran = f"{self._panda.quant} by {self._panda.engine}"
        result.seconds = {"load": self._seconds.pop("load", 0.0), "frames": waited} | result.seconds
        return result

    def _read(self, questions: list[Question | BadLine]) -> "Frames | PandaError":
        clip = find_clip(questions, self._videos, self._task.settings)
        return next(frames for _, frames in self._ahead.read([(None, clip)]))

    def _answer(
        self, number: int, questions: list[Question | BadLine], frames: "Frames | PandaError"
    ) -> Result:
        if self._stopped.is_set():
            return Result()
        attempt = self._begin(number)
        if attempt > ATTEMPTS:
            frames = DeviceError(
                f"{ATTEMPTS} workers ended while they answered it",
                "there may be too little memory: use fewer --workers, or a --batch-size",
            )
        if isinstance(frames, PandaError):
            return Result(_placed(questions, failures(questions, frames)))
        asking = ClipWorker(self._panda, self._task.settings, questions, self._stopped)
        return Result(_placed(questions, asking.lines(frames)), asking.seconds)

    def _begin(self, number: int) -> int:
        import ray

        return int(ray.get(self._board.begin.remote(number)))

    def _hear_of_stop(self) -> None:
        import ray

        ray.get(self._board.wait_for_stop.remote())
        self._stopped.set()


def _load(task: Task) -> "Panda":
    """The model, if it is the one that is meant.

    Raises:
        PandaError: As `Panda.load`; or it is another one.
    """
    import torch

    from pandacli import Panda, checkpoints

    settings = task.settings
    resolved = checkpoints.resolve(settings.model)
    if task.weights not in (None, checkpoints.model_digest(resolved)):
        raise ModelError(f"{task.name} on a worker has other weights than here")
    torch.set_num_threads(task.threads)
    panda = Panda.load(
        settings.model, device=settings.device, quant=settings.quant, engine=settings.engine
    )
    panda.name = task.name
    return panda


def _placed(
    questions: list[Question | BadLine], done: Iterable[tuple[Question | BadLine, Line]]
) -> list[tuple[int, Line]]:
    places = {id(question): place for place, question in enumerate(questions)}
    return [(places[id(question)], line) for question, line in done]
