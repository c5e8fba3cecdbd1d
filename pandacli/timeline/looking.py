"""Ask about many clips in order, in groups of those that are read; statements as questions."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from math import exp, fsum
from typing import TYPE_CHECKING, TypeVar

from pandacli.errors import PandaError, UsageError
from pandacli.inference.spec import Answer, GenerationOptions, Scores

if TYPE_CHECKING:
    from pandacli.inference.panda import Panda
    from pandacli.inference.windows import WindowBatch
    from pandacli.video import Frames

_Item = TypeVar("_Item")
Looks = Iterable[tuple[_Item, "Frames | PandaError"]]
"""Frames with what they belong to, as of `FilmReader.read` and `FramePrefetcher.read`."""

YES = ("Yes.", "Yes", "yes.", "yes")
NO = ("No.", "No", "no.", "no")

_QUESTION_MARKS = ("?", "\uff1f", "\u061f", "\u037e")  # also full-width, Arabic and Greek
_FULL_STOPS = ".\u3002\u0964"  # also Chinese and Hindi


def answers(
    panda: "Panda",
    looks: "Looks[_Item]",
    questions: Sequence[str],
    options: GenerationOptions | None = None,
    *,
    num_frames: int = 8,
    system: str | None = None,
) -> "Iterator[tuple[_Item, Frames | None, list[Answer | PandaError]]]":
    """The answers to all questions about each clip, in order, with its frames.

    The first clip is answered alone, so that its answer is not waited for.
    """
    for items, batch in _batches(panda, looks, num_frames, system, first=1):
        found = iter(batch.ask(questions, options))
        for item, frames in items:
            if isinstance(frames, PandaError):
                yield item, None, [frames for _ in questions]
            else:
                yield item, frames, next(found)


def scores(
    panda: "Panda",
    looks: "Looks[_Item]",
    question: str,
    choices: Sequence[str],
    *,
    num_frames: int = 8,
    system: str | None = None,
) -> "Iterator[tuple[_Item, Frames | None, Scores | PandaError]]":
    """The scores of the choices for each clip, in order, with its frames."""
    found = scores_of_all(panda, looks, [question], choices, num_frames=num_frames, system=system)
    for item, frames, (scored,) in found:
        yield item, frames, scored


def scores_of_all(
    panda: "Panda",
    looks: "Looks[_Item]",
    questions: Sequence[str],
    choices: Sequence[str],
    *,
    num_frames: int = 8,
    system: str | None = None,
) -> "Iterator[tuple[_Item, Frames | None, list[Scores | PandaError]]]":
    """As `scores`, for each of several questions with the same choices."""
    for items, batch in _batches(panda, looks, num_frames, system):
        found = iter(batch.score_all(questions, choices))
        for item, frames in items:
            if isinstance(frames, PandaError):
                yield item, None, [frames for _ in questions]
            else:
                yield item, frames, next(found)


def _batches(
    panda: "Panda",
    looks: "Looks[_Item]",
    num_frames: int,
    system: str | None,
    first: int | None = None,
) -> "Iterator[tuple[list[tuple[_Item, Frames | PandaError]], WindowBatch]]":
    """Groups of clips that are looked at together, the first of another size if that is given."""
    remaining = iter(looks)
    while items := list(islice(remaining, first or panda.windows_at_once)):
        first = None
        usable = [frames for _, frames in items if not isinstance(frames, PandaError)]
        yield items, panda.look_together(usable, num_frames, system)


def probability_of_yes(scores: Scores) -> float:
    """The share of yes, in all its spellings, where the choices are `(*YES, *NO)`."""
    highest = max(choice.logprob for choice in scores.choices)
    weights = {choice.text: exp(choice.logprob - highest) for choice in scores.choices}
    return fsum(weights[text] for text in YES) / fsum(weights.values())


def as_question(text: str) -> str:
    """Return a question as it is, and a statement as `Does the video show this: {statement}?`.

    A text that ends with a question mark is a question. UsageError for an empty text, or one
    that is not UTF-8.
    """
    stripped = text.strip()
    if not stripped:
        raise UsageError("the question is empty")
    if any("\ud800" <= character <= "\udfff" for character in stripped):
        raise UsageError(f"the question is not UTF-8 text: {stripped}")
    if stripped.endswith(_QUESTION_MARKS):
        return stripped
    statement = stripped.rstrip(_FULL_STOPS).rstrip()
    return f"Does the video show this: {statement or stripped}?"
