"""Claims about a scene, true or false, to be answered with yes or no."""

from collections.abc import Callable, Sequence

from numpy.random import Generator

from training.naming import names_of, pick, relation
from training.scenes import BACKGROUND_COLOURS, COLOURS, DIRECTIONS, KINDS, MOTIONS, Scene
from training.wording import MOTION_CLAIMS, NUMBERS


def random_claim(scene: Scene, rng: Generator) -> tuple[str, bool]:
    """A claim, worded as a question, and whether it is true."""
    return pick(rng, _CLAIMS)(scene, rng)


def _claim_colour(scene: Scene, rng: Generator) -> tuple[str, bool]:
    shape = pick(rng, scene.shapes)
    names = names_of(scene, shape, rng, without="colour")
    if not names:
        return _claim_presence(scene, rng)
    colour = _right_or_wrong(shape.colour, COLOURS, [s.colour for s in scene.shapes], rng)
    return f"Is {pick(rng, names)} {colour}?", colour == shape.colour


def _claim_kind(scene: Scene, rng: Generator) -> tuple[str, bool]:
    shape = pick(rng, scene.shapes)
    names = names_of(scene, shape, rng, without="kind")
    if not names:
        return _claim_presence(scene, rng)
    kind = _right_or_wrong(shape.kind, KINDS, [s.kind for s in scene.shapes], rng)
    return f"Is {pick(rng, names)} a {kind}?", kind == shape.kind


def _claim_motion(scene: Scene, rng: Generator) -> tuple[str, bool]:
    shape = pick(rng, scene.shapes)
    it = pick(rng, names_of(scene, shape, rng, without="motion"))
    if rng.random() < 0.2:
        form = pick(rng, ("Does {it} move?", "Is {it} moving?"))
        return form.format(it=it), shape.motion in DIRECTIONS
    motion = _right_or_wrong(shape.motion, MOTIONS, [s.motion for s in scene.shapes], rng)
    return pick(rng, MOTION_CLAIMS[motion]).format(it=it), motion == shape.motion


def _claim_presence(scene: Scene, rng: Generator) -> tuple[str, bool]:
    shape = pick(rng, scene.shapes)
    colour, kind = shape.colour, shape.kind
    if rng.random() < 0.65:  # make it wrong in one respect, or in both
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


def _claim_count(scene: Scene, rng: Generator) -> tuple[str, bool]:
    actual = len(scene.shapes)
    number = actual if rng.random() < 0.5 else int(rng.integers(1, 4))
    if number == 1:
        return pick(rng, ("Is there one shape?", "Is there only one shape?")), actual == 1
    word = pick(rng, (NUMBERS[number].lower(), str(number)))
    return f"Are there {word} {pick(rng, ('shapes', 'objects'))}?", number == actual


def _claim_any(scene: Scene, rng: Generator) -> tuple[str, bool]:
    motion = pick(rng, (*(s.motion for s in scene.shapes), *MOTIONS))
    if motion in DIRECTIONS:
        question = pick(rng, ("Does anything move?", "Is anything moving?", "Is there any motion?"))
        return question, any(s.motion in DIRECTIONS for s in scene.shapes)
    verb = {"grows": "grow", "shrinks": "shrink", "appears": "appear", "still": "stay still"}
    question = f"Does anything {verb.get(motion, 'disappear')}?"
    return question, any(s.motion == motion for s in scene.shapes)


def _claim_background(scene: Scene, rng: Generator) -> tuple[str, bool]:
    actual = scene.background.colour
    if actual is None:
        return _claim_any(scene, rng)
    colour = actual if rng.random() < 0.5 else pick(rng, BACKGROUND_COLOURS)
    return f"Is the background {colour}?", colour == actual


def _claim_position(scene: Scene, rng: Generator) -> tuple[str, bool]:
    if len(scene.shapes) < 2:
        return _claim_kind(scene, rng)
    one, other = (scene.shapes[i] for i in rng.permutation(len(scene.shapes))[:2])
    across, along = relation(scene, one, other)
    pairs = [side for side in (across, along) if side]
    if not pairs:
        return _claim_motion(scene, rng)
    actual = pick(rng, pairs)
    side = actual if rng.random() < 0.5 else _OPPOSITE[actual]
    a, b = (pick(rng, names_of(scene, shape, rng, without="motion")) for shape in (one, other))
    where = side if side in ("above", "below") else f"{pick(rng, ('', 'to the '))}{side} of"
    return f"Is {a} {where} {b}?", side == actual


def _right_or_wrong(
    actual: str, possible: Sequence[str], present: Sequence[str], rng: Generator
) -> str:
    """The actual value half of the time, else one of another shape or any."""
    if rng.random() < 0.5:
        return actual
    return pick(rng, present if rng.random() < 0.3 else possible)


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
