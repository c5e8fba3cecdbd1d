"""Questions about a synthetic video, and the answers promised by `tiny`'s contract."""

from collections.abc import Iterator
from dataclasses import dataclass

from numpy.random import Generator

from tests.tiny.synthetic_videos import DIRECTIONS, NAMED_BACKGROUNDS, Actor, SyntheticVideo

_NUMBERS = ("Zero.", "One.", "Two.", "Three.")
_DOES = {
    "still": "stays still",
    **{way: f"moves {way}" for way in DIRECTIONS},
    **{act: act for act in ("grows", "shrinks", "appears", "disappears")},
}


@dataclass(frozen=True)
class Exchange:
    """Consecutive questions; the answer to the last one is scored."""

    kind: str
    questions: tuple[str, ...]
    answer: str


def describe(video: SyntheticVideo) -> str:
    """One sentence per shape."""
    return " ".join(f"{_a(actor.name)} {_DOES[actor.action]}." for actor in video.actors)


def exchanges(video: SyntheticVideo, rng: Generator) -> Iterator[Exchange]:
    """One or two questions of every kind that applies to the video."""

    def one(kind: str, answer: str, *forms: str) -> Exchange:
        return Exchange(kind, (str(rng.choice(forms)),), answer)

    yield one("describe", describe(video), "What happens?", "what happens?")
    yield one("describe", describe(video), "Describe the video.", "What is going on in this clip?")
    yield one(
        "count",
        _NUMBERS[len(video.actors)],
        "How many shapes are there?",
        "How many objects are in the video?",
    )
    if video.background in NAMED_BACKGROUNDS:
        answer = NAMED_BACKGROUNDS[video.background]
        yield one("background", answer, "What colour is the background?", "What is the background?")
    actor = video.actors[int(rng.integers(len(video.actors)))]
    yield from _about_one(video, actor, rng)
    yield from _positions(video)
    yield from _first(video)


def _about_one(video: SyntheticVideo, actor: Actor, rng: Generator) -> Iterator[Exchange]:
    def ask(kind: str, answer: str, *forms: str) -> Exchange:
        return Exchange(kind, (str(rng.choice(forms)),), answer)

    alone = len(video.actors) == 1
    only_kind = sum(other.kind == actor.kind for other in video.actors) == 1
    it = "the shape" if alone else f"the {actor.name}"
    colour = f"{actor.colour.capitalize()}."
    if only_kind:
        the = f"the {actor.kind}"
        yield ask("colour", colour, f"What colour is {the}?", f"What color is {the}?")
    yield ask(
        "shape",
        f"A {actor.kind}.",
        f"What shape is the {actor.colour} object?",
        f"What kind of shape is the {actor.colour} one?",
    )
    does = f"It {_DOES[actor.action]}."
    yield ask("motion", does, f"What does {it} do?", f"What happens to the {actor.name}?")
    moves = actor.action in DIRECTIONS
    way = f"{actor.action.capitalize()}." if moves else "It does not move."
    yield ask("direction", way, f"Which way does {it} move?", f"In which direction does {it} move?")
    yield from _yes_no(video, actor, it, rng)
    question = f"Is there {_a(actor.name).lower()}?"
    yield Exchange("follow-up", (question, "And what does it do?"), does)
    if alone:
        yield Exchange("follow-up", ("What happens?", "And what colour is it?"), colour)
    elif [other.action for other in video.actors].count(actor.action) == 1 and moves:
        opening = f"Which shape moves {actor.action}?"
        yield Exchange("shape", (opening,), f"The {actor.name}.")
        yield Exchange("follow-up", (opening, "And what colour is it?"), colour)


def _yes_no(video: SyntheticVideo, actor: Actor, it: str, rng: Generator) -> Iterator[Exchange]:
    wrong = {"left": "right", "right": "left", "up": "down", "down": "up"}
    if actor.action in DIRECTIONS:
        claimed = actor.action if rng.random() < 0.5 else wrong[actor.action]
        answer = "Yes." if claimed == actor.action else "No."
        yield Exchange("yes/no", (f"Does {it} move {claimed}?",), answer)
    else:
        yield Exchange("yes/no", (f"Is {it} moving?",), "No.")
    kind = str(rng.choice(["circle", "square", "triangle", "star"]))
    there = any(other.kind == kind for other in video.actors)
    yield Exchange("yes/no", (f"Is there a {kind}?",), "Yes." if there else "No.")


def _positions(video: SyntheticVideo) -> Iterator[Exchange]:
    """Relative positions of two shapes at rest, if clearly apart."""
    rest = [a for a in video.actors if a.start == a.end and a.seen == (0.0, 1.1)]
    if len(rest) < 2:
        return
    one, other = rest[:2]
    dx = (other.start[0] - one.start[0]) * video.width / video.height
    dy = other.start[1] - one.start[1]
    clear = max(one.radius) + max(other.radius) + 0.1
    if abs(dx) > clear:
        question = f"Is the {one.name} left or right of the {other.name}?"
        yield Exchange("position", (question,), "Left." if dx > 0 else "Right.")
    if abs(dy) > clear:
        question = f"Is the {one.name} above or below the {other.name}?"
        yield Exchange("position", (question,), "Above." if dy > 0 else "Below.")


def _first(video: SyntheticVideo) -> Iterator[Exchange]:
    seen = sorted(video.actors, key=lambda actor: actor.seen[0])
    if len(seen) > 1 and seen[1].seen[0] - seen[0].seen[0] > 0.25:
        yield Exchange("first", ("Which shape appears first?",), f"The {seen[0].name}.")


def _a(name: str) -> str:
    return f"An {name}" if name.startswith("orange") else f"A {name}"
