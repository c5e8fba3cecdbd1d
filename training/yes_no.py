"""Yes/no questions about a scene."""

from collections.abc import Callable, Sequence

from numpy.random import Generator

from training.references import pick, references_to, relation
from training.scenes import BACKGROUND_COLOURS, COLOURS, DIRECTIONS, KINDS, MOTIONS, Scene
from training.templates import ANY_WAY, NUMBERS, YES_NO_MOTION_FORMS


def random_yes_no_question(scene: Scene, rng: Generator) -> tuple[str, bool]:
    """A yes/no question and whether the answer is yes."""
    return pick(rng, _QUESTIONS)(scene, rng)


def _ask_colour(scene: Scene, rng: Generator) -> tuple[str, bool]:
    shape = pick(rng, scene.shapes)
    names = references_to(scene, shape, rng, without="colour")
    if not names:
        return _ask_presence(scene, rng)
    colour = _actual_or_other(shape.colour, COLOURS, [s.colour for s in scene.shapes], rng)
    return f"Is {pick(rng, names)} {colour}?", colour == shape.colour


def _ask_kind(scene: Scene, rng: Generator) -> tuple[str, bool]:
    shape = pick(rng, scene.shapes)
    names = references_to(scene, shape, rng, without="kind")
    if not names:
        return _ask_presence(scene, rng)
    kind = _actual_or_other(shape.kind, KINDS, [s.kind for s in scene.shapes], rng)
    return f"Is {pick(rng, names)} a {kind}?", kind == shape.kind


def _ask_motion(scene: Scene, rng: Generator) -> tuple[str, bool]:
    shape = pick(rng, scene.shapes)
    it = pick(rng, references_to(scene, shape, rng, without="motion"))
    if rng.random() < 0.2:
        return pick(rng, YES_NO_MOTION_FORMS[ANY_WAY]).format(it=it), shape.motion in DIRECTIONS
    motion = _actual_or_other(shape.motion, MOTIONS, [s.motion for s in scene.shapes], rng)
    return pick(rng, YES_NO_MOTION_FORMS[motion]).format(it=it), motion == shape.motion


def _ask_presence(scene: Scene, rng: Generator) -> tuple[str, bool]:
    shape = pick(rng, scene.shapes)
    colour, kind = shape.colour, shape.kind
    if rng.random() < 0.65:  # change one attribute, or both
        colour = pick(rng, COLOURS) if rng.random() < 0.6 else colour
        kind = pick(rng, KINDS) if rng.random() < 0.6 else kind
    elif rng.random() < 0.3:  # or mix two shapes
        kind = pick(rng, scene.shapes).kind
    chance = rng.random()
    if chance < 0.25:
        what, truth = f"a {kind}", any(s.kind == kind for s in scene.shapes)
    elif chance < 0.5:
        article = "an" if colour == "orange" else "a"
        what = f"{article} {colour} {pick(rng, ('shape', 'object'))}"
        truth = any(s.colour == colour for s in scene.shapes)
    else:
        what = f"{'an' if colour == 'orange' else 'a'} {colour} {kind}"
        truth = any(s.name == f"{colour} {kind}" for s in scene.shapes)
    forms = ("Is there {}?", "Is there {} in the video?", "Do you see {}?", "Can you see {}?")
    return pick(rng, forms).format(what), truth


def _ask_count(scene: Scene, rng: Generator) -> tuple[str, bool]:
    actual = len(scene.shapes)
    number = actual if rng.random() < 0.5 else int(rng.integers(1, 4))
    if number == 1:
        return pick(rng, ("Is there one shape?", "Is there only one shape?")), actual == 1
    word = pick(rng, (NUMBERS[number].lower(), str(number)))
    return f"Are there {word} {pick(rng, ('shapes', 'objects'))}?", number == actual


def _ask_any(scene: Scene, rng: Generator) -> tuple[str, bool]:
    motion = pick(rng, (*(s.motion for s in scene.shapes), *MOTIONS))
    if motion in DIRECTIONS:
        question = pick(rng, ("Does anything move?", "Is anything moving?", "Is there any motion?"))
        return question, any(s.motion in DIRECTIONS for s in scene.shapes)
    verb = {"grows": "grow", "shrinks": "shrink", "appears": "appear", "still": "stay still"}
    question = f"Does anything {verb.get(motion, 'disappear')}?"
    return question, any(s.motion == motion for s in scene.shapes)


def _ask_background(scene: Scene, rng: Generator) -> tuple[str, bool]:
    actual = scene.background.colour
    if actual is None:
        return _ask_any(scene, rng)
    colour = actual if rng.random() < 0.5 else pick(rng, BACKGROUND_COLOURS)
    return f"Is the background {colour}?", colour == actual


def _ask_position(scene: Scene, rng: Generator) -> tuple[str, bool]:
    if len(scene.shapes) < 2:
        return _ask_kind(scene, rng)
    one, other = (scene.shapes[i] for i in rng.permutation(len(scene.shapes))[:2])
    across, along = relation(scene, one, other)
    pairs = [side for side in (across, along) if side]
    if not pairs:
        return _ask_motion(scene, rng)
    actual = pick(rng, pairs)
    side = actual if rng.random() < 0.5 else _OPPOSITE[actual]
    a, b = (pick(rng, references_to(scene, shape, rng, without="motion")) for shape in (one, other))
    where = side if side in ("above", "below") else f"{pick(rng, ('', 'to the '))}{side} of"
    return f"Is {a} {where} {b}?", side == actual


def _actual_or_other(
    actual: str, possible: Sequence[str], present: Sequence[str], rng: Generator
) -> str:
    """The actual value half of the time, else that of another shape or any value."""
    if rng.random() < 0.5:
        return actual
    return pick(rng, present if rng.random() < 0.3 else possible)


_OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}

_QUESTIONS: tuple[Callable[[Scene, Generator], tuple[str, bool]], ...] = (
    _ask_colour,
    _ask_kind,
    _ask_motion,
    _ask_motion,
    _ask_presence,
    _ask_presence,
    _ask_count,
    _ask_any,
    _ask_background,
    _ask_position,
)
