"""Clips that are looked at in groups keep their order and their errors."""

from pathlib import Path

import numpy as np
import pytest

from pandacli import Panda
from pandacli.errors import ClipError, PandaError
from pandacli.inference import Answer, GenerationOptions
from pandacli.inference.spec import Scores
from pandacli.inference.windows import WindowBatch
from pandacli.timeline.looking import answers, scores
from pandacli.video import Frames, VideoInfo

CHOICES = ("Yes.", "No.")
DAMAGED = ClipError("these frames are damaged")


@pytest.fixture(scope="module")
def panda(checkpoint: Path) -> Panda:
    return Panda.load(checkpoint, device="cpu")


@pytest.fixture(scope="module")
def looks() -> list[tuple[str, Frames | PandaError]]:
    """Twelve clips, of which the third and the last are damaged."""
    rng, times = np.random.default_rng(1), tuple(number / 8 for number in range(8))
    info = VideoInfo(64, 48, 8.0, 8, 1.0, "h264", True, times)
    found: list[tuple[str, Frames | PandaError]] = []
    for name in "abcdefghijkl":
        pixels = rng.integers(0, 256, (8, 48, 64, 3), np.uint8)
        damaged = name in "cl"
        frames = Frames(pixels, tuple(range(8)), times, info)
        found.append((name, DAMAGED if damaged else frames))
    return found


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many clips were looked at together, from now on."""
    counted: list[int] = []
    make = WindowBatch.__init__

    def watched(batch: WindowBatch, panda: Panda, frames: list[Frames], *rest: object) -> None:
        counted.append(len(frames))
        make(batch, panda, frames, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(WindowBatch, "__init__", watched)
    return counted


def test_answers_come_in_order_with_errors_between(
    panda: Panda, looks: list[tuple[str, Frames | PandaError]], sizes: list[int]
) -> None:
    for item, frames, found in answers(panda, looks, ["what?", "why?"], GenerationOptions(4)):
        given = dict(looks)[item]
        if given is DAMAGED:
            assert (frames, found) == (None, [DAMAGED, DAMAGED])
            continue
        assert isinstance(given, Frames)
        session = panda.open(given)
        assert frames is given
        assert list(map(str, found)) == [
            str(session.ask(question, max_tokens=4)) for question in ("what?", "why?")
        ]
    assert item == "l"
    assert sizes == [1, 7, 2]


def test_scores_come_in_order_with_errors_between(
    panda: Panda, looks: list[tuple[str, Frames | PandaError]], sizes: list[int]
) -> None:
    found = [*scores(panda, looks, "is it?", CHOICES)]
    assert [item for item, _, _ in found] == [*"abcdefghijkl"]
    for (_, given), (_, frames, scored) in zip(looks, found, strict=True):
        if isinstance(given, PandaError):
            assert (frames, scored) == (None, given)
            continue
        assert isinstance(scored, Scores)
        expected = panda.open(given).score("is it?", CHOICES)
        assert scored.choices[0].logprob == pytest.approx(expected.choices[0].logprob, abs=1e-4)
    assert sizes == [7, 3]


def test_the_first_answer_does_not_wait_for_other_frames(
    panda: Panda, looks: list[tuple[str, Frames | PandaError]]
) -> None:
    drawn = iter(looks)
    _, _, (answer,) = next(answers(panda, drawn, ["what?"], GenerationOptions(4)))
    assert isinstance(answer, Answer)
    assert next(drawn)[0] == "b"
