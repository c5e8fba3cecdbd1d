"""Random films of one to two minutes in which shapes come and go, with what is true of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from tests.tiny.renderers import RENDERERS, Picture
from tests.tiny.synthetic_videos import BACKGROUNDS, KINDS, ORDER, PALETTES, Actor, random_actor

Range = tuple[float, float]

SIZES = ((320, 240), (426, 240), (256, 256), (240, 426), (640, 360))
RATES = (Fraction(8), Fraction(10), Fraction(24000, 1001), Fraction(25), Fraction(30000, 1001))
CONTAINERS = {  # suffix and codec
    "mp4": "libx264",
    "mkv": "libx264",
    "webm": "libvpx",
    "ts": "mpeg2video",
    "avi": "mpeg4",
}
_CONSTANT = ("webm", "ts", "avi")  # whose encoders need a steady rate, or take very long
_TICK = Fraction(1, 1000)
_TS_RATE = Fraction(25)  # MPEG-2 knows few rates
_SHORTEST, _LONGEST = 3.0, 25.0  # seconds that a shape stays
_GAP = 4.0  # seconds at least between two appearances of one shape


@dataclass(frozen=True)
class Appearance:
    """A shape that is there for a while, and moves across its place meanwhile."""

    actor: Actor
    start: float
    end: float

    def at(self, seconds: float) -> tuple[float, float, float]:
        """Centre and radius as of `Actor.at`."""
        share = (seconds - self.start) / (self.end - self.start)
        return self.actor.at(share) if 0 <= share < 1 else (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Film:
    """A film to be drawn, and a question with the ranges in which its answer is yes."""

    appearances: tuple[Appearance, ...]
    seconds: float
    size: tuple[int, int]
    rate: Fraction
    is_steady: bool  # else the frames are shown for varying times
    background: str
    palette: str
    renderer: str
    container: str

    @property
    def shapes(self) -> set[tuple[str, str]]:
        """The colour and kind of all that appear."""
        return {(each.actor.colour, each.actor.kind) for each in self.appearances}

    def ranges(self, kind: str, colour: str | None = None) -> list[Range]:
        """When a shape of a kind, and a colour if given, is to be seen."""
        found: list[Range] = []
        for each in sorted(self.appearances, key=lambda each: each.start):
            if each.actor.kind != kind or colour not in (None, each.actor.colour):
                continue
            if found and each.start <= found[-1][1]:
                found[-1] = found[-1][0], max(found[-1][1], each.end)
            else:
                found.append((each.start, each.end))
        return found


def random_film(rng: Generator, number: int, longest: float = 120.0) -> Film:
    """A film of two to four different shapes, each of which comes one to three times."""
    seconds = float(rng.uniform(longest / 2, longest))
    container = list(CONTAINERS)[number % len(CONTAINERS)]
    width, height = SIZES[int(rng.integers(len(SIZES)))]
    background = str(rng.choice(list(BACKGROUNDS)))
    colours = [colour for colour in ORDER if colour not in BACKGROUNDS[background][2]]
    chosen = rng.choice(colours, int(rng.integers(2, 5)), replace=False).tolist()
    kinds = rng.choice(KINDS, len(chosen)).tolist()
    return Film(
        tuple(_appearances(rng, list(zip(chosen, kinds, strict=True)), seconds, width / height)),
        seconds,
        (width, height),
        RATES[int(rng.integers(len(RATES)))] if container != "ts" else _TS_RATE,
        container in _CONSTANT or bool(rng.random() < 0.5),
        background,
        str(rng.choice(list(PALETTES))),
        list(RENDERERS)[number % len(RENDERERS)],
        container,
    )


def _appearances(
    rng: Generator, shapes: list[tuple[str, str]], seconds: float, aspect: float
) -> Iterator[Appearance]:
    """Each shape has a row of its own in the picture, so that none hides another."""
    for row, (colour, kind) in enumerate(shapes):
        at = float(rng.uniform(-2, seconds / 2))
        for _ in range(int(rng.integers(1, 4))):
            end = at + float(rng.uniform(_SHORTEST, _LONGEST))
            if end > seconds:
                break
            actor = random_actor(
                rng, colour, aspect, len(shapes), str(rng.choice(("still", "left", "right")))
            )
            yield Appearance(_in_row(actor, kind, row, len(shapes)), max(at, 0.0), end)
            at = end + float(rng.uniform(_GAP, 20))


def _in_row(actor: Actor, kind: str, row: int, rows: int) -> Actor:
    radius = min(actor.radius[0], 0.42 / rows)
    y = (row + 0.5) / rows
    return Actor(
        actor.colour, kind, actor.action, (actor.start[0], y), (actor.end[0], y), (radius, radius)
    )


def write_film(film: Film, stem: Path) -> Path:
    """Draw a film into a file at `stem` plus its suffix."""
    path = stem.with_suffix(f".{film.container}")
    codec = CONTAINERS[film.container]
    rng = np.random.default_rng(0)
    step = 1 / float(film.rate)
    times = np.arange(int(film.seconds / step)) * step
    with av.open(str(path), "w") as container:
        fast = {"deadline": "realtime", "cpu-used": "8"} if codec == "libvpx" else {}
        stream = container.add_stream(codec, rate=film.rate, options=fast)
        stream.width, stream.height, stream.pix_fmt = *film.size, "yuv420p"
        stream.bit_rate = 1_000_000
        if not film.is_steady:
            stream.codec_context.time_base = _TICK
            times = times + rng.uniform(0, 0.4 * step, len(times))
        for number, picture in enumerate(_draw(film, times)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if not film.is_steady:
                frame.pts, frame.time_base = round(times[number] / _TICK), _TICK
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def _draw(film: Film, times: NDArray[np.float64]) -> Iterator[Picture]:
    width, height = film.size
    top, bottom, _ = BACKGROUNDS[film.background]
    share = np.linspace(0, 1, height)[:, None, None]
    column = np.asarray(top) * (1 - share) + np.asarray(bottom) * share
    empty = np.broadcast_to(column, (height, width, 3)).astype(np.uint8)
    for seconds in times:
        picture = empty
        for each in film.appearances:
            x, y, radius = each.at(float(seconds))
            if radius:
                colour = PALETTES[film.palette][each.actor.colour]
                place = (x * width, y * height, radius * height)
                picture = RENDERERS[film.renderer](picture, each.actor.kind, colour, *place)
        yield picture
