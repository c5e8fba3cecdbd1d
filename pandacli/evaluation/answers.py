"""Answer files as items to be scored: a question, its right answers, and what was answered.

Files are read as `panda batch` reads questions, so every layout that it reads or writes is known: a
prediction is the `answer` of our own results and the `pred` (`pred1`, `pred2`) of others. Objects
without questions, which have the index of a choice by id, are read here.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from pandacli.batch.readers.choices import Choices, find_choices, letter
from pandacli.batch.readers.conversations import is_conversation, reference_answer
from pandacli.batch.readers.entries import Source, opened
from pandacli.batch.readers.fields import IDS, PAIR, QUESTION, VIDEO, id_in, is_scalar
from pandacli.batch.readers.moments import (
    Retrieved,
    listed_segments,
    retrieved_segments,
    right_segments,
)
from pandacli.batch.readers.questions import one_object, read_questions
from pandacli.batch.records import EXTENSIONS, BadLine, Record
from pandacli.errors import ClipError, UsageError
from pandacli.evaluation.segments import shown
from pandacli.video.windows import Span

PREDICTED = ("pred", "prediction", "predicted_answer", "response", "output")
"""Fields of a prediction in the files of others."""

REFERENCE = ("answer", "A", "answers", "additional_ref_answer")
TYPES = ("type", "question_type", "task_type", "category")
"""Fields of the type of a question in known data sets."""

NO_ANSWER = "there is no answer in the file"

MOMENTS = "moments"
"""The layout of questions that are answered with segments."""

_TEXTS = (str, int, float)
_MOST = 25  # the largest index of a choice in an object of indices
_FIRST_WORDS = ("what", "who", "how", "when", "where", "why", "which")
_RESULT = (
    *("digest", "model", "finish_reason", "tokens", "seconds", "error", "coverage", "logprobs"),
    *("segments", "windows"),
)
_TABLE = {"finish_reason", "tokens", "seconds"}  # columns of our results in a table
_RESPONSE = {"custom_id", "response", "error"}  # of OpenAI's Batch API
_TABLE_ANSWERS = ("panda_answer", "pred", "answer")  # the first is it, others are of the questions
_HINT = 'a line of it is like {"id": "1", "question": "...", "answer": "right", "pred": "given"}'


@dataclass(frozen=True)
class Item:
    """A question that was to be answered.

    Attributes:
        id: The id of the question, or else its number in the file.
        video: Path of the video as the file has it, without suffix; "" where it does not say.
        question: The question.
        references: The right answers; any of them will do.
        prediction: The answer that was given; None where there is none.
        error: Why there is none.
        type: The type of the question, where the data set has types.
        second: For consistency, the other phrasing and the answer to it, "" where there is none.
        choices: The choices and the right one; None for an open question.
        by_index: Whether the texts of the choices are not known, only their order.
        chosen: Index of the choice that was answered; None for no choice at all.
        probabilities: Of the choices; empty where they were not scored.
        layout: "qa", "generic", "temporal", "consistency" or `MOMENTS`; no file says "temporal" of
            itself.
        span: Start and end of the clip in the video, in seconds, where the file says.
        has_id: Whether `id` is an id.
        coverage: The probability of all choices together, where they were scored.
        segments: The segments that were answered, best first.
        moments: The right segments, any of which will do.
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
    by_index: bool = False
    chosen: int | None = None
    probabilities: tuple[float, ...] = ()
    layout: str = "qa"
    span: tuple[float | None, float | None] = (None, None)
    has_id: bool = True
    coverage: float | None = None
    segments: tuple[Retrieved, ...] = ()
    moments: tuple[Span, ...] = ()


def read_items(
    source: Path | BinaryIO, references: Path | None = None, *, are_answers: bool = False
) -> list[Item]:
    """The items of a file of answers, or of questions: those have no prediction.

    Args:
        source: The file, or a stream.
        references: For the layout "qa", the file of right answers.
        are_answers: Whether the segments of a file of Charades-STA, which does not say, are answers
            rather than right ones.

    Raises:
        ClipError: The file cannot be read, or has no questions in it.
        UsageError: The right answers cannot be joined with it.
    """
    try:
        with opened(source) as file:
            if items := _items_by_index(file):
                return items
            file.file.seek(0)  # the copy of a stream
            again = source if isinstance(source, Path) else cast(BinaryIO, file.file)
            with read_questions(again, answers=references) as questions:
                name, entries = questions.name, list(_entries(questions.records))
                swaps = are_answers and questions.format == "charades-sta"
    except UsageError as error:
        raise UsageError(error.message, "name the questions too: --questions") from error
    except ClipError as error:
        if error.hint and "{" in error.hint:  # like our files of questions
            raise ClipError(f"{source} is no file of questions or answers", _HINT) from error
        raise
    items = list(_joined(entries))
    if swaps:
        items = [_as_answer(item) for item in items]
    if not items:
        raise ClipError(f"{name} has no answers in it", _HINT)
    return items


def _items_by_index(file: Source) -> list[Item]:
    """The items of an object of indices; empty for another file, and where it has questions.

    By id: an index (EgoSchema, TVQA), or {"prediction", "answer"} (NExT-QA). By video: a list of
    {"id", "answer_id"} (the Perception Test).
    """
    found: list[tuple[str, int, Any]] = []  # id, index, index of the right choice
    value = one_object(file)
    for name, held in value.items() if value.keys().isdisjoint((*IDS, *PREDICTED)) else ():
        for entry in held if isinstance(held, list) else [held]:
            fields = entry if isinstance(entry, dict) else {"prediction": entry}
            index = fields.get("prediction", fields.get("answer_id"))
            if type(index) is not int or index > _MOST or any(each in fields for each in QUESTION):
                return []
            if "prediction" in fields:
                found.append((name, index, fields.get("answer")))
            else:
                found.append((f"{name}_{id_in(fields)}", index, None))
    texts = {number: f"({letter(number)})" for number in range(_MOST + 1)}
    items = []
    for name, index, right in found:
        references = (texts[right],) if type(right) is int and right in texts else ()
        item = Item(name, "", "", references, texts.get(index), by_index=True)
        choices = Choices(tuple(texts.values()), right if references else None)
        chosen, error = (index, None) if item.prediction else (None, NO_ANSWER)
        items.append(replace(item, choices=choices, chosen=chosen, error=error))
    return items


@dataclass(frozen=True)
class _Entry:
    """An entry of a file: what was asked, and what was answered."""

    asked: Mapping[str, Any]
    prediction: str | int | None
    error: str | None
    fields: Mapping[str, Any]
    record: Record | None
    line: int


def _entries(records: Iterable[Record | BadLine]) -> Iterator[_Entry]:
    """Each entry once, also those without a video."""
    last = -1
    for record in records:
        if record.line != last:
            last = record.line
            if isinstance(record, Record):
                yield _Entry(*_split(record.fields), record.fields, record, last)
            elif fields := record.error.fields:
                yield _Entry(*_split(fields), fields, None, last)
            else:
                yield _Entry({}, None, record.error.message, {}, None, last)


def _split(fields: dict[str, Any]) -> tuple[dict[str, Any], str | int | None, str | None]:
    """What was asked, what was answered, and why nothing was."""
    asked, name = fields, None
    if fields.keys() >= _RESPONSE:
        asked, name = {"id": fields["custom_id"]}, "content"
        fields = {"content": _content(fields["response"]), "error": fields["error"]}
    elif "digest" in fields:
        name = "answer"
    elif fields.keys() >= _TABLE:
        name = next((name for name in _TABLE_ANSWERS if name in fields), None)
    if name is not None:
        own = (name, *_RESULT, *(["choices"] if _scored(fields) else []))
        asked = {key: value for key, value in asked.items() if key not in own}
        given = fields.get("given")
        asked |= given if isinstance(given, dict) else {}
    else:
        name = next((name for name in PREDICTED if isinstance(fields.get(name), _TEXTS)), None)
    failed = fields.get("error")
    if failed:
        return asked, None, str(failed.get("message") if isinstance(failed, dict) else failed)
    value = fields.get(name) if name else None
    if not isinstance(value, _TEXTS):
        return asked, None, NO_ANSWER
    return asked, value if type(value) is int else str(value), None


def _content(response: Any) -> str | None:
    """The answer in a response of OpenAI's Batch API."""
    try:
        content = response["body"]["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        return None
    return content if isinstance(content, str) else None


def _joined(entries: list[_Entry]) -> Iterator[Item]:
    """An item for each entry; the two results of a consistency question make one."""
    halves: dict[tuple[str, ...], dict[str, _Entry]] = {}
    repeats: Counter[tuple[str, ...]] = Counter()  # of the same half of equal questions
    for entry in entries:
        if "part" in entry.asked and all(name in entry.asked for name in PAIR):
            key = (_video(entry), *(str(entry.asked.get(name)) for name in (*PAIR, *IDS)))
            part = str(entry.asked["part"])
            halves.setdefault((*key, str(repeats[*key, part])), {})[part] = entry
            repeats[*key, part] += 1
            continue
        yield _item(entry)
    for parts in halves.values():
        given = [parts[each].prediction if each in parts else None for each in "01"]
        error = next((part.error for part in parts.values() if part.error), NO_ANSWER)
        first = next(iter(parts.values()))
        pair = {f"pred{n}": text for n, text in enumerate(given, 1) if text is not None}
        yield _item(replace(first, fields={**first.asked, **pair}, error=error))


def _item(entry: _Entry) -> Item:
    asked, record, fields = entry.asked, entry.record, entry.fields
    choices, second = find_choices(asked), None
    prediction, error = _prediction(entry, choices)
    question = record.question if record else _text(asked, QUESTION)
    # our results name the question again
    is_generic = "Q" in asked and ("question" not in asked or "digest" in fields)
    layout = "generic" if is_generic else "qa"
    if all(name in asked for name in PAIR):
        layout, question = "consistency", str(asked[PAIR[0]])
        one, two = (fields.get(f"pred{number}") for number in (1, 2))
        if isinstance(one, str) and isinstance(two, str):
            prediction, second, error = one, (str(asked[PAIR[1]]), two), None
        else:
            prediction, second, error = None, (str(asked[PAIR[1]]), ""), error or NO_ANSWER
    item = Item(
        id=str(entry.line if id_in(asked) is None else id_in(asked)),
        video=_video(entry),
        question=question,
        references=_references(asked, choices),
        prediction=prediction,
        error=error,
        type=_text(asked, TYPES) or None,
        second=second,
        choices=choices,
        chosen=choices.find(prediction) if choices and prediction is not None else None,
        probabilities=_probabilities(fields, choices) if choices else (),
        layout=layout,
        span=(record.start, record.end) if record else (None, None),
        has_id=id_in(asked) is not None,
        coverage=_probability(fields.get("coverage")),
    )
    return replace(item, **_answered_with(entry))


def _answered_with(entry: _Entry) -> dict[str, Any]:
    """The fields of an item that is answered with segments; empty for another."""
    found, right = retrieved_segments(entry.fields), right_segments(entry.asked)
    asks_when = entry.record is not None and entry.record.when
    if found is None and asks_when and isinstance(entry.prediction, str):
        found = listed_segments(entry.prediction)
    if found is None and not right and not asks_when:
        return {}
    fields: dict[str, Any] = {"layout": MOMENTS, "moments": right}
    fields["references"] = tuple(map(shown, right))
    if found is None or (entry.error and entry.error != NO_ANSWER):
        return fields | {"prediction": None, "error": entry.error or NO_ANSWER}
    return fields | {"segments": found, "prediction": _text_of(found), "error": None}


def _text_of(found: tuple[Retrieved, ...]) -> str:
    return shown(found[0][:2]) if found else ""


def _as_answer(item: Item) -> Item:
    """A line of Charades-STA with the segment as the answer."""
    found = tuple(Retrieved(*moment, 0.0) for moment in item.moments)
    prediction = _text_of(found) if found else None
    item = replace(item, segments=found, moments=(), references=(), prediction=prediction)
    return item if prediction is None else replace(item, error=None)


def _prediction(entry: _Entry, choices: Choices | None) -> tuple[str | None, str | None]:
    """The prediction in an entry, also as the index of a choice; or None and why there is none."""
    given = entry.prediction
    if choices and type(given) is int:
        given = choices.texts[given] if 0 <= given < len(choices.texts) else None
    if given is None or (choices and given == ""):
        return None, entry.error or NO_ANSWER
    return str(given), entry.error


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


def _scored(fields: Mapping[str, Any]) -> tuple[float, ...]:
    """The probabilities of choices in one of our results."""
    value = fields.get("choices")
    with suppress(ValueError):  # a cell of a table
        value = json.loads(value) if isinstance(value, str) else value
    held = value if isinstance(value, list) else []
    found = [_probability(each.get("probability")) for each in held if isinstance(each, dict)]
    known = tuple(each for each in found if each is not None)
    return known if len(known) == len(held) else ()


def _probability(value: Any) -> float | None:
    return value if type(value) in (float, int) and 0 <= value <= 1 else None


def _probabilities(fields: Mapping[str, Any], choices: Choices) -> tuple[float, ...]:
    found = _scored(fields)
    return found if len(found) == len(choices.texts) else ()


def _video(entry: _Entry) -> str:
    named = entry.record.video if entry.record else _text(entry.asked, VIDEO)
    path = PurePosixPath(named) if named else None
    is_file = path is not None and path.suffix.lower() in EXTENSIONS
    return str(path.with_suffix("") if path and is_file else path or "")


def _text(fields: Mapping[str, Any], names: Iterable[str]) -> str:
    found = next((fields[name] for name in names if is_scalar(fields.get(name))), "")
    return str(found)


def question_types(items: Iterable[Item]) -> list[str]:
    """The type of each question: as the data set has it, or else its first word, as in MSVD-QA."""
    items = list(items)
    if len({item.type for item in items} - {None}) > 1:
        return [item.type or "other" for item in items]
    words = [re.match(r"\W*(\w*)", item.question.casefold()) for item in items]
    return [word[1] if word and word[1] in _FIRST_WORDS else "other" for word in words]
