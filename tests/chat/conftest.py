"""The small model, video files, and chats about clips that need no file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pandacli import Panda
from pandacli.chat.chat import Chat, SampledClip
from pandacli.inference.backends import SharedPrefix
from pandacli.inference.spec import GenerationOptions
from pandacli.video import Clip, Frames, VideoInfo
from tests.inference.conftest import clip as clip
from tests.inference.conftest import make_clip as make_clip
from tests.inference.conftest import panda as panda

QUESTION, OTHER = "What happens?", "Is there a circle?"

StartChat = Callable[..., Chat]


def sampled_clip(
    clip: Clip, *, shade: int = 90, notices: tuple[str, ...] = (), num_frames: int = 4
) -> SampledClip:
    """Two grey frames in place of those of a clip; with num_frames=64 too many for the model."""
    pixels = np.full((2, 48, 64, 3), shade, np.uint8)
    info = VideoInfo(64, 48, 10.0, 20, 2.0, "mpeg4", True, tuple(n / 10 for n in range(20)))
    frames = Frames(pixels, (0, 10), (0.0, 1.0), info, notices)
    return SampledClip(clip, frames, 0.1, 112, num_frames)


@pytest.fixture
def source(tmp_path: Path) -> Clip:
    """A clip without a file."""
    return Clip(tmp_path / "clip.mp4")


@pytest.fixture
def start_chat(panda: Panda, source: Clip, tmp_path: Path) -> StartChat:
    """Starts a chat about `source`, logged to log.json."""

    def start(load: Callable[..., Panda] = lambda _: panda, **options: Any) -> Chat:
        arguments = {"log": tmp_path / "log.json", "clip": sampled_clip(source)} | options
        chosen = GenerationOptions(max_tokens=6)
        return Chat(load, "small", arguments.pop("clip"), chosen, **arguments)

    return start


@pytest.fixture
def interrupt_after(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Raises Ctrl-C, or another error, once, after a number of decoded tokens."""

    def interrupt(count: int, error: BaseException | None = None) -> None:
        read_on, left = SharedPrefix.decode, iter(range(count, -1, -1))

        def read(self: SharedPrefix, token: int) -> Any:
            if next(left, -1) == 0:
                raise error or KeyboardInterrupt
            return read_on(self, token)

        monkeypatch.setattr(SharedPrefix, "decode", read)

    return interrupt


def answer(chat: Chat, question: str) -> str:
    """Ask, and read the answer to its end."""
    return "".join(chat.ask(question))


def questions(chat: Chat) -> list[str]:
    return [turn.question for turn in chat.turns]
