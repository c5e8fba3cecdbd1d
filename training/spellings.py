"""Alternative spellings of the answers, as users write choices: "yes", "moves left", "2".

Training gives them a small probability, so that likelihood ranks choices correctly in every
spelling. Greedy decoding keeps the spelling of `training.questions`.
"""

from numpy.random import Generator

from training.references import pick
from training.templates import NUMBERS

_PARTICIPLES = {
    "moves": "moving",
    "stays": "staying",
    "grows": "growing",
    "shrinks": "shrinking",
    "appears": "appearing",
    "disappears": "disappearing",
}
_FORM_SHARE = 0.5


def other_spelling(answer: str, rng: Generator) -> str:
    """The answer in another wording, case or punctuation."""
    while True:
        forms = other_forms(answer)
        text = pick(rng, forms) if forms and rng.random() < _FORM_SHARE else answer
        case = rng.random()
        if case < 0.6:
            text = text.lower()
        elif case < 0.65 and " " not in text:
            text = text.upper()
        if rng.random() < 0.6:
            text = text.removesuffix(".")
        if text != answer:
            return text


def other_forms(answer: str) -> list[str]:
    """Other wordings of an answer of one sentence: "Circle." for "A circle."."""
    first, _, rest = answer.removesuffix(".").partition(" ")
    if answer.count(".") > 1:
        return []
    if first in NUMBERS:
        return [f"{NUMBERS.index(first)}."]
    if first not in ("A", "An", "The", "It") or rest == "does not move":
        return []
    forms = [f"{rest.capitalize()}."]
    if first == "It":
        verb, _, how = rest.partition(" ")
        forms.append(f"{_PARTICIPLES[verb].capitalize()} {how}".rstrip() + ".")
        if how:
            forms.append(f"{how.capitalize()}.")
    elif first == "The":
        forms.append(f"{'An' if rest.startswith('orange') else 'A'} {rest}.")
    return forms
