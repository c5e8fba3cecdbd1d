"""`tiny` chooses by likelihood, however the choices are spelled."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
from numpy.random import Generator

from pandacli import Panda
from pandacli.inference.spec import ScoreRequest, Scores
from tests.tiny.clear_videos import frames_of
from tests.tiny.renderers import RENDERERS
from tests.tiny.synthetic_videos import (
    ACTIONS,
    DIRECTIONS,
    KINDS,
    ORDER,
    SyntheticVideo,
    random_video,
)
from tests.tiny.video_questions import Exchange, describe, exchanges

SPELLINGS: dict[str, Callable[[str], str]] = {
    "as answered": str,
    "no full stop": lambda text: text.removesuffix("."),
    "lower case": str.lower,
    "lower case, no full stop": lambda text: text.lower().removesuffix("."),
}

_MOTIONS = {
    "still": "It stays still.",
    **{way: f"It moves {way}." for way in DIRECTIONS},
    **{act: f"It {act}." for act in ("grows", "shrinks", "appears", "disappears")},
}
_FIXED = {
    "yes/no": ("Yes.", "No."),
    "colour": tuple(f"{colour.capitalize()}." for colour in ORDER),
    "shape": tuple(f"A {kind}." for kind in KINDS),
    "motion": tuple(_MOTIONS.values()),
    "direction": tuple(f"{way.capitalize()}." for way in DIRECTIONS),
    "count": ("One.", "Two.", "Three."),
    "background": ("Black.", "White.", "Gray.", "Blue."),
}
_SIDES = (("Left.", "Right."), ("Above.", "Below."))

_SHORT = ", short"
SHARE_OF_SHORT = 0.7
"""Of digits and of "Moves left." less is right than of whole answers."""

# what else a person types for one of these
_SHORTER: dict[str, Callable[[str], str]] = {
    "count": lambda text: {"One.": "1.", "Two.": "2.", "Three.": "3."}[text],
    "shape": lambda text: text.removeprefix("A ").capitalize(),
    "motion": lambda text: text.removeprefix("It ").capitalize(),
    "first": lambda text: text.removeprefix("The ").capitalize(),
}


def choices_for(exchange: Exchange, video: SyntheticVideo, rng: Generator) -> tuple[str, ...]:
    """The answer of `tiny` and wrong ones; empty where there is nothing to choose."""
    if exchange.kind == "describe":
        return tuple(
            dict.fromkeys(map(describe, [video, *(_changed(video, rng) for _ in range(3))]))
        )
    if exchange.kind == "position":
        (pair,) = (pair for pair in _SIDES if exchange.answer in pair)
        return pair
    if exchange.kind == "first":
        return tuple(f"The {actor.name}." for actor in video.actors)
    answers = _FIXED.get(exchange.kind, ())
    return answers if exchange.answer in answers else ()


def _changed(video: SyntheticVideo, rng: Generator) -> SyntheticVideo:
    """The video with another colour, kind or action of one shape."""
    number = int(rng.integers(len(video.actors)))
    actor = video.actors[number]
    field, values = [("colour", ORDER), ("kind", KINDS), ("action", ACTIONS)][rng.integers(3)]
    value = str(rng.choice([value for value in values if value != getattr(actor, field)]))
    actors = list(video.actors)
    actors[number] = replace(actor, **{field: value})
    return replace(video, actors=tuple(actors))


def spelled(kind: str, choices: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The choices in each spelling, with its name."""
    forms = {"": choices}
    if kind in _SHORTER:
        forms[_SHORT] = tuple(map(_SHORTER[kind], choices))
    for form, texts in forms.items():
        for name, spell in SPELLINGS.items():
            yield name + form, tuple(map(spell, texts))


def choose(panda: Panda, clips: int, seed: int) -> dict[tuple[str, str], list[bool]]:
    """Whether the likeliest choice is right, by kind of question and spelling."""
    rights: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for number in range(clips):
        rng = np.random.default_rng((seed, number))
        video = random_video(rng)
        session = panda.open(frames_of(video, list(RENDERERS)[number % len(RENDERERS)]))
        asked, requests = [], []
        for exchange in exchanges(video, rng):
            choices = choices_for(exchange, video, rng)
            if len(choices) < 2:
                continue
            right = choices.index(exchange.answer)
            for spelling, texts in spelled(exchange.kind, choices):
                asked.append((exchange.kind, spelling, texts[right]))
                requests.append(ScoreRequest(exchange.questions[-1], texts))
        for index, scores in session.score_all(requests):
            assert isinstance(scores, Scores)
            kind, spelling, expected = asked[index]
            rights[kind, spelling].append(scores.best.text == expected)
    return rights


def below(rights: dict[tuple[str, str], list[bool]], share: float) -> dict[tuple[str, str], str]:
    """Where less than a share is right, or two of a few questions are wrong."""
    return {
        key: f"{sum(values)} of {len(values)}"
        for key, values in rights.items()
        if len(values) - sum(values) > max(1, (1 - share) * len(values))
    }


def whole(rights: dict[tuple[str, str], list[bool]]) -> dict[tuple[str, str], list[bool]]:
    """Without the shortened forms."""
    return {key: values for key, values in rights.items() if not key[1].endswith(_SHORT)}


def by_spelling(rights: dict[tuple[str, str], list[bool]]) -> dict[tuple[str, str], list[bool]]:
    """The same for all kinds of questions together."""
    result: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for (_, spelling), values in rights.items():
        result["all", spelling] += values
    return result


def test_choices_are_right_in_every_spelling(tiny: Panda) -> None:
    rights = by_spelling(choose(tiny, 16, 5))
    assert all(len(values) > 30 for values in rights.values())
    assert not below(whole(rights), 0.95)
    assert not below(rights, SHARE_OF_SHORT)


@pytest.mark.slow
def test_choices_of_every_kind_are_right_in_every_spelling(tiny: Panda) -> None:
    rights = choose(tiny, 60, 6)
    assert not below(whole(by_spelling(rights)), 0.95)
    assert not below(whole(rights), 0.85)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("quant", "engine"), [("8bit", "torch"), ("8bit", "llama"), ("4bit", "llama")]
)
def test_quantised_model_chooses_rightly(quant: str, engine: str) -> None:
    if engine == "llama" and not find_spec("xllamacpp"):
        pytest.skip("no llama.cpp")
    panda = Panda.load("tiny", device="cpu", quant=quant, engine=engine)
    assert not below(whole(by_spelling(choose(panda, 16, 7))), 0.95)
