"""Whether something is in a video and does something: questions in many forms, and their truth."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from numpy.random import Generator

from tests.tiny.synthetic_videos import ACTIONS, DIRECTIONS, KINDS, ORDER, Actor, SyntheticVideo

_WORDS = {
    **{way: (f"moving {way}", f"moves {way}", f"move {way}") for way in DIRECTIONS},
    "still": ("staying still", "stays still", "stay still"),
    "grows": ("growing", "grows", "grow"),
    "shrinks": ("shrinking", "shrinks", "shrink"),
    "appears": ("appearing", "appears", "appear"),
    "disappears": ("disappearing", "disappears", "disappear"),
    "moves": ("moving", "moves", "move"),
}
BEING = (
    "Is there {a}?",
    "Is there {a} in the video?",
    "Can you see {a}?",
    "Does the video show {a}?",
    "Does the video show this: {a}?",
)
DOING = (
    "Is there {a} {doing}?",
    "Is there {a} that {does}?",
    "Is {a} {doing}?",
    "Is {the} {doing}?",
    "Does {a} {do}?",
    "Does {the} {do}?",
    "Can you see {a} {doing}?",
    "Does the video show {a} {doing}?",
    "Does the video show this: {a} {doing}?",
    "Does the video show this: {a} {does}?",
    "Does the video show this: {a} is {doing}?",
)


@dataclass(frozen=True)
class Claim:
    """What is said to be in a video; "" stands for any colour, kind or action."""

    colour: str = ""
    kind: str = ""
    action: str = ""

    def of(self, actor: Actor) -> bool:
        """Whether this is true of an actor."""
        return self.named(actor) and self.action in ("", *actions(actor))

    def named(self, actor: Actor) -> bool:
        """Whether an actor looks like this."""
        return self.colour in ("", actor.colour) and self.kind in ("", actor.kind)

    def asked(self, form: str) -> str:
        """The question in one of the forms."""
        name = f"{self.colour} {self.kind or 'shape'}".strip()
        article = "an" if name[0] in "aeiou" else "a"
        words = dict(zip(("doing", "does", "do"), _WORDS.get(self.action, ("",) * 3), strict=True))
        return form.format(a=f"{article} {name}", the=f"the {name}", **words)


def actions(actor: Actor) -> set[str]:
    """All that an actor does: what moves may also appear or disappear."""
    start, end = actor.seen
    found = {"appears"} if start > 0 else set()
    found |= {"disappears"} if end <= 1 else set()
    return found | ({actor.action, "moves"} if actor.action in DIRECTIONS else {actor.action})


def in_window(video: SyntheticVideo, rng: Generator) -> SyntheticVideo:
    """The video with actors that come and go, as in a window of a longer film."""

    def seen_in_part(actor: Actor) -> Actor:
        moves = actor.action in DIRECTIONS
        if not moves and actor.action != "still":
            return actor
        length = float(rng.uniform(0.6 if moves else 0.35, 0.8))
        start = float(rng.choice([0.0, rng.uniform(0.05, 0.95 - length), 1.1 - length]))
        action = actor.action if moves else "appears" if start > 0 else "disappears"
        return replace(actor, action=action, seen=(start, start + length))

    return replace(video, actors=tuple(map(seen_in_part, video.actors)))


def claims(video: SyntheticVideo, rng: Generator) -> Iterator[tuple[str, Claim]]:
    """Claims about a video, each with what is wrong about it: "" for true ones."""
    if not video.actors:
        claim = _random_claim(rng)
        for left_out in ({}, {"colour": ""}, {"action": ""}, {"colour": "", "kind": ""}):
            yield "empty", replace(claim, **left_out)
        return
    actor = video.actors[int(rng.integers(len(video.actors)))]
    action = str(rng.choice(sorted(actions(actor))))
    true = Claim(actor.colour, actor.kind, action)
    found = [
        ("", true),
        ("", replace(true, colour="")),
        ("", replace(true, kind="")),
        ("", Claim(action=action)),
        ("", replace(true, action="")),
        ("", Claim(kind=actor.kind)),
        ("action", replace(true, action=_other(rng, (*ACTIONS, "moves"), action))),
        ("action", replace(true, colour="", action=_other(rng, DIRECTIONS, action))),
        ("action", Claim(action=_other(rng, ACTIONS, action))),
        ("kind", replace(true, kind=_other(rng, KINDS, actor.kind))),
        ("kind", replace(true, colour="", kind=_other(rng, KINDS, actor.kind))),
        ("kind", Claim(actor.colour, _other(rng, KINDS, actor.kind))),
        ("kind", Claim(kind=_other(rng, KINDS, actor.kind))),
        ("colour", replace(true, colour=_other(rng, ORDER, actor.colour))),
        ("colour", Claim(_other(rng, ORDER, actor.colour), actor.kind)),
        ("colour", Claim(_other(rng, ORDER, actor.colour))),
        ("all", _random_claim(rng)),
    ]
    for other in video.actors:
        if other is not actor:
            found.append(("action of another", replace(true, action=other.action)))
            found.append(("kind of another", replace(true, kind=other.kind)))
    for wrong, claim in found:
        if any(map(claim.of, video.actors)) == (not wrong) and not _doubtful(claim, video):
            yield wrong, claim


def questions(
    claim: Claim, video: SyntheticVideo, rng: Generator, count: int
) -> Iterator[tuple[str, str]]:
    """Some forms in which a claim is asked, with the questions."""
    forms = DOING if claim.action else BEING
    if sum(map(claim.named, video.actors)) > 1:  # "the star" would be unclear
        forms = tuple(form for form in forms if "{the}" not in form)
    for form in rng.choice(forms, min(count, len(forms)), replace=False):
        yield str(form), claim.asked(str(form))


def _doubtful(claim: Claim, video: SyntheticVideo) -> bool:
    """Whether one could say that what comes or goes without moving stays still."""
    turning = ("appears", "disappears")
    return claim.action == "still" and any(
        claim.named(actor) and actor.action in turning for actor in video.actors
    )


def _random_claim(rng: Generator) -> Claim:
    return Claim(str(rng.choice(ORDER)), str(rng.choice(KINDS)), str(rng.choice(ACTIONS)))


def _other(rng: Generator, values: tuple[str, ...], value: str) -> str:
    return str(rng.choice([other for other in values if other != value]))
