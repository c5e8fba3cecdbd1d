"""Questions about many clips and windows: the order, the errors, and when the model is loaded."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pandacli.errors import ClipError, PandaError
from pandacli.inference import GenerationOptions
from pandacli.timeline import looking
from pandacli.timeline.asking import Asked, Look, look_at_clips, look_at_windows, outcomes
from pandacli.video import Clip
from tests.video.clips import write_clip


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film of ten seconds."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    write_clip(path, 50, rate=5)
    return path


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    path = tmp_path / "bad.mp4"
    path.write_bytes(b"no video")
    return path


def spans(looks: Any) -> list[tuple[str, Any, bool]]:
    """Name, range and whether there are frames, of each look."""
    return [
        (look.video.name, look.span and tuple(look.span), not isinstance(frames, PandaError))
        for look, frames in looks
    ]


def test_clips_keep_their_order_and_errors(film: Path, bad: Path) -> None:
    clips = [Clip(film), Clip(bad), Clip(film, 2.0, 4.0)]
    found = list(look_at_clips(clips, 4, 28))
    assert spans(found) == [
        ("film.mp4", None, True),
        ("bad.mp4", None, False),
        ("film.mp4", None, True),
    ]
    assert [look.share for look, _ in found] == pytest.approx([1 / 3, 2 / 3, 1])
    frames = found[2][1]
    assert not isinstance(frames, PandaError)
    assert min(frames.times) >= 2.0
    assert max(frames.times) < 4.0


def test_windows_cover_the_range_of_each_film(film: Path, bad: Path) -> None:
    clips = [Clip(film, 1.0), Clip(bad), Clip(film, 20.0), Clip(film, None, 3.0)]
    found = list(look_at_windows(clips, 4.0, 4, 28))
    assert spans(found) == [
        ("film.mp4", (1.0, 5.0), True),
        ("film.mp4", (5.0, 10.0), True),
        ("bad.mp4", None, False),
        ("film.mp4", None, False),
        ("film.mp4", (0.0, 3.0), True),
    ]
    assert [look.share for look, _ in found] == pytest.approx([0.125, 0.25, 0.5, 0.75, 1])
    assert found[0][0].windows == 2


class FakeAnswers:
    """In place of the model: what was asked about, and an answer made of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loaded: list[int] = []
        for name in ("answers", "scores_of_all"):
            monkeypatch.setattr(looking, name, self._answer_as(name))

    def _answer_as(self, name: str) -> Any:
        def answer(_: Any, looks: Any, questions: Sequence[str], *how: Any, **more: Any) -> Any:
            for look, frames in looks:
                failed = isinstance(frames, PandaError)
                result = frames if failed else (name, frames, how[-1], more["num_frames"])
                yield look, None if failed else frames, [result for _ in questions]

        return answer

    def load(self) -> Any:
        self.loaded.append(1)


def looks_at(*frames: Any) -> Any:
    return ((Look(Path(f"{n}.mp4"), None, 1, 0.5), each) for n, each in enumerate(frames))


def test_model_is_loaded_once_with_the_first_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    fake, options = FakeAnswers(monkeypatch), GenerationOptions()
    error = ClipError("bad")
    asked = Asked(["a?", "b?"], options, num_frames=4)
    running = outcomes(looks_at(error, "x", error, "y"), asked, fake.load)
    assert next(running).results == [error]
    assert not fake.loaded
    first, second, third = running
    assert len(fake.loaded) == 1
    assert list(first.results) == [("answers", "x", options, 4)] * 2
    assert (second.frames, list(second.results)) == (None, [error]), "one error, not one a question"
    assert third.frames == "y"


def test_model_is_not_loaded_without_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    fake, error = FakeAnswers(monkeypatch), ClipError("bad")
    found = list(outcomes(looks_at(error, error), Asked(["a?"], GenerationOptions()), fake.load))
    assert [outcome.results for outcome in found] == [[error], [error]]
    assert not fake.loaded


def test_choices_are_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    fake, choices = FakeAnswers(monkeypatch), ("Yes.", "No.")
    asked = Asked(["a?"], GenerationOptions(), choices)
    (found,) = outcomes(looks_at("x"), asked, fake.load)
    assert list(found.results) == [("scores_of_all", "x", choices, 8)]
