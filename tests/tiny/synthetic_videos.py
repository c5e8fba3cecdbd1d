"""Random videos of moving shapes, independent of `training`.

Only the vocabulary of `tiny`'s contract is shared.
"""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

RGB = tuple[int, int, int]

ORDER = ("red", "green", "blue", "yellow", "purple", "orange", "white", "cyan")
KINDS = ("circle", "square", "triangle", "star")
DIRECTIONS = ("left", "right", "up", "down")
ACTIONS = (*DIRECTIONS, "still", "grows", "shrinks", "appears", "disappears")

PALETTES: dict[str, dict[str, RGB]] = {
    "css": {
        "red": (255, 0, 0),
        "green": (0, 128, 0),
        "blue": (0, 0, 255),
        "yellow": (255, 255, 0),
        "purple": (128, 0, 128),
        "orange": (255, 165, 0),
        "white": (255, 255, 255),
        "cyan": (0, 255, 255),
    },
    "pure": {  # as typed in (r, g, b)
        "red": (255, 0, 0),
        "green": (0, 255, 0),
        "blue": (0, 0, 255),
        "yellow": (255, 255, 0),
        "purple": (160, 32, 240),
        "orange": (255, 128, 0),
        "white": (255, 255, 255),
        "cyan": (0, 255, 255),
    },
    "soft": {  # of a design system
        "red": (220, 50, 47),
        "green": (56, 161, 70),
        "blue": (38, 99, 235),
        "yellow": (250, 204, 21),
        "purple": (147, 51, 210),
        "orange": (249, 115, 22),
        "white": (245, 245, 245),
        "cyan": (6, 200, 220),
    },
}

# top and bottom colour, and the colours of shapes that would be hard to see on it
BACKGROUNDS: dict[str, tuple[RGB, RGB, frozenset[str]]] = {
    "black": ((0, 0, 0), (0, 0, 0), frozenset()),
    "white": ((255, 255, 255), (255, 255, 255), frozenset({"white"})),
    "gray": ((128, 128, 128), (128, 128, 128), frozenset()),
    "dark blue": ((0, 0, 90), (0, 0, 90), frozenset({"blue", "purple"})),
    "dark gray": ((40, 40, 40), (40, 40, 40), frozenset()),
    "gray gradient": ((60, 60, 60), (150, 150, 150), frozenset()),
    "sky": ((90, 140, 220), (200, 220, 250), frozenset({"blue", "white", "cyan", "purple"})),
}
NAMED_BACKGROUNDS = {
    "black": "Black.",
    "white": "White.",
    "gray": "Gray.",
    "gray gradient": "Gray.",
    "dark blue": "Blue.",
}

# width, height, frames per second, seconds
FORMATS = (
    (320, 240, 25, 4.0),
    (320, 240, 25, 4.0),
    (640, 360, 30, 3.0),
    (640, 360, 30, 5.0),
    (640, 480, 24, 2.0),
    (256, 256, 10, 8.0),
    (1280, 720, 30, 3.0),
    (360, 640, 30, 4.0),
)


@dataclass(frozen=True)
class Actor:
    """A shape and what it does; places are shares of width and height, sizes of the height."""

    colour: str
    kind: str
    action: str
    start: tuple[float, float]
    end: tuple[float, float]
    radius: tuple[float, float]
    seen: tuple[float, float] = (0.0, 1.1)

    @property
    def name(self) -> str:
        """As a person calls it: "red circle"."""
        return f"{self.colour} {self.kind}"

    def at(self, time: float) -> tuple[float, float, float]:
        """Centre and radius at a time from 0 to 1; radius 0 where it cannot be seen."""
        x = self.start[0] + (self.end[0] - self.start[0]) * time
        y = self.start[1] + (self.end[1] - self.start[1]) * time
        radius = self.radius[0] + (self.radius[1] - self.radius[0]) * time
        return x, y, radius if self.seen[0] <= time < self.seen[1] else 0.0


@dataclass(frozen=True)
class SyntheticVideo:
    """A clip to be drawn."""

    actors: tuple[Actor, ...]  # in the order of ORDER
    background: str
    noise: float  # standard deviation, of 255
    palette: str
    width: int
    height: int
    fps: int
    seconds: float

    @property
    def frame_count(self) -> int:
        """How many frames it has."""
        return round(self.fps * self.seconds)


def random_video(rng: Generator) -> SyntheticVideo:
    """A video of one to three shapes that never overlap."""
    background = str(rng.choice(list(BACKGROUNDS)))
    width, height, fps, seconds = FORMATS[int(rng.integers(len(FORMATS)))]
    choice = [colour for colour in ORDER if colour not in BACKGROUNDS[background][2]]
    count = int(rng.choice([1, 2, 3], p=[0.5, 0.3, 0.2]))
    colours = sorted(rng.choice(choice, count, replace=False).tolist(), key=ORDER.index)
    while True:
        actors = tuple(random_actor(rng, colour, width / height, count) for colour in colours)
        if _never_overlap(actors, width / height):
            break
    return SyntheticVideo(
        actors,
        background,
        float(rng.choice([0, 0, 0, 6, 14])),
        str(rng.choice(list(PALETTES))),
        width,
        height,
        fps,
        seconds,
    )


def random_actor(
    rng: Generator, colour: str, aspect: float, count: int = 1, action: str | None = None
) -> Actor:
    """A shape with an action, well inside a frame of this aspect ratio."""
    action = action or str(rng.choice(ACTIONS))
    size = float(rng.uniform(0.08, 0.2 if count == 1 else 0.14)) * min(1.0, aspect)
    radius = (size, size)
    if action == "grows":
        radius = (size / float(rng.uniform(2, 3)), size)
    elif action == "shrinks":
        radius = (size, size / float(rng.uniform(2, 3)))
    edge_x, edge_y = size / aspect + 0.02, size + 0.02
    x, y = float(rng.uniform(edge_x, 1 - edge_x)), float(rng.uniform(edge_y, 1 - edge_y))
    start = end = (x, y)
    if action in DIRECTIONS:
        edge = edge_x if action in ("left", "right") else edge_y
        low, high = (edge, 1 - edge) if rng.random() < 0.5 else _partial_path(rng, edge)
        far = (low, high) if action in ("right", "down") else (high, low)
        start, end = ((v, y) if action in ("left", "right") else (x, v) for v in far)
    moment = float(rng.uniform(0.3, 0.7))
    seen = {"appears": (moment, 1.1), "disappears": (0.0, moment)}.get(action, (0.0, 1.1))
    return Actor(colour, str(rng.choice(KINDS)), action, start, end, radius, seen)


def _partial_path(rng: Generator, edge: float) -> tuple[float, float]:
    room = 1 - 2 * edge
    length = room * float(rng.uniform(0.5, 0.9))
    low = edge + float(rng.uniform(0, room - length))
    return low, low + length


def _never_overlap(actors: tuple[Actor, ...], aspect: float) -> bool:
    for i, one in enumerate(actors):
        for other in actors[:i]:
            for time in np.linspace(0, 1, 21):
                (x, y, _), (u, v, _) = one.at(float(time)), other.at(float(time))
                if np.hypot((x - u) * aspect, y - v) < 1.3 * (max(one.radius) + max(other.radius)):
                    return False
    return True
