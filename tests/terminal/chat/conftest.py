"""A small model that answers at random, clips that were never files, and somebody who types."""

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pandacli import Panda
from pandacli.chat.chat import Chat, Manner, SampledClip
from pandacli.cli import options
from pandacli.inference.prefix import SharedPrefix
from pandacli.terminal.console import Screen
from pandacli.terminal.repl import Repl
from pandacli.video import Clip, Frames, VideoInfo

Converse = Callable[..., Chat]
Capture = pytest.CaptureFixture[str]

QUESTION, OTHER = "What happens?", "Is there a circle?"


@pytest.fixture(scope="session")
def panda(checkpoint: Path) -> Panda:
    """The small model, loaded on the CPU."""
    return Panda.load(checkpoint, device="cpu")


def made_up(
    clip: Clip, *, shade: int = 90, notices: tuple[str, ...] = (), num_frames: int = 4
) -> SampledClip:
    """A clip of which two frames were sampled, all of one shade."""
    pixels = np.full((2, 48, 64, 3), shade, np.uint8)
    info = VideoInfo(64, 48, 10.0, 20, 2.0, "mpeg4", True, tuple(n / 10 for n in range(20)))
    frames = Frames(pixels, (0, 10), (0.0, 1.0), info, notices)
    return SampledClip(clip, frames, 0.1, 112, num_frames)


@pytest.fixture
def clip(tmp_path: Path) -> Clip:
    """A clip that is talked about."""
    return Clip(tmp_path / "clip.mp4")


@pytest.fixture
def start(panda: Panda, clip: Clip, tmp_path: Path) -> Callable[..., Chat]:
    """Begins to talk; `log` is `tmp_path / "log.json"` unless something else is said."""

    def start(load: Callable[..., Panda] = lambda _: panda, **more: Any) -> Chat:
        given = {"log": tmp_path / "log.json", "max_tokens": 6} | more
        manner = Manner(max_tokens=given.pop("max_tokens"))
        return Chat(load, "small", given.pop("subject", made_up(clip)), manner, **given)

    return start


def answer(talk: Chat, question: str) -> str:
    """Asks, and reads the answer to its end."""
    return "".join(talk.ask(question))


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Ctrl-C while the token is computed that comes after so many; once."""

    def interrupt(count: int, error: BaseException | None = None) -> None:
        read_on, left = SharedPrefix.decode, iter(range(count, -1, -1))

        def read(self: SharedPrefix, token: int) -> Any:
            if next(left, -1) == 0:
                raise error or KeyboardInterrupt
            return read_on(self, token)

        monkeypatch.setattr(SharedPrefix, "decode", read)

    return interrupt


class Typist:
    """Somebody who types these lines, and Ctrl-D; an exception stands for a key that raises it.

    A function in place of a line is called, and gives the line.
    """

    def __init__(self, *lines: object) -> None:
        self._lines: Iterator[object] = iter(lines)

    def read(self) -> str:
        """The next line."""
        line = next(self._lines, EOFError())
        if callable(line):
            line = line()
        if isinstance(line, BaseException):
            raise line
        return str(line)

    def refresh(self) -> None:
        """Nothing is drawn."""


def too_many_frames(subject: SampledClip) -> SampledClip:
    """The same, but more than the small model can hold."""
    return replace(subject, num_frames=64)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """What is answered to a yes or no question."""

    def say(text: str) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO(text))

    say("")
    return say


@pytest.fixture
def converse(start: Callable[..., Chat], said: Callable[[str], None]) -> Converse:
    """Types these lines, to the end."""
    del said  # nothing more than the lines is typed

    def converse(
        *lines: object,
        look: Any = made_up,
        stats: bool = False,
        **more: Any,
    ) -> Chat:
        talk = start(**more)
        talk.wait(10)
        read = {
            name: options.reader(name) for name in ("temperature", "max-tokens", "seed", "frames")
        }
        typist: Any = Typist(*lines)
        Repl(talk, typist, Screen(), look, read, pictures=False, stats=stats).run()
        return talk

    return converse


def questions(talk: Chat) -> list[str]:
    return [turn.question for turn in talk.turns]
