"""Answers and the questions that they belong to."""

from collections import defaultdict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from pandacli.evaluation.answers import NO_ANSWER, Item


@dataclass(frozen=True)
class Ignored:
    """An answer that does not count."""

    item: Item
    reason: str


def without_repeats(items: list[Item]) -> tuple[list[Item], list[Ignored]]:
    """Each question with an id once: with its last answer, as in the official scripts."""
    last: dict[Hashable, int] = {}
    for number, item in enumerate(items):
        key = _exact(item) if item.has_id else number
        if item.prediction is not None or key not in last:
            last[key] = number
    kept = set(last.values())
    repeated = [Ignored(item, "answered again") for n, item in enumerate(items) if n not in kept]
    return [item for n, item in enumerate(items) if n in kept], repeated


def match(items: list[Item], questions: list[Item]) -> tuple[list[Item], list[Ignored]]:
    """An item for every question: the answer to it, or one that says that it is missing.

    An answer belongs to the question with the same id, video and text; else with the same video and
    text, then the same id and text where one of the files names no videos, then the same id where
    the answers have no questions. Right answers and types that the answers lack come from the
    questions.

    Returns:
        The items in the order of the questions, and the answers that belong to none.
    """
    free = dict(enumerate(_pairs(items, questions)))
    found: dict[int, Item] = {}
    named = all(question.video for question in questions)
    keys: list[Callable[[Item, bool], Hashable]] = [
        lambda item, _: _exact(item) if item.has_id and item.video else None,
        lambda item, _: (item.video, item.span, item.question) if item.video else None,
        lambda item, _: (PurePosixPath(item.video).name, item.question) if item.video else None,
        lambda item, asked: (
            (item.id, item.question) if asked or not (item.video and named) else None
        ),
        lambda item, asked: _in_video(item) if asked else item.id if item.by_index else None,
        lambda item, asked: item.id if asked or (item.has_id and not item.question) else None,
    ]
    for key in keys:
        held = defaultdict(list)
        for number in reversed(free):
            held[key(free[number], False)].append(number)
        held.pop(None, None)
        for place, question in enumerate(questions):
            numbers = held.get(key(question, True)) if place not in found else None
            if numbers:
                found[place] = free.pop(numbers.pop())
    complete = [
        _completed(found[place], question)
        if place in found
        else replace(question, prediction=None, error=NO_ANSWER, chosen=None, segments=())
        for place, question in enumerate(questions)
    ]
    return complete, [Ignored(item, "there is no such question") for item in free.values()]


def _pairs(items: list[Item], questions: list[Item]) -> list[Item]:
    """The answers; two without questions, with the ids X_1 and X_2 of a pair X, become one."""
    if not any(question.second for question in questions):
        return items
    held = {item.id: item for item in items if item.has_id and not item.question}
    for question in questions:
        one, two = held.get(f"{question.id}_1"), held.get(f"{question.id}_2")
        if question.second and one and two:
            del held[one.id], held[two.id]
            both = replace(one, id=question.id, error=one.error or two.error)
            if one.prediction is None or two.prediction is None:
                held[question.id] = replace(both, prediction=None)
            else:
                held[question.id] = replace(both, second=(question.second[0], two.prediction))
    return [item for item in items if item.question or not item.has_id] + list(held.values())


def _in_video(item: Item) -> str:
    return f"{PurePosixPath(item.video).name}_{item.id}"


def _exact(item: Item) -> Hashable:
    return item.id, item.video, item.span, item.question


def _completed(item: Item, question: Item) -> Item:
    if item.by_index and question.choices:
        texts = dict(enumerate(question.choices.texts))
        said = None if item.chosen is None else texts.get(item.chosen, item.prediction)
        item = replace(item, choices=question.choices, prediction=said, by_index=False)
    is_known = item.choices is not None and item.choices.correct is not None
    choices = item.choices if is_known else question.choices or item.choices
    if choices and (item.choices is None or item.choices.texts != choices.texts):
        chosen = None if item.prediction is None else choices.find(item.prediction)
        item = replace(item, chosen=chosen, probabilities=())
    return replace(
        item,
        id=question.id,
        video=question.video or item.video,
        question=question.question or item.question,
        references=question.references or item.references,
        type=question.type or item.type,
        choices=choices,
        layout=question.layout,
        moments=question.moments or item.moments,
    )
