"""Answer files as items to be scored: a question, its right answers, and what was answered.

Files are read as `panda batch` reads questions, so every layout that it reads or writes is known: a
prediction is the `answer` of our own results and the `pred` (`pred1`, `pred2`) of others.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from pandacli.batch.readers.choices import Choices, find_choices
from pandacli.batch.readers.conversations import is_conversation, reference_answer
from pandacli.batch.readers.fields import PAIR, QUESTION, VIDEO
from pandacli.batch.readers.questions import read_questions
from pandacli.batch.records import BadLine, Record
from pandacli.batch.writers import IDS, is_scalar
from pandacli.errors import ClipError

PREDICTED = ("pred", "prediction", "predicted_answer", "response", "output")
"""Fields of a prediction in the files of others."""

REFERENCE = ("answer", "A", "answers", "additional_ref_answer")
TYPES = ("type", "question_type", "task_type", "category")
"""Fields of the type of a question in known data sets."""

NO_ANSWER = "there is no answer in the file"

_FIRST_WORDS = ("what", "who", "how", "when", "where", "why", "which")


@dataclass(frozen=True)
class Item:
    """A question that was to be answered.

    Attributes:
        id: The id of the question, or its number in the file.
        video: Name of the video, without folder and suffix; "" where the file does not say.
        question: The question.
        references: The right answers; any of them will do.
        prediction: The answer that was given; None where there is none.
        error: Why there is none.
        type: The type of the question, where the data set has types.
        second: For consistency, the other phrasing and the answer to it.
        choices: The choices and the right one; None for an open question.
        chosen: Index of the choice that was answered; None for no choice at all.
        probabilities: Of the choices; empty where they were not scored.
        layout: "qa", "generic" or "consistency".
    """

    id: str
    video: str
    question: str
    references: tuple[str, ...]
    prediction: str | None
    error: str | None = None
    type: str | None = None
    second: tuple[str, str] | None = None
    choices: Choices | None = None
    chosen: int | None = None
    probabilities: tuple[float, ...] = ()
    layout: str = "qa"


def read_items(path: Path, references: Path | None = None) -> list[Item]:
    """The items of a file of answers, or of questions: those have no prediction.

    Args:
        path: The file.
        references: For the layout "qa", the file of right answers.

    Raises:
        ClipError: The file cannot be read, or has no questions in it.
    """
    with read_questions(path, answers=references) as questions:
        entries = list(_entries(questions.records))
    items = list(_joined(entries))
    if not items:
        raise ClipError(f"{path} has no answers in it")
    return items


def _entries(records: Iterable[Record | BadLine]) -> Iterator[dict[str, Any]]:
    """The fields of each entry once, also of those without a video."""
    last = -1
    for record in records:
        fields = record.error.fields if isinstance(record, BadLine) else record.fields
        if record.line != last:
            video = {} if isinstance(record, BadLine) else {"panda_video": record.video}
            yield {**(fields or {}), **video, "panda_line": record.line}
        last = record.line


def _joined(entries: list[dict[str, Any]]) -> Iterator[Item]:
    """An item for each entry; the two results of a consistency question make one."""
    halves: dict[tuple[str, ...], dict[int, dict[str, Any]]] = {}
    for fields in entries:
        if "digest" in fields and all(name in fields for name in PAIR) and "part" in fields:
            key = tuple(str(fields.get(name)) for name in ("panda_video", *PAIR, *IDS))
            halves.setdefault(key, {})[fields["part"]] = fields
            continue
        yield _item(fields)
    for parts in halves.values():
        first = parts.get(0) or parts.get(1) or {}
        answers = [_prediction(parts[number])[0] if number in parts else None for number in (0, 1)]
        predicted = {f"pred{n}": text for n, text in enumerate(answers, 1) if text is not None}
        errors = [_prediction(part)[1] for part in parts.values()]
        error = next(filter(None, errors), None)
        given = {name: value for name, value in first.items() if name not in ("digest", "answer")}
        yield replace(_item(given | predicted), error=None if len(predicted) == 2 else error)


def _item(fields: dict[str, Any]) -> Item:
    given = fields.get("given")
    data = fields | given if isinstance(given, dict) else fields
    is_ours = "digest" in fields
    if is_ours and not isinstance(given, dict):
        data = {name: value for name, value in fields.items() if name != "answer"}
    prediction, error = _prediction(fields)
    choices = find_choices(data)
    # our results name the question again
    is_generic = "Q" in fields and ("question" not in fields or is_ours)
    second, layout = None, "generic" if is_generic else "qa"
    question = _text(data, QUESTION)
    if all(name in fields for name in PAIR):
        layout, question = "consistency", str(fields[PAIR[0]])
        predicted = [fields.get(f"pred{number}") for number in (1, 2)]
        if all(isinstance(each, str) for each in predicted):
            prediction, second = predicted[0], (str(fields[PAIR[1]]), str(predicted[1]))
            error = None
        else:
            prediction, error = None, error or NO_ANSWER
    return Item(
        id=_text(data, IDS) or str(fields["panda_line"]),
        video=_video(data),
        question=question,
        references=_references(data, choices),
        prediction=prediction,
        error=error,
        type=_text(data, TYPES) or None,
        second=second,
        choices=choices,
        chosen=choices.find(prediction) if choices and prediction is not None else None,
        probabilities=_probabilities(fields, choices) if choices else (),
        layout=layout,
    )


def _prediction(fields: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The prediction in an entry; or None and why there is none."""
    failed = fields.get("error")
    if failed:
        return None, failed.get("message") if isinstance(failed, dict) else str(failed)
    named = [name for name in PREDICTED if is_scalar(fields.get(name))]
    if not named and ("digest" in fields or {"finish_reason", "tokens"} <= fields.keys()):
        named = ["answer"]
    value = fields.get(named[0]) if named else None
    return (str(value), None) if isinstance(value, str | int | float) else (None, NO_ANSWER)


def _references(fields: Mapping[str, Any], choices: Choices | None) -> tuple[str, ...]:
    if choices is not None:
        return () if choices.correct is None else (choices.texts[choices.correct],)
    if is_conversation(dict(fields)):
        answer = reference_answer(dict(fields))
        return (answer,) if answer else ()
    found: list[str] = []
    for name in REFERENCE:
        value = fields.get(name)
        found += [
            str(each) for each in (value if isinstance(value, list) else [value]) if is_scalar(each)
        ]
    return tuple(dict.fromkeys(found))


def _probabilities(fields: Mapping[str, Any], choices: Choices) -> tuple[float, ...]:
    scored = fields.get("choices")
    if not isinstance(scored, list) or len(scored) != len(choices.texts):
        return ()
    held = [each.get("probability") for each in scored if isinstance(each, dict)]
    found = tuple(each for each in held if isinstance(each, float | int))
    return found if len(found) == len(scored) else ()


def _video(fields: Mapping[str, Any]) -> str:
    named = fields.get("panda_video") or _text(fields, VIDEO)
    return PurePosixPath(named).stem if named else ""


def _text(fields: Mapping[str, Any], names: Iterable[str]) -> str:
    found = next((fields[name] for name in names if is_scalar(fields.get(name))), "")
    return str(found)


def add_missing(items: list[Item], questions: list[Item]) -> list[Item]:
    """An item for every question: the answer to it, or one that says that it is missing.

    Answers are found by video and question; where a file of answers names no videos, by id and
    question, or by id. Right answers and types that the answers lack come from the questions.
    """
    found: dict[tuple[str, ...], list[Item]] = {}
    for item in items:
        for key in _keys(item):
            found.setdefault(key, []).append(item)
    used: set[int] = set()
    complete = []
    for question in questions:
        keys = [*_keys(question), ("id", question.id)]
        free = (item for key in keys for item in found.get(key, []) if id(item) not in used)
        answered = next(free, None)
        if answered is None:
            complete.append(replace(question, prediction=None, error=NO_ANSWER, second=None))
            continue
        used.add(id(answered))
        complete.append(
            replace(
                answered,
                id=question.id,
                video=answered.video or question.video,
                references=answered.references or question.references,
                type=answered.type or question.type,
                choices=answered.choices or question.choices,
            )
        )
    return complete


def _keys(item: Item) -> Iterator[tuple[str, ...]]:
    if item.video:
        yield "video", item.video, item.question
    yield "both", item.id, item.question
    if not item.question:
        yield "id", item.id


def question_type(item: Item, typed: bool) -> str:
    """The type of a question: that of the data set, or else its first word, as MSVD-QA has it."""
    if typed:
        return item.type or "other"
    word = next(iter(item.question.casefold().split()), "")
    return word if word in _FIRST_WORDS else "other"


def repeated_ids(items: Iterable[Item]) -> list[str]:
    """Ids that several items have."""
    return [each for each, count in Counter(item.id for item in items).items() if count > 1]
