"""From the fields of an entry to the questions it asks."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pandacli.batch.formats.strict import kind
from pandacli.batch.records import Record, RecordError
from pandacli.errors import UsageError
from pandacli.video.clip import Clip, is_moment, parse_time

MOST_TOKENS = 1_000_000
"""The largest `max_tokens` that is taken to be meant."""

VIDEO = ("video", "video_name", "video_id")
QUESTION = ("question", "Q")
PAIR = ("Q1", "Q2")

_SHOWN = 80


@dataclass(frozen=True)
class Names:
    """What a format calls the fields that matter.

    Attributes:
        video: The field of the video.
        questions: The field of each question of an entry.
    """

    video: str
    questions: tuple[str, ...]


def names_in(fields: Iterable[str]) -> Names | None:
    """What the fields of an entry, or the columns of a table, are called.

    Capitals make no difference where the names are otherwise unknown.

    Returns:
        The names; None where there is no video or no question among them.
    """
    present = list(fields)
    video = _first(VIDEO, present)
    pair = [name for name in (_first((wanted,), present) for wanted in PAIR) if name]
    question = _first(QUESTION, present)
    if video is None or (question is None and len(pair) < len(PAIR)):
        return None
    return Names(video, (question,) if question else tuple(pair))


def records_of(fields: dict[str, Any], line: int, names: Names) -> list[Record]:
    """The questions of an entry.

    Args:
        fields: The entry.
        line: Where it stands.
        names: What its fields are called.

    Raises:
        RecordError: A field is missing or has a value that cannot be.
    """
    video = video_name(_text(fields, names.video))
    questions = [question_text(_text(fields, name), name) for name in names.questions]
    start, end = time_range(fields)
    system = fields.get("system")
    if system is not None:
        system = whole_text(_text(fields, "system"), "system") or None
    tokens = max_tokens(fields, "max_tokens")
    if isinstance(fields.get("id"), list | dict):
        raise RecordError(f"the field 'id' is {kind(fields['id'])}, not a string or a number")
    parts = len(questions)
    return [
        Record(line, fields, video, question, start, end, system, tokens, part, parts)
        for part, question in enumerate(questions)
    ]


def video_name(name: str) -> str:
    """The name of a video, checked to be one that a file can have.

    Raises:
        RecordError: It is not.
    """
    if not name.strip():
        raise RecordError("the name of the video is empty")
    if not name.isascii():
        try:  # a name that is not UTF-8 has lone surrogates for its bytes
            name.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raise RecordError("the name of the video has half a character in it") from None
    if "\0" in name:
        raise RecordError("the name of the video has a NUL character in it")
    return name


def question_text(text: str, name: str) -> str:
    """A question, checked to be one.

    Raises:
        RecordError: It is empty, or not text that can be written.
    """
    if not text or text.isspace():
        raise RecordError(f"the field {name!r} is empty")
    return whole_text(text, name)


def whole_text(text: str, name: str) -> str:
    """A text, checked to have no half characters in it.

    Raises:
        RecordError: It has: a lone surrogate, which no tokenizer can take.
    """
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise RecordError(f"the field {name!r} has half a character in it") from None
    return text


def max_tokens(fields: dict[str, Any], name: str) -> int | None:
    """The most tokens of answer that an entry asks for, which a table has as text.

    Raises:
        RecordError: It is not a whole number from 1 to `MOST_TOKENS`.
    """
    value = fields.get(name)
    if value is None or value == "":
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MOST_TOKENS:
        raise RecordError(f"the field {name!r} is not a whole number from 1 to {MOST_TOKENS}")
    return value


def time_range(fields: dict[str, Any]) -> tuple[float | None, float | None]:
    """The fields `from` and `to` in seconds, None where they are absent.

    Raises:
        RecordError: They are no times, or not in this order.
    """
    start, end = _time(fields, "from"), _time(fields, "to")
    if end is not None and end <= (start or 0.0):
        try:
            Clip(Path(), start, end)
        except UsageError as error:
            raise RecordError(error.message) from None
    return start, end


def _time(fields: dict[str, Any], name: str) -> float | None:
    value = fields.get(name)
    if value is None or value == "":
        return None
    seconds = math.nan
    try:
        if isinstance(value, str):
            seconds = parse_time(value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            seconds = float(value)
    except (UsageError, OverflowError):
        pass
    if not is_moment(seconds):
        shown = kind(value) if isinstance(value, list | dict) else repr(value)[:_SHOWN]
        raise RecordError(f"the field {name!r} is not a time: {shown}")
    return seconds


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if isinstance(value, str):
        return value
    if name not in fields:
        raise RecordError(f"the field {name!r} is missing")
    raise RecordError(f"the field {name!r} is {kind(value)}, not a string")


def _first(wanted: tuple[str, ...], present: list[str]) -> str | None:
    for name in wanted:
        if name in present:
            return name
    for name in wanted:
        for found in present:
            if found.casefold() == name.casefold():
                return found
    return None
