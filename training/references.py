"""Referring expressions for the shapes of a scene, and their relative positions."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.random import Generator

from training.scenes import Scene, Shape
from training.templates import ACTIVE_VERBS

T = TypeVar("T")


def references_to(scene: Scene, shape: Shape, rng: Generator, *, without: str) -> list[str]:
    """Unambiguous names of a shape that do not reveal the attribute `without`."""
    others = [other for other in scene.shapes if other is not shape]
    noun = pick(rng, ("shape", "object", "one", "figure", "thing"))
    names: list[str] = []
    if not others:
        names += [f"the {noun}" if noun != "one" else "the shape", "it"]
    if without != "kind" and all(other.kind != shape.kind for other in others):
        names += [f"the {shape.kind}"] * 2
    if without != "colour" and all(other.colour != shape.colour for other in others):
        names += [f"the {shape.colour} {noun}"]
        if without != "kind":
            names += [f"the {shape.name}"]
    if without in ("colour", "kind") and all(other.motion != shape.motion for other in others):
        noun = "shape" if noun == "one" else noun
        names += [f"the {noun} that {pick(rng, ACTIVE_VERBS[shape.motion])}"]
    if without == "motion":
        names += [f"the {shape.name}"] * 2
    return names


def relation(scene: Scene, one: Shape, other: Shape) -> tuple[str, str]:
    """Position of `one` relative to `other`, if it holds throughout the clip.

    Returns:
        ("left", "right" or "", "above", "below" or ""); empty where it changes or is unclear.
    """
    short = min(scene.width, scene.height)
    across: set[str] = set()
    along: set[str] = set()
    for time in np.linspace(0, 1, 33):
        moment = float(time)
        (x0, y0, r0), (x1, y1, r1) = one.at(moment), other.at(moment)
        reach = 0.7 * (r0 + r1) * short
        dx, dy = (x1 - x0) * scene.width, (y1 - y0) * scene.height
        across.add("left" if dx > reach else "right" if dx < -reach else "")
        along.add("above" if dy > reach else "below" if dy < -reach else "")
    return (
        across.pop() if len(across) == 1 else "",
        along.pop() if len(along) == 1 else "",
    )


def with_article(name: str) -> str:
    """The name with "a" or "an" in front."""
    return f"{'an' if name.startswith(('orange', 'object')) else 'a'} {name}"


def as_sentence(word: str) -> str:
    """A word as an answer: "Red."."""
    return f"{word.capitalize()}."


def pick(rng: Generator, options: Sequence[T]) -> T:
    """One of the options."""
    return options[int(rng.integers(len(options)))]
