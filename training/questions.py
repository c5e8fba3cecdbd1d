"""Questions about a scene, in many phrasings, each with its one right answer.

The answers are the contract of `tiny`. Only questions that a viewer could answer without doubt are
asked about a scene.
"""

from collections.abc import Callable
from dataclasses import dataclass

from numpy.random import Generator

from training.presence import random_presence_question
from training.references import as_sentence, pick, references_to, relation, with_article
from training.scenes import (
    COLOURS,
    DIRECTIONS,
    KINDS,
    Scene,
    Shape,
)
from training.templates import (
    ACTIVE_VERBS,
    BACKGROUND_FORMS,
    COLOUR_FORMS,
    COUNT_FORMS,
    DESCRIBE_FORMS,
    DIRECTION_FORMS,
    FIRST_FORMS,
    KIND_FORMS,
    MOTION_FORMS,
    NUMBERS,
    OPENINGS,
    VERBS,
    WHICH_FORMS,
)
from training.yes_no import random_yes_no_question

QUESTION_KINDS = (
    "describe",
    "colour",
    "shape",
    "motion",
    "direction",
    "count",
    "background",
    "position",
    "first",
    "yes/no",
    "presence",
    "follow-up",
)


@dataclass(frozen=True)
class Dialogue:
    """Turns of (question, answer) and the kind of the last question."""

    kind: str
    turns: tuple[tuple[str, str], ...]


def describe(scene: Scene) -> str:
    """One sentence per shape, in the order of `COLOURS`."""
    sentences = []
    for shape in scene.shapes:
        article = "An" if shape.colour == "orange" else "A"
        sentences.append(f"{article} {shape.name} {VERBS[shape.motion]}.")
    return " ".join(sentences)


def random_dialogue(scene: Scene, kind: str, rng: Generator) -> Dialogue:
    """A dialogue that ends with a question of `kind`, or another kind where it has no answer."""
    turns = _ASKERS[kind](scene, rng)
    while not turns:
        kind = pick(rng, QUESTION_KINDS)
        turns = _ASKERS[kind](scene, rng)
    turns = [(_vary_spelling(question, rng), answer) for question, answer in turns]
    return Dialogue(kind, tuple(turns))


Turns = list[tuple[str, str]]


def _describe(scene: Scene, rng: Generator) -> Turns:
    return [(pick(rng, DESCRIBE_FORMS), describe(scene))]


def _colour(scene: Scene, rng: Generator) -> Turns:
    shape = pick(rng, scene.shapes)
    names = references_to(scene, shape, rng, without="colour")
    return (
        [(pick(rng, COLOUR_FORMS).format(it=pick(rng, names)), as_sentence(shape.colour))]
        if names
        else []
    )


def _kind(scene: Scene, rng: Generator) -> Turns:
    shape = pick(rng, scene.shapes)
    alone = sum(other.motion == shape.motion for other in scene.shapes) == 1
    if alone and rng.random() < 0.25:
        question = pick(rng, WHICH_FORMS).format(does=pick(rng, ACTIVE_VERBS[shape.motion]))
        return [(question, f"The {shape.name}.")]
    names = references_to(scene, shape, rng, without="kind")
    return (
        [(pick(rng, KIND_FORMS).format(it=pick(rng, names)), f"A {shape.kind}.")] if names else []
    )


def _motion(scene: Scene, rng: Generator) -> Turns:
    shape = pick(rng, scene.shapes)
    names = references_to(scene, shape, rng, without="motion")
    return [(pick(rng, MOTION_FORMS).format(it=pick(rng, names)), f"It {VERBS[shape.motion]}.")]


def _direction(scene: Scene, rng: Generator) -> Turns:
    moving = [shape for shape in scene.shapes if shape.motion in DIRECTIONS]
    shape = pick(rng, moving if moving and rng.random() < 0.9 else scene.shapes)
    names = references_to(scene, shape, rng, without="motion")
    if moving == [shape] and rng.random() < 0.3:
        names = ["the moving shape", "the moving object", "the shape that moves"]
    answer = as_sentence(shape.motion) if shape.motion in DIRECTIONS else "It does not move."
    return [(pick(rng, DIRECTION_FORMS).format(it=pick(rng, names)), answer)]


def _count(scene: Scene, rng: Generator) -> Turns:
    chance = rng.random()
    if chance < 0.5:
        return [(pick(rng, COUNT_FORMS), f"{NUMBERS[len(scene.shapes)]}.")]
    if chance < 0.7:
        kind = pick(rng, (*(s.kind for s in scene.shapes), *KINDS))
        what, number = f"{kind}s", sum(s.kind == kind for s in scene.shapes)
    elif chance < 0.85:
        colour = pick(rng, (*(s.colour for s in scene.shapes), *COLOURS))
        what = f"{colour} {pick(rng, ('shapes', 'objects'))}"
        number = sum(s.colour == colour for s in scene.shapes)
    else:
        number = sum(s.motion in DIRECTIONS for s in scene.shapes)
        question = (
            "How many shapes move?",
            "How many shapes are moving?",
            "How many objects move?",
        )
        return [(pick(rng, question), f"{NUMBERS[number]}.")]
    form = ("How many {} are there?", "How many {} are in the video?", "How many {} do you see?")
    return [(pick(rng, form).format(what), f"{NUMBERS[number]}.")]


def _background(scene: Scene, rng: Generator) -> Turns:
    colour = scene.background.colour
    return [(pick(rng, BACKGROUND_FORMS), as_sentence(colour))] if colour else []


def _position(scene: Scene, rng: Generator) -> Turns:
    if len(scene.shapes) < 2:
        return []
    one, other = (scene.shapes[i] for i in rng.permutation(len(scene.shapes))[:2])
    across, along = relation(scene, one, other)
    a, b = (pick(rng, references_to(scene, shape, rng, without="motion")) for shape in (one, other))
    options: list[tuple[str, str]] = []
    if across:
        for first, second in (("left", "right"), ("right", "left")):
            options += [
                (f"Is {a} to the {first} or to the {second} of {b}?", across),
                (f"Is {a} {first} or {second} of {b}?", across),
                (f"Is {a} on the {first} or on the {second} of {b}?", across),
            ]
    if along:
        for first, second in (("above", "below"), ("below", "above")):
            options += [
                (f"Is {a} {first} or {second} {b}?", along),
                (f"Is {a} {first} {b} or {second} it?", along),
            ]
    if bool(across) != bool(along):
        side = across or along
        options += [
            (f"Where is {a} relative to {b}?", side),
            (f"Where is {a} compared to {b}?", side),
            (f"What is the position of {a} relative to {b}?", side),
            (f"On which side of {b} is {a}?", side),
        ]
    return (
        [(question, as_sentence(side)) for question, side in [pick(rng, options)]]
        if options
        else []
    )


def _first(scene: Scene, rng: Generator) -> Turns:
    seen = sorted(scene.shapes, key=lambda shape: shape.first)
    if len(seen) < 2 or seen[1].first - seen[0].first < 0.15:
        return []
    return [(pick(rng, FIRST_FORMS), f"The {seen[0].name}.")]


def _yes_no(scene: Scene, rng: Generator) -> Turns:
    question, truth = random_yes_no_question(scene, rng)
    return [(question, "Yes." if truth else "No.")]


def _presence(scene: Scene, rng: Generator) -> Turns:
    question, truth = random_presence_question(scene, rng)
    return [(question, "Yes." if truth else "No.")]


def _follow_up(scene: Scene, rng: Generator) -> Turns:
    shape = pick(rng, scene.shapes)
    turns = _opening(scene, shape, rng)
    asked = {
        "colour": COLOUR_FORMS,
        "kind": KIND_FORMS,
        "motion": MOTION_FORMS,
        "direction": DIRECTION_FORMS,
    }
    answers = {
        "colour": as_sentence(shape.colour),
        "kind": f"A {shape.kind}.",
        "motion": f"It {VERBS[shape.motion]}.",
        "direction": as_sentence(shape.motion),
    }
    for topic in map(str, rng.permutation(list(asked))[: int(rng.integers(1, 3))]):
        known = topic if topic != "direction" or shape.motion in DIRECTIONS else "motion"
        question = pick(rng, asked[known]).format(it="it")
        if rng.random() < 0.6:
            question = "And " + question[0].lower() + question[1:]
        turns.append((question, answers[known]))
    return turns


def _opening(scene: Scene, shape: Shape, rng: Generator) -> Turns:
    """A first turn that makes one shape the subject of the conversation."""
    names = references_to(scene, shape, rng, without=pick(rng, ("colour", "kind", "motion")))
    it = pick(rng, names) if names else f"the {shape.name}"
    openings: Turns = [
        (pick(rng, MOTION_FORMS).format(it=f"the {shape.name}"), f"It {VERBS[shape.motion]}."),
        (f"Is there {with_article(shape.name)}?", "Yes."),
        (f"Do you see {it}?", "Yes."),
    ]
    if sum(other.motion == shape.motion for other in scene.shapes) == 1:
        question = pick(rng, WHICH_FORMS).format(does=pick(rng, ACTIVE_VERBS[shape.motion]))
        openings += [(question, f"The {shape.name}.")] * 3
    if len(scene.shapes) == 1:
        for asker in (_describe, _colour, _kind, _motion, _direction):
            openings += asker(scene, rng)
    return [pick(rng, openings)]


_ASKERS: dict[str, Callable[[Scene, Generator], Turns]] = {
    "describe": _describe,
    "colour": _colour,
    "shape": _kind,
    "motion": _motion,
    "direction": _direction,
    "count": _count,
    "background": _background,
    "position": _position,
    "first": _first,
    "yes/no": _yes_no,
    "presence": _presence,
    "follow-up": _follow_up,
}


def _vary_spelling(question: str, rng: Generator) -> str:
    if rng.random() < 0.07:
        question = pick(rng, OPENINGS) + question[0].lower() + question[1:]
    if rng.random() < 0.5:
        question = question.replace("colour", "color")
    if rng.random() < 0.25:
        question = question.lower()
    if rng.random() < 0.2:
        question = question.rstrip("?.")
    return question
