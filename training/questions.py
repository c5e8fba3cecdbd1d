"""Questions about a scene, in many words, and the one right answer to each.

The answers are the contract of `tiny`. A scene only raises questions that a person looking at it
could answer without doubt.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.random import Generator

from training.scenes import (
    BACKGROUND_COLOURS,
    COLOURS,
    DIRECTIONS,
    KINDS,
    MOTIONS,
    Scene,
    Shape,
)

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
    "follow-up",
)

NUMBERS = ("Zero", "One", "Two", "Three")

_DOES = {
    **{way: f"moves {way}" for way in DIRECTIONS},
    "still": "stays still",
    "grows": "grows",
    "shrinks": "shrinks",
    "appears": "appears",
    "disappears": "disappears",
}

_DESCRIBE = (
    "What happens?",
    "What happens in the video?",
    "What happens in this clip?",
    "What is happening?",
    "What's happening in this video?",
    "What is going on?",
    "What is going on in the video?",
    "Describe the video.",
    "Describe this clip.",
    "Describe what happens.",
    "Describe what you see.",
    "What do you see?",
    "What can you see in the video?",
    "What is in the video?",
    "What does the video show?",
    "What is shown in this video?",
    "Tell me what happens.",
    "Can you describe the video?",
    "Summarize the video.",
    "Explain what is happening.",
    "What takes place in the clip?",
    "Give a description of the video.",
)

_COUNT = (
    "How many shapes are there?",
    "How many shapes are in the video?",
    "How many shapes do you see?",
    "How many shapes can you see?",
    "How many objects are there?",
    "How many objects are in the clip?",
    "How many objects appear in the video?",
    "How many figures are there?",
    "How many things are there?",
    "What is the number of shapes?",
    "Count the shapes.",
    "How many different shapes are shown?",
    "How many shapes are visible?",
)

_BACKGROUND = (
    "What colour is the background?",
    "What is the colour of the background?",
    "What is the background colour?",
    "Which colour is the background?",
    "What colour does the background have?",
    "What's the background colour?",
    "What colour is behind the shapes?",
    "Tell me the colour of the background.",
    "What is the background?",
    "Name the background colour.",
)

_COLOUR = (
    "What colour is {it}?",
    "What is the colour of {it}?",
    "Which colour is {it}?",
    "What colour does {it} have?",
    "What's the colour of {it}?",
    "Tell me the colour of {it}.",
    "Name the colour of {it}.",
)

_KIND = (
    "What shape is {it}?",
    "What is the shape of {it}?",
    "What kind of shape is {it}?",
    "Which shape is {it}?",
    "What type of shape is {it}?",
    "What form does {it} have?",
    "Name the shape of {it}.",
)

_KIND_OF_THAT = (
    "Which shape {does}?",
    "What shape {does}?",
    "What {does}?",
    "Which object {does}?",
    "Which one {does}?",
)

_MOTION = (
    "What does {it} do?",
    "What is {it} doing?",
    "What happens to {it}?",
    "How does {it} move?",
    "How does {it} behave?",
    "How does {it} change?",
    "Describe the motion of {it}.",
    "What is the motion of {it}?",
    "What is the movement of {it}?",
    "Describe what {it} does.",
)

_DIRECTION = (
    "Which way does {it} move?",
    "Which way does {it} go?",
    "Which way is {it} moving?",
    "In which direction does {it} move?",
    "In what direction is {it} moving?",
    "Which direction does {it} move?",
    "Which direction is {it} moving?",
    "Which direction does {it} go?",
    "What direction does {it} move in?",
    "What direction is {it} moving?",
    "What direction is {it} going?",
    "What is the direction of {it}?",
    "Where does {it} move?",
    "Where is {it} moving?",
    "Where does {it} go?",
    "To which side does {it} move?",
)

_FIRST = (
    "Which shape appears first?",
    "Which appears first?",
    "What appears first?",
    "Which object appears first?",
    "Which shape is seen first?",
    "What shape appears first?",
    "Which shape shows up first?",
    "Which one comes first?",
    "What is the first shape to appear?",
    "Which shape is visible first?",
)

_ACTIVE = {
    **{
        way: (f"moves {way}", f"is moving {way}", f"goes {way}", f"moves to the {way}")
        for way in ("left", "right")
    },
    **{
        way: (f"moves {way}", f"is moving {way}", f"goes {way}", f"moves {way}wards")
        for way in ("up", "down")
    },
    "still": ("stays still", "does not move", "is not moving", "stands still", "remains still"),
    "grows": ("grows", "is growing", "gets bigger", "gets larger", "becomes bigger"),
    "shrinks": ("shrinks", "is shrinking", "gets smaller", "becomes smaller"),
    "appears": ("appears", "shows up", "is appearing"),
    "disappears": ("disappears", "vanishes", "goes away", "is disappearing"),
}

_ASKING = {
    **{
        way: (f"Does {{it}} move {way}?", f"Is {{it}} moving {way}?", f"Does {{it}} go {way}?")
        for way in DIRECTIONS
    },
    "still": ("Does {it} stay still?", "Is {it} still?", "Does {it} stand still?"),
    "grows": ("Does {it} grow?", "Is {it} growing?", "Does {it} get bigger?"),
    "shrinks": ("Does {it} shrink?", "Is {it} shrinking?", "Does {it} get smaller?"),
    "appears": ("Does {it} appear?", "Does {it} show up?"),
    "disappears": ("Does {it} disappear?", "Does {it} vanish?", "Does {it} go away?"),
}

_OPENINGS = ("In the video, ", "In this clip, ", "Please tell me: ", "Please, ", "Now, ", "So, ")


@dataclass(frozen=True)
class Dialogue:
    """Turns of (question, answer) and the kind of the last question."""

    kind: str
    turns: tuple[tuple[str, str], ...]


def describe(scene: Scene) -> str:
    """A sentence a shape, in the order of `COLOURS`."""
    sentences = []
    for shape in scene.shapes:
        article = "An" if shape.colour == "orange" else "A"
        sentences.append(f"{article} {shape.name} {_DOES[shape.motion]}.")
    return " ".join(sentences)


def random_dialogue(scene: Scene, kind: str, rng: Generator, *, plain: bool = False) -> Dialogue:
    """One question of a kind about a scene, or of another kind where that one has no answer.

    Args:
        scene: What is seen.
        kind: One of `QUESTION_KINDS`.
        rng: Source of chance.
        plain: Ask properly; otherwise people's spelling is imitated (no capitals, no question
            mark, "color").
    """
    turns = _ASKERS[kind](scene, rng)
    while not turns:
        kind = _pick(rng, QUESTION_KINDS)
        turns = _ASKERS[kind](scene, rng)
    if not plain:
        turns = [(_as_people_write(question, rng), answer) for question, answer in turns]
    return Dialogue(kind, tuple(turns))


Turns = list[tuple[str, str]]
T = TypeVar("T")


def _describe(scene: Scene, rng: Generator) -> Turns:
    return [(_pick(rng, _DESCRIBE), describe(scene))]


def _colour(scene: Scene, rng: Generator) -> Turns:
    shape = _pick(rng, scene.shapes)
    names = _names(scene, shape, rng, without="colour")
    return (
        [(_pick(rng, _COLOUR).format(it=_pick(rng, names)), _sentence(shape.colour))]
        if names
        else []
    )


def _kind(scene: Scene, rng: Generator) -> Turns:
    shape = _pick(rng, scene.shapes)
    alone = sum(other.motion == shape.motion for other in scene.shapes) == 1
    if alone and rng.random() < 0.25:
        question = _pick(rng, _KIND_OF_THAT).format(does=_pick(rng, _ACTIVE[shape.motion]))
        return [(question, f"The {shape.name}.")]
    names = _names(scene, shape, rng, without="kind")
    return [(_pick(rng, _KIND).format(it=_pick(rng, names)), f"A {shape.kind}.")] if names else []


def _motion(scene: Scene, rng: Generator) -> Turns:
    shape = _pick(rng, scene.shapes)
    names = _names(scene, shape, rng, without="motion")
    return [(_pick(rng, _MOTION).format(it=_pick(rng, names)), f"It {_DOES[shape.motion]}.")]


def _direction(scene: Scene, rng: Generator) -> Turns:
    moving = [shape for shape in scene.shapes if shape.motion in DIRECTIONS]
    shape = _pick(rng, moving if moving and rng.random() < 0.9 else scene.shapes)
    names = _names(scene, shape, rng, without="motion")
    if moving == [shape] and rng.random() < 0.3:
        names = ["the moving shape", "the moving object", "the shape that moves"]
    answer = _sentence(shape.motion) if shape.motion in DIRECTIONS else "It does not move."
    return [(_pick(rng, _DIRECTION).format(it=_pick(rng, names)), answer)]


def _count(scene: Scene, rng: Generator) -> Turns:
    chance = rng.random()
    if chance < 0.5:
        return [(_pick(rng, _COUNT), f"{NUMBERS[len(scene.shapes)]}.")]
    if chance < 0.7:
        kind = _pick(rng, (*(s.kind for s in scene.shapes), *KINDS))
        what, number = f"{kind}s", sum(s.kind == kind for s in scene.shapes)
    elif chance < 0.85:
        colour = _pick(rng, (*(s.colour for s in scene.shapes), *COLOURS))
        what = f"{colour} {_pick(rng, ('shapes', 'objects'))}"
        number = sum(s.colour == colour for s in scene.shapes)
    else:
        number = sum(s.motion in DIRECTIONS for s in scene.shapes)
        question = (
            "How many shapes move?",
            "How many shapes are moving?",
            "How many objects move?",
        )
        return [(_pick(rng, question), f"{NUMBERS[number]}.")]
    form = ("How many {} are there?", "How many {} are in the video?", "How many {} do you see?")
    return [(_pick(rng, form).format(what), f"{NUMBERS[number]}.")]


def _background(scene: Scene, rng: Generator) -> Turns:
    colour = scene.background.colour
    return [(_pick(rng, _BACKGROUND), _sentence(colour))] if colour else []


def _position(scene: Scene, rng: Generator) -> Turns:
    if len(scene.shapes) < 2:
        return []
    one, other = (scene.shapes[i] for i in rng.permutation(len(scene.shapes))[:2])
    across, along = relation(scene, one, other)
    a, b = (_pick(rng, _names(scene, shape, rng, without="motion")) for shape in (one, other))
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
        [(question, _sentence(side)) for question, side in [_pick(rng, options)]] if options else []
    )


def _first(scene: Scene, rng: Generator) -> Turns:
    seen = sorted(scene.shapes, key=lambda shape: shape.first)
    if len(seen) < 2 or seen[1].first - seen[0].first < 0.15:
        return []
    return [(_pick(rng, _FIRST), f"The {seen[0].name}.")]


def _yes_no(scene: Scene, rng: Generator) -> Turns:
    question, truth = _pick(rng, _CLAIMS)(scene, rng)
    return [(question, "Yes." if truth else "No.")]


def _claim_colour(scene: Scene, rng: Generator) -> tuple[str, bool]:
    shape = _pick(rng, scene.shapes)
    names = _names(scene, shape, rng, without="colour")
    if not names:
        return _claim_presence(scene, rng)
    colour = shape.colour if rng.random() < 0.5 else _pick(rng, COLOURS)
    return f"Is {_pick(rng, names)} {colour}?", colour == shape.colour


def _claim_kind(scene: Scene, rng: Generator) -> tuple[str, bool]:
    shape = _pick(rng, scene.shapes)
    names = _names(scene, shape, rng, without="kind")
    if not names:
        return _claim_presence(scene, rng)
    kind = shape.kind if rng.random() < 0.5 else _pick(rng, KINDS)
    return f"Is {_pick(rng, names)} a {kind}?", kind == shape.kind


def _claim_motion(scene: Scene, rng: Generator) -> tuple[str, bool]:
    shape = _pick(rng, scene.shapes)
    it = _pick(rng, _names(scene, shape, rng, without="motion"))
    if rng.random() < 0.2:
        form = _pick(rng, ("Does {it} move?", "Is {it} moving?"))
        return form.format(it=it), shape.motion in DIRECTIONS
    motion = shape.motion if rng.random() < 0.5 else _pick(rng, MOTIONS)
    return _pick(rng, _ASKING[motion]).format(it=it), motion == shape.motion


def _claim_presence(scene: Scene, rng: Generator) -> tuple[str, bool]:
    shape = _pick(rng, scene.shapes)
    colour, kind = shape.colour, shape.kind
    if rng.random() < 0.5:  # make it wrong in one respect, or in both
        colour = _pick(rng, COLOURS) if rng.random() < 0.6 else colour
        kind = _pick(rng, KINDS) if rng.random() < 0.6 else kind
    chance = rng.random()
    if chance < 0.25:
        what, truth = f"a {kind}", any(s.kind == kind for s in scene.shapes)
    elif chance < 0.5:
        article = "an" if colour == "orange" else "a"
        what = f"{article} {colour} {_pick(rng, ('shape', 'object'))}"
        truth = any(s.colour == colour for s in scene.shapes)
    else:
        what = f"{'an' if colour == 'orange' else 'a'} {colour} {kind}"
        truth = any(s.name == f"{colour} {kind}" for s in scene.shapes)
    forms = ("Is there {}?", "Is there {} in the video?", "Do you see {}?", "Can you see {}?")
    return _pick(rng, forms).format(what), truth


def _claim_count(scene: Scene, rng: Generator) -> tuple[str, bool]:
    actual = len(scene.shapes)
    number = actual if rng.random() < 0.5 else int(rng.integers(1, 4))
    if number == 1:
        return _pick(rng, ("Is there one shape?", "Is there only one shape?")), actual == 1
    word = _pick(rng, (NUMBERS[number].lower(), str(number)))
    return f"Are there {word} {_pick(rng, ('shapes', 'objects'))}?", number == actual


def _claim_any(scene: Scene, rng: Generator) -> tuple[str, bool]:
    motion = _pick(rng, (*(s.motion for s in scene.shapes), *MOTIONS))
    if motion in DIRECTIONS:
        question = _pick(
            rng, ("Does anything move?", "Is anything moving?", "Is there any motion?")
        )
        return question, any(s.motion in DIRECTIONS for s in scene.shapes)
    verb = {"grows": "grow", "shrinks": "shrink", "appears": "appear", "still": "stay still"}
    question = f"Does anything {verb.get(motion, 'disappear')}?"
    return question, any(s.motion == motion for s in scene.shapes)


def _claim_background(scene: Scene, rng: Generator) -> tuple[str, bool]:
    actual = scene.background.colour
    if actual is None:
        return _claim_any(scene, rng)
    colour = actual if rng.random() < 0.5 else _pick(rng, BACKGROUND_COLOURS)
    return f"Is the background {colour}?", colour == actual


def _claim_position(scene: Scene, rng: Generator) -> tuple[str, bool]:
    if len(scene.shapes) < 2:
        return _claim_kind(scene, rng)
    one, other = (scene.shapes[i] for i in rng.permutation(len(scene.shapes))[:2])
    across, along = relation(scene, one, other)
    pairs = [side for side in (across, along) if side]
    if not pairs:
        return _claim_motion(scene, rng)
    actual = _pick(rng, pairs)
    side = actual if rng.random() < 0.5 else _OPPOSITE[actual]
    a, b = (_pick(rng, _names(scene, shape, rng, without="motion")) for shape in (one, other))
    where = side if side in ("above", "below") else f"{_pick(rng, ('', 'to the '))}{side} of"
    return f"Is {a} {where} {b}?", side == actual


def _follow_up(scene: Scene, rng: Generator) -> Turns:
    shape = _pick(rng, scene.shapes)
    turns = _opening(scene, shape, rng)
    asked = {"colour": _COLOUR, "kind": _KIND, "motion": _MOTION, "direction": _DIRECTION}
    answers = {
        "colour": _sentence(shape.colour),
        "kind": f"A {shape.kind}.",
        "motion": f"It {_DOES[shape.motion]}.",
        "direction": _sentence(shape.motion),
    }
    for topic in map(str, rng.permutation(list(asked))[: int(rng.integers(1, 3))]):
        known = topic if topic != "direction" or shape.motion in DIRECTIONS else "motion"
        question = _pick(rng, asked[known]).format(it="it")
        if rng.random() < 0.6:
            question = "And " + question[0].lower() + question[1:]
        turns.append((question, answers[known]))
    return turns


def _opening(scene: Scene, shape: Shape, rng: Generator) -> Turns:
    """A first turn that makes one shape the one that is talked about."""
    names = _names(scene, shape, rng, without=_pick(rng, ("colour", "kind", "motion")))
    it = _pick(rng, names) if names else f"the {shape.name}"
    openings: Turns = [
        (_pick(rng, _MOTION).format(it=f"the {shape.name}"), f"It {_DOES[shape.motion]}."),
        (f"Is there {_with_article(shape.name)}?", "Yes."),
        (f"Do you see {it}?", "Yes."),
    ]
    if sum(other.motion == shape.motion for other in scene.shapes) == 1:
        question = _pick(rng, _KIND_OF_THAT).format(does=_pick(rng, _ACTIVE[shape.motion]))
        openings += [(question, f"The {shape.name}.")] * 3
    if len(scene.shapes) == 1:
        for asker in (_describe, _colour, _kind, _motion, _direction):
            openings += asker(scene, rng)
    return [_pick(rng, openings)]


def relation(scene: Scene, one: Shape, other: Shape) -> tuple[str, str]:
    """On which side of the other a shape is, at every time both can be seen.

    Returns:
        ("left", "right" or "", "above", "below" or ""); empty where it changes or is doubtful.
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


_OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}

_CLAIMS: tuple[Callable[[Scene, Generator], tuple[str, bool]], ...] = (
    _claim_colour,
    _claim_kind,
    _claim_motion,
    _claim_motion,
    _claim_presence,
    _claim_presence,
    _claim_count,
    _claim_any,
    _claim_background,
    _claim_position,
)

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
    "follow-up": _follow_up,
}


def _names(scene: Scene, shape: Shape, rng: Generator, *, without: str) -> list[str]:
    """How a shape can be named so that no other is meant, without giving one attribute away."""
    others = [other for other in scene.shapes if other is not shape]
    noun = _pick(rng, ("shape", "object", "one", "figure", "thing"))
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
        names += [f"the {noun} that {_pick(rng, _ACTIVE[shape.motion])}"]
    if without == "motion":
        names += [f"the {shape.name}"] * 2
    return names


def _as_people_write(question: str, rng: Generator) -> str:
    if rng.random() < 0.07:
        question = _pick(rng, _OPENINGS) + question[0].lower() + question[1:]
    if rng.random() < 0.5:
        question = question.replace("colour", "color")
    if rng.random() < 0.25:
        question = question.lower()
    if rng.random() < 0.2:
        question = question.rstrip("?.")
    return question


def _with_article(name: str) -> str:
    return f"{'an' if name.startswith('orange') else 'a'} {name}"


def _sentence(word: str) -> str:
    return f"{word.capitalize()}."


def _pick(rng: Generator, options: Sequence[T]) -> T:
    return options[int(rng.integers(len(options)))]
