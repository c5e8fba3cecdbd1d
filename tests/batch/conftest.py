"""A small model, clips, and batches that read frames in this process."""

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pandacli import Panda
from pandacli.batch import check, runner
from pandacli.batch.clip_worker import Settings
from pandacli.batch.job import Batch, Job
from pandacli.batch.results import Counters, Outcome
from pandacli.errors import PandaError
from pandacli.inference.spec import GenerationOptions, RunSpec
from pandacli.video import Clip, Frames, VideoInfo, probe
from pandacli.video.prefetch import read_fitted
from pandacli.video.windows import Span

SIZES = {"wide.avi": (64, 48), "tall.avi": (48, 70), "odd.avi": (131, 77)}


@pytest.fixture(scope="session")
def panda(checkpoint: Path) -> Panda:
    """The small model, loaded on the CPU."""
    return Panda.load(checkpoint, device="cpu")


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three clips of drifting noise, two seconds each."""
    folder = tmp_path_factory.mktemp("clips")
    for name, (width, height) in SIZES.items():
        scene = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
        code = cv2.VideoWriter.fourcc(*"MJPG")
        writer = cv2.VideoWriter(str(folder / name), code, 8, (width, height))
        for number in range(16):
            writer.write(np.roll(scene, 3 * number, axis=1))
        writer.release()
    return folder


class InProcessPrefetcher:
    """A `FramePrefetcher` that reads in this process."""

    read_clips: list[Clip]  # in order

    def __init__(self, num_frames: int, image_size: int, *_: int) -> None:
        self._how = num_frames, image_size

    def __enter__(self) -> "InProcessPrefetcher":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read(
        self, clips: Iterable[tuple[Any, Clip | PandaError]]
    ) -> Iterator[tuple[Any, Frames | PandaError]]:
        for item, clip in clips:
            if isinstance(clip, PandaError):
                yield item, clip
                continue
            self.read_clips.append(clip)
            try:
                yield item, read_fitted(clip, *self._how)
            except PandaError as error:
                yield item, error


class InProcessFilm:
    """A `FilmReader` that reads in this process."""

    walks: list[list[Span]]  # the windows of each walk through a film

    def __init__(self, path: Path, num_frames: int, image_size: int) -> None:
        self._path, self._how = path, (num_frames, image_size)

    def __enter__(self) -> "InProcessFilm":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def info(self) -> VideoInfo:
        return probe(self._path)

    def read(self, spans: Iterable[Span]) -> Iterator[tuple[Span, Frames | PandaError]]:
        spans = list(spans)
        self.walks.append(spans)
        for span in spans:
            try:
                yield span, read_fitted(Clip(self._path, *span), *self._how)
            except PandaError as error:
                yield span, error


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch) -> list[list[Span]]:
    """The windows that each walk through a film reads, in this process."""
    monkeypatch.setattr(InProcessFilm, "walks", [], raising=False)
    monkeypatch.setattr(runner, "FilmReader", InProcessFilm)
    return InProcessFilm.walks


@pytest.fixture
def read_clips(monkeypatch: pytest.MonkeyPatch) -> list[Clip]:
    """The clips that batches and checks read, in this process."""
    monkeypatch.setattr(InProcessPrefetcher, "read_clips", [], raising=False)
    monkeypatch.setattr(runner, "FramePrefetcher", InProcessPrefetcher)
    monkeypatch.setattr(check, "FramePrefetcher", InProcessPrefetcher)
    return InProcessPrefetcher.read_clips


@dataclass
class Ran:
    """The result of a batch."""

    outcomes: list[Outcome]
    counters: Counters
    loads: int  # how often the model was loaded
    path: Path  # the results file

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The lines of the results file."""
        return [json.loads(line) for line in self.path.read_bytes().splitlines()]

    @property
    def answers(self) -> dict[Any, str | None]:
        """The answers by their ids; None for failures."""
        return {line.get("id"): line.get("answer") for line in self.lines}


@pytest.fixture
def batch(
    panda: Panda,
    clips: Path,
    checkpoint: Path,
    tmp_path: Path,
    read_clips: list[Clip],  # noqa: ARG001  (frames are read here)
    walks: list[list[Span]],  # noqa: ARG001  (as are those of films)
) -> Callable[..., Ran]:
    """Runs a batch: `batch(records, max_tokens=…, fail_fast=…)`, always with the same files.

    `keep` limits the outcomes that are kept to the last ones.
    """

    def answered(records: Iterable[Any], *, keep: int | None = None, **changes: Any) -> Ran:
        questions = tmp_path / "q.jsonl"
        with questions.open("wb") as file:
            file.writelines(map(as_line, records))
        of_job = {name: changes.pop(name) for name in list(changes) if name in _OF_JOB}
        settings = settings_of(checkpoint, **changes)
        loads = 0

        def load() -> Panda:
            nonlocal loads
            loads += 1
            return panda

        with Batch(Job(str(questions), settings, **{"video_dir": clips} | of_job)) as opened:
            planned = opened.plan()
            outcomes = deque(planned.outcomes(load), maxlen=keep)
            opened.finish(print)
        assert opened.results_path
        return Ran(list(outcomes), planned.counters, loads, opened.results_path)

    return answered


_OF_JOB = {*Job.__dataclass_fields__}


def settings_of(model: Path | str = "random", **changes: Any) -> Settings:
    """Settings with short answers; fields of the spec and of the options are given by name."""

    def take(kind: Any) -> dict[str, Any]:
        return {name: changes.pop(name) for name in kind.__dataclass_fields__ if name in changes}

    spec, options = RunSpec(model, **take(RunSpec)), take(GenerationOptions)
    return Settings(spec, GenerationOptions(**{"max_tokens": 6} | options), **changes)


def ask(name: Any, video: str = "wide.avi", question: str = "Why?", **more: Any) -> dict[str, Any]:
    """A record."""
    return {"id": name, "video": video, "question": question, **more}


def as_line(record: Any) -> bytes:
    """A line of a file of questions; bytes are written unchanged."""
    return record + b"\n" if isinstance(record, bytes) else json.dumps(record).encode() + b"\n"
