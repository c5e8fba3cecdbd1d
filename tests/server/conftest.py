"""The small model, clips for it, and an engine whose results are waited for."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

from pandacli import Panda
from pandacli.inference.continuous_batching import Generation
from pandacli.inference.session import VideoSession
from pandacli.inference.spec import Answer, GenerationOptions, Request, ScoreRequest, Scores
from pandacli.server.clips import ClipKey, Result, Ticket
from pandacli.server.engine import Engine
from pandacli.video import Clip, Frames
from pandacli.video.prefetch import read_fitted
from tests.inference.conftest import clip as clip
from tests.inference.conftest import make_clip as make_clip
from tests.inference.conftest import panda as panda

IMAGE_SIZE = 112  # of the small model


class Asked:
    """A request to an engine, with the results that were delivered."""

    def __init__(
        self, engine: Engine, path: Path, request: Request | ScoreRequest, system: str | None = None
    ) -> None:
        self.results: Queue[Result] = Queue()
        key = ClipKey.of(Clip(path), 8, system)
        frames = engine.frames(key) or read_fitted(key.clip, 8, IMAGE_SIZE)
        self.frames: Frames = frames
        self.ticket: Ticket = engine.submit(key, frames, request, self.results.put)

    def last(self) -> Result:
        """The last result, once it is delivered."""
        while isinstance(result := self.results.get(timeout=20), str):
            pass
        return result

    def answer(self) -> str:
        result = self.last()
        assert isinstance(result, Answer), result
        return result.text

    def scores(self) -> Scores:
        result = self.last()
        assert isinstance(result, Scores), result
        return result


def question(text: str, tokens: int = 8) -> Request:
    return Request(text, options=GenerationOptions(max_tokens=tokens))


class Gate:
    """Lets the passes of a model begin one by one, and counts them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.passes: list[VideoSession] = []
        self.opened = threading.Event()
        self.opened.set()
        self.waiting = threading.Event()
        run = Generation._run

        def counted(generation: Generation) -> Any:
            for events in run(generation):
                self.passes.append(generation._session)
                self.waiting.set()
                assert self.opened.wait(20)
                yield events

        monkeypatch.setattr(Generation, "_run", counted)

    def close(self) -> None:
        self.opened.clear()
        self.waiting.clear()

    def wait(self) -> None:
        """Until a pass waits."""
        assert self.waiting.wait(20)


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(monkeypatch)


@pytest.fixture
def engine(panda: Panda) -> Iterator[Engine]:
    with Engine(lambda: panda) as running:
        yield running


@pytest.fixture(scope="module")
def place(short_folder: Path) -> Path:
    """The path of a socket."""
    return short_folder / "s"


@pytest.fixture(scope="session")
def clips(make_clip: Callable[..., Path]) -> list[Path]:
    """Three clips, each with a picture of its own."""
    return [make_clip(f"clip{'x' * number}.mp4", seconds=3) for number in range(3)]
