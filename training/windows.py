"""Scenes as they are in a window of a longer film: shapes come and go, or there are none."""

from dataclasses import replace

from numpy.random import Generator

from pandacli.video import sample_indices
from training.references import pick
from training.scenes import DIRECTIONS, Scene, Shape, random_scene

_WAYS = ("stays", "stays", "comes", "goes", "comes and goes")


def random_window(rng: Generator, *, width: int, height: int) -> Scene:
    """A random scene of up to three shapes, any of which may be visible in a part of it only.

    Moving shapes come and go too, so that only questions of `training.presence` have one right
    answer.
    """
    scene = random_scene(rng, width=width, height=height)
    count = int(rng.choice([0, 1, 2, 3], p=[0.15, 0.4, 0.25, 0.2]))
    kept = rng.permutation(len(scene.shapes))[:count]
    reach = scene.times(sample_indices(scene.fps, scene.frame_count))[-1]
    shapes = (scene.shapes[number] for number in sorted(kept))
    return replace(scene, shapes=tuple(_come_and_go(shape, reach, rng) for shape in shapes))


def _come_and_go(shape: Shape, reach: float, rng: Generator) -> Shape:
    """The shape, visible in a random part of the times up to `reach`."""
    moves = shape.motion in DIRECTIONS
    if shape.motion in ("grows", "shrinks") or (way := pick(rng, _WAYS)) == "stays":
        return shape
    length = float(rng.uniform(0.5 if moves else 0.2, 0.8))
    first = {"comes": 1 - length, "goes": 0.0}.get(way, float(rng.uniform(0.05, 0.95 - length)))
    last = 1.0 if way == "comes" else (first + length) * reach
    motion = shape.motion if moves else "disappears" if way == "goes" else "appears"
    return replace(shape, motion=motion, first=first * reach, last=last, fade=0.0)
