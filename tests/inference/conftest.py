"""The small model loaded, and clips for it."""

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from pandacli import Panda
from pandacli.inference.session import VideoSession
from tests.inference.batches import REQUESTS, ask


@pytest.fixture(scope="session")
def panda(checkpoint: Path) -> Panda:
    """The small model, loaded on the CPU."""
    return Panda.load(checkpoint, device="cpu")


@pytest.fixture(scope="session")
def make_clip(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes clips of coloured noise that drifts."""
    folder = tmp_path_factory.mktemp("clips")

    def write(name: str, *, seconds: int = 9, width: int = 64, height: int = 48) -> Path:
        path = folder / name
        scene = np.random.default_rng(len(name)).integers(0, 256, (height, width, 3), np.uint8)
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mpeg4", rate=4)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for number in range(4 * seconds):
                picture = np.roll(scene, 3 * number, axis=1)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
        return path

    return write


@pytest.fixture(scope="session")
def clip(make_clip: Callable[..., Path]) -> Path:
    """A clip of nine seconds, 4:3."""
    return make_clip("drift.mp4")


@pytest.fixture
def session(panda: Panda, clip: Path) -> VideoSession:
    return panda.open(clip)


@pytest.fixture
def single(session: VideoSession) -> list[str]:
    """The answers to `REQUESTS`, each asked by itself."""
    return [ask(session, request).text for request in REQUESTS]
