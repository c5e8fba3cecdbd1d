"""Yes/no questions of whether something is there and does something: "Is there a star moving up?".

They are also asked about statements, as `panda when` and `panda find` do, and about what is absent.
"""

from numpy.random import Generator

from pandacli.timeline.looking import as_question
from training.references import pick, with_article
from training.scenes import COLOURS, DIRECTIONS, KINDS, MOTIONS, Scene, Shape
from training.templates import (
    ACTIVE_VERBS,
    ANY_WAY,
    PARTICIPLES,
    PRESENCE_FORMS,
    YES_NO_MOTION_FORMS,
)

_VALUES = {"colour": COLOURS, "kind": KINDS, "act": (*MOTIONS, ANY_WAY)}
_MENTIONED = (
    *[("colour", "kind", "act")] * 5,
    *[("kind", "act")] * 3,
    *[("colour", "kind"), ("kind",), ("act",)] * 2,
    ("colour", "act"),
    ("colour",),
    (),
)
_AS_IT_IS = 0.35
"""Share of the questions about what is in the scene; in the others one or two parts differ."""

_STATED = 0.45
"""Share of the questions that are made of statements."""

Claim = dict[str, str]
"""What a question mentions: colour, kind and act, or some of these."""


def random_presence_question(scene: Scene, rng: Generator) -> tuple[str, bool]:
    """A question of whether something is there, and whether the answer is yes."""
    claim = _random_claim(scene, rng)
    while _is_doubtful(claim, scene):
        claim = _random_claim(scene, rng)
    matching = sum(holds(_appearance(claim), shape) for shape in scene.shapes)
    truth = any(holds(claim, shape) for shape in scene.shapes)
    return _phrase(claim, rng, definite=matching < 2 and bool(_appearance(claim))), truth


def holds(claim: Claim, shape: Shape) -> bool:
    """Whether a shape is and does all that a claim mentions."""
    return all(value in _properties(shape)[name] for name, value in claim.items())


def _properties(shape: Shape) -> dict[str, list[str]]:
    acts = [shape.motion]
    acts += [ANY_WAY] * (shape.motion in DIRECTIONS)
    acts += ["appears"] * (shape.first > 0)
    acts += ["disappears"] * (shape.last < 1)
    return {"colour": [shape.colour], "kind": [shape.kind], "act": acts}


def _random_claim(scene: Scene, rng: Generator) -> Claim:
    names = pick(rng, _MENTIONED)
    if not scene.shapes:
        return {name: pick(rng, _VALUES[name]) for name in names}
    of_one = _properties(pick(rng, scene.shapes))
    claim = {name: pick(rng, of_one[name]) for name in names}
    if rng.random() >= _AS_IT_IS:
        wrong = list(map(str, rng.permutation(names)[: 1 if rng.random() < 0.65 else 2]))
        if "act" in names and rng.random() < 0.4:
            wrong = ["act"]
        for name in wrong:
            present = [value for shape in scene.shapes for value in _properties(shape)[name]]
            values = present if rng.random() < 0.6 else _VALUES[name]
            others = [value for value in values if value != claim[name]]
            claim[name] = pick(rng, others or _VALUES[name])
    return claim


def _is_doubtful(claim: Claim, scene: Scene) -> bool:
    """Whether the answer is a matter of taste: what comes or goes may or may not stay still."""
    comes_or_goes = ("appears", "disappears")
    return claim.get("act") == "still" and any(
        holds(_appearance(claim), shape) and shape.motion in comes_or_goes for shape in scene.shapes
    )


def _appearance(claim: Claim) -> Claim:
    return {name: value for name, value in claim.items() if name != "act"}


def _phrase(claim: Claim, rng: Generator, *, definite: bool) -> str:
    act, stated = claim.get("act"), rng.random() < _STATED
    noun = claim.get("kind") or pick(rng, ("shape", "object"))
    name = f"{claim['colour']} {noun}" if "colour" in claim else noun
    it = with_article(name)
    if not _appearance(claim) and rng.random() < 0.5:
        it = "something" if stated or rng.random() < 0.5 else "anything"
    if act and rng.random() < 0.5:
        if stated:
            return _asked(f"{it} {pick(rng, ACTIVE_VERBS[act])}", rng)
        it = f"the {name}" if definite and rng.random() < 0.5 else it
        return pick(rng, YES_NO_MOTION_FORMS[act]).format(it=it)
    if act:
        relative = f"that {pick(rng, ACTIVE_VERBS[act])}"
        it += f" {pick(rng, PARTICIPLES[act]) if rng.random() < 0.8 else relative}"
    return _asked(it, rng) if stated else pick(rng, PRESENCE_FORMS).format(it)


def _asked(statement: str, rng: Generator) -> str:
    capitalised = statement[0].upper() + statement[1:]
    return as_question(capitalised if rng.random() < 0.25 else statement)
