"""Random scenes of moving shapes, described independently of the resolution.

All numbers are fractions: x and y of the frame's width and height, radii of its shorter side, times
of the clip's length. The limits here are the contract of `tiny`: every motion is unmistakable.
"""

import colorsys
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator

from pandacli.video import sample_indices

COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "white", "cyan")
KINDS = ("circle", "square", "triangle", "star")
MOTIONS = (
    "left",
    "right",
    "up",
    "down",
    "still",
    "grows",
    "shrinks",
    "appears",
    "disappears",
)
DIRECTIONS = MOTIONS[:4]
BACKGROUND_COLOURS = (*COLOURS, "black", "gray")

Colour = tuple[int, int, int]

# hue in degrees, saturation and value: ranges that have no other common name
_SHADES: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "red": ((-9, 7), (0.78, 1.0), (0.62, 1.0)),
    "orange": ((23, 38), (0.8, 1.0), (0.88, 1.0)),
    "yellow": ((51, 61), (0.62, 1.0), (0.84, 1.0)),
    "green": ((94, 148), (0.55, 1.0), (0.4, 1.0)),
    "cyan": ((172, 190), (0.55, 1.0), (0.68, 1.0)),
    "blue": ((208, 246), (0.65, 1.0), (0.48, 1.0)),
    "purple": ((268, 302), (0.45, 1.0), (0.42, 0.95)),
    "white": ((0, 360), (0.0, 0.05), (0.92, 1.0)),
    "black": ((0, 360), (0.0, 0.4), (0.0, 0.1)),
    "gray": ((0, 360), (0.0, 0.06), (0.28, 0.7)),
}

# exact colours used by common programs
_EXACT: dict[str, tuple[Colour, ...]] = {
    "red": ((255, 0, 0), (220, 20, 60), (230, 30, 30)),
    "green": ((0, 255, 0), (0, 128, 0), (50, 205, 50), (0, 200, 0)),
    "blue": ((0, 0, 255), (30, 144, 255), (30, 60, 220)),
    "yellow": ((255, 255, 0), (255, 215, 0), (240, 220, 30)),
    "purple": ((128, 0, 128), (160, 32, 240), (138, 43, 226), (148, 0, 211)),
    "orange": ((255, 165, 0), (255, 140, 0), (255, 128, 0)),
    "white": ((255, 255, 255), (245, 245, 245)),
    "cyan": ((0, 255, 255), (0, 206, 209), (0, 220, 220)),
    "black": ((0, 0, 0), (10, 10, 10), (20, 20, 20)),
    "gray": ((128, 128, 128), (100, 100, 100), (64, 64, 64), (160, 160, 160)),
}


@dataclass(frozen=True)
class Shape:
    """One shape and its motion; `start` and `end` are (x, y, radius)."""

    kind: str
    colour: str
    motion: str
    rgb: Colour
    start: tuple[float, float, float]
    end: tuple[float, float, float]
    turn: float = 0.0
    """Rotation in radians."""
    first: float = 0.0
    """Time from which it is visible, as a fraction of the clip."""
    last: float = 1.0
    fade: float = 0.0
    """Duration of a fade, as a fraction of the clip."""
    outline: Colour | None = None
    form: float = 0.5
    """From 0 to 1: depth of a star's notches, height of a triangle."""

    def at(self, time: float) -> tuple[float, float, float]:
        """(x, y, radius) at a time between 0 and 1."""
        x, y, radius = (
            (1 - time) * a + time * b for a, b in zip(self.start, self.end, strict=True)
        )
        return x, y, radius

    def opacity(self, time: float) -> float:
        """Its opacity at a time, from 0 to 1."""
        if self.fade == 0:
            return float(self.first <= time <= self.last)
        coming = 1.0 if self.first == 0 else (time - self.first) / self.fade
        going = 1.0 if self.last == 1 else (self.last - time) / self.fade
        return float(np.clip(min(coming, going), 0, 1))

    @property
    def name(self) -> str:
        """Its colour and kind, "red circle"."""
        return f"{self.colour} {self.kind}"


@dataclass(frozen=True)
class Background:
    """One colour, a gradient between two, or either with noise."""

    colour: str | None
    """Its name; None for a gradient between two colours."""
    rgb: Colour
    other: Colour
    """The far end of a gradient; equal to `rgb` where there is none."""
    angle: float = 0.0
    noise: float = 0.0
    """Standard deviation, in grey levels."""
    grain: int = 1
    """Size of the noise grain, in pixels."""


@dataclass(frozen=True)
class Scene:
    """The description of a clip."""

    shapes: tuple[Shape, ...]
    background: Background
    width: int
    height: int
    fps: float
    frame_count: int

    def times(self, indices: list[int]) -> list[float]:
        """The times of frames, as fractions of the clip."""
        return [index / max(1, self.frame_count - 1) for index in indices]


def random_scene(
    rng: Generator,
    *,
    width: int,
    height: int,
    shapes: int | None = None,
    longest: float = 20.0,
    easy: bool = False,
) -> Scene:
    """A random scene within the contract.

    Args:
        rng: Random generator.
        width: Frame width, in pixels.
        height: Frame height, in pixels.
        shapes: Number of shapes; by default one, two or three.
        longest: Longest clip, in seconds; the shortest is one second.
        easy: Plain backgrounds and large shapes only, for the start of training.
    """
    count = shapes or int(rng.choice([1, 2, 3], p=[0.3, 0.35, 0.35]))
    fps = float(rng.choice([10, 12, 15, 20, 23.976, 24, 25, 29.97, 30, 50, 60]))
    seconds = float(np.exp(rng.uniform(np.log(1.0), np.log(longest))))
    aspect = width / height
    while True:
        background = _random_background(rng, plain=easy)
        placed: list[Shape] = []
        looks = _random_looks(rng, count, background)
        motions = _random_motions(rng, count)
        for look, motion in zip(looks, motions, strict=True):
            for _ in range(12):
                shape = _random_shape(rng, look, motion, count, aspect, easy=easy)
                if not any(_touch(shape, other, aspect) for other in placed):
                    placed.append(shape)
                    break
            else:
                break
        if len(placed) == count:
            order = sorted(placed, key=lambda s: (COLOURS.index(s.colour), KINDS.index(s.kind)))
            frame_count, seen = _length(fps, round(fps * seconds))
            shapes_seen = tuple(
                replace(s, first=s.first * seen, last=_until(s, seen)) for s in order
            )
            return Scene(shapes_seen, background, width, height, fps, frame_count)


def _length(fps: float, frame_count: int) -> tuple[int, float]:
    """A frame count that the sampled frames cover well, and the fraction they reach."""
    frame_count = max(8, frame_count)
    if sample_indices(fps, frame_count)[-1] < 0.8 * (frame_count - 1):
        frame_count = (frame_count - 1) // 7 * 7 + 1
    return frame_count, sample_indices(fps, frame_count)[-1] / (frame_count - 1)


def _until(shape: Shape, seen: float) -> float:
    return shape.last if shape.last == 1 else shape.last * seen


def mirrored(scene: Scene) -> Scene:
    """The scene mirrored left to right."""
    swap = {"left": "right", "right": "left"}

    def flip(shape: Shape) -> Shape:
        (x0, y0, r0), (x1, y1, r1) = shape.start, shape.end
        return replace(
            shape,
            motion=swap.get(shape.motion, shape.motion),
            start=(1 - x0, y0, r0),
            end=(1 - x1, y1, r1),
            turn=-shape.turn,
        )

    return replace(scene, shapes=tuple(map(flip, scene.shapes)))


def shade(rng: Generator, name: str) -> Colour:
    """A random RGB value, 0 to 255, of a named colour."""
    if rng.random() < 0.35:
        exact = _EXACT[name]
        return exact[int(rng.integers(len(exact)))]
    hue, saturation, value = (rng.uniform(*span) for span in _SHADES[name])
    red, green, blue = colorsys.hsv_to_rgb((hue % 360) / 360, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def distance(a: Colour, b: Colour) -> float:
    """Perceptual distance of two colours, 0 to about 1 (weighted RGB)."""
    weights = np.array([0.3, 0.5, 0.2])
    squares = weights * (np.subtract(a, b, dtype=np.float64) / 255) ** 2
    return float(np.sqrt(squares.sum()))


def _random_looks(
    rng: Generator, count: int, background: Background
) -> list[tuple[str, str, Colour]]:
    """Kind, colour and shade of each shape: distinct, and visible on the background."""
    looks: list[tuple[str, str, Colour]] = []
    for _ in range(200):
        if len(looks) == count:
            return looks
        kind, colour = str(rng.choice(KINDS)), str(rng.choice(COLOURS))
        if colour == background.colour:
            continue
        repeated = any(colour == other for _, other, _ in looks)
        if repeated and (rng.random() < 0.8 or any(kind == other for other, _, _ in looks)):
            continue
        rgb = shade(rng, colour)
        if min(distance(rgb, background.rgb), distance(rgb, background.other)) < 0.22:
            continue
        looks.append((kind, colour, rgb))
    return _random_looks(rng, count, _random_background(rng, plain=True, colour="black"))


def _random_motions(rng: Generator, count: int) -> list[str]:
    weights = np.array([1.3, 1.3, 1.3, 1.3, 1.2, 1, 1, 1, 1])
    motions = [str(m) for m in rng.choice(MOTIONS, count, p=weights / weights.sum())]
    if count > 1 and rng.random() < 0.25:  # something for "which appears first?"
        motions[0] = "appears"
        if rng.random() < 0.5:
            motions[1] = "appears"
    return motions


def _random_shape(
    rng: Generator,
    look: tuple[str, str, Colour],
    motion: str,
    count: int,
    aspect: float,
    *,
    easy: bool,
) -> Shape:
    kind, colour, rgb = look
    largest = (0.27, 0.23, 0.2)[count - 1]
    smallest = 0.12 if easy else 0.068
    radius = float(rng.uniform(smallest, largest))
    start_radius = end_radius = radius
    if motion in ("grows", "shrinks"):
        factor = float(rng.uniform(1.7, 3.5))
        large = float(rng.uniform(0.15, largest * 1.25))
        start_radius, end_radius = max(0.045, large / factor), large
        if motion == "shrinks":
            start_radius, end_radius = end_radius, start_radius
        radius = max(start_radius, end_radius)
    # room around the centre, as fractions of width and height
    rx, ry = (radius / aspect, radius) if aspect > 1 else (radius, radius * aspect)
    x, y = (float(rng.uniform(min(r, 0.5), max(1 - r, 0.5))) for r in (rx, ry))
    end_x, end_y = x, y
    if motion in DIRECTIONS:
        horizontal = motion in ("left", "right")
        low, high = _travel(rng, rx if horizontal else ry)
        if motion in ("left", "up"):
            low, high = high, low
        drift = float(rng.uniform(-0.03, 0.03))
        if horizontal:
            x, end_x, end_y = low, high, y + drift
        else:
            y, end_y, end_x = low, high, x + drift
    first, last, fade = 0.0, 1.0, 0.0
    if motion == "appears":
        first = float(rng.uniform(0.2, 0.72))
    elif motion == "disappears":
        last = float(rng.uniform(0.28, 0.8))
    if motion in ("appears", "disappears") and rng.random() < 0.3:
        fade = float(rng.uniform(0.02, 0.12))
    outline: Colour | None = None
    if not easy and rng.random() < 0.12:
        outline = (0, 0, 0) if rng.random() < 0.6 else (255, 255, 255)
    return Shape(
        kind,
        colour,
        motion,
        rgb,
        (x, y, start_radius),
        (end_x, end_y, end_radius),
        turn=_random_turn(rng, kind),
        first=first,
        last=last,
        fade=fade,
        outline=outline,
        form=float(rng.uniform()),
    )


def _travel(rng: Generator, radius: float) -> tuple[float, float]:
    """Start and end of a motion along one axis, at least a quarter of the frame apart."""
    low_edge, high_edge = min(radius, 0.35), max(1 - radius, 0.65)
    if rng.random() < 0.15:  # enters or leaves the frame
        low_edge, high_edge = (-radius, high_edge) if rng.random() < 0.5 else (low_edge, 1 + radius)
    span = float(rng.uniform(0.25, max(0.26, high_edge - low_edge)))
    low = float(rng.uniform(low_edge, max(low_edge + 1e-6, high_edge - span)))
    return low, low + span


def _random_turn(rng: Generator, kind: str) -> float:
    """A rotation: mostly none, sometimes a tilt, any angle for a triangle or star."""
    if rng.random() < 0.55:
        return 0.0
    if kind == "square":
        return float(rng.uniform(-0.3, 0.3)) if rng.random() < 0.8 else np.pi / 4
    return (
        float(rng.uniform(-np.pi, np.pi)) if rng.random() < 0.4 else float(rng.uniform(-0.3, 0.3))
    )


def _touch(one: Shape, other: Shape, aspect: float) -> bool:
    """Whether two shapes overlap at any time."""
    wide, high = (aspect, 1.0) if aspect > 1 else (1.0, 1 / aspect)
    for time in np.linspace(0, 1, 17):
        (x0, y0, r0), (x1, y1, r1) = one.at(float(time)), other.at(float(time))
        if np.hypot((x0 - x1) * wide, (y0 - y1) * high) < 1.05 * (r0 + r1):
            return True
    return False


def _random_background(rng: Generator, *, plain: bool, colour: str | None = None) -> Background:
    weights = np.array([1, 1, 1.2, 1, 1, 1, 2, 1, 4, 2.2])
    name = colour or str(rng.choice(BACKGROUND_COLOURS, p=weights / weights.sum()))
    rgb = shade(rng, name)
    other, noise, grain = rgb, 0.0, 1
    named: str | None = name
    kind = (
        "plain" if plain else str(rng.choice(["plain", "gradient", "noise"], p=[0.5, 0.25, 0.25]))
    )
    if kind == "gradient":
        if rng.random() < 0.5:
            other = shade(rng, name)
        else:
            other = shade(rng, str(rng.choice(BACKGROUND_COLOURS)))
            named = name if distance(rgb, other) < 0.05 else None
    elif kind == "noise":
        noise, grain = float(rng.uniform(5, 40)), int(rng.choice([1, 1, 2, 4]))
    return Background(named, rgb, other, float(rng.uniform(0, 2 * np.pi)), noise, grain)
