"""The records of an entry, from its fields."""

import math
import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from pandacli.batch.readers.json_entries import kind
from pandacli.batch.records import Record, RecordError
from pandacli.errors import UsageError
from pandacli.video.clip import Clip, is_moment, parse_time

MOST_TOKENS = 1_000_000
"""The largest `max_tokens` that a record can ask for."""

VIDEO = (
    *("video", "video_name", "video_path", "videoID"),  # videoID before the video_id of Video-MME
    *("vid_name", "gif_name", "q_uid", "video_id"),  # TVQA, TGIF-QA, EgoSchema, MSRVTT-QA
)
"""Names of the field of the video in known data sets; the first one present is used."""

QUESTION = ("question", "Q", "prompt")
PAIR = ("Q1", "Q2")

_NUMBERED = "video_id"  # a number in MSRVTT-QA: 6513 is video6513.mp4
_TIMES = {"from": "start", "to": "end"}  # what MVBench calls them
_CHOICES = re.compile(r"a\d|option[ _]?\d|candidates|options|choices", re.IGNORECASE)

_SHOWN = 80
_MOST_SHOWN = 5  # names of fields in a message


class Names(NamedTuple):
    """The names of the fields of an entry: its video, and each of its questions."""

    video: str
    questions: tuple[str, ...]


def names_in(fields: Iterable[str]) -> Names | None:
    """Find the video and the question among the fields of an entry or the columns of a table.

    Unknown names are compared without case. None where there is no video or no question.
    """
    present = list(fields)
    video = _first(VIDEO, present)
    pair = [name for name in (_first((wanted,), present) for wanted in PAIR) if name]
    question = _first(QUESTION, present)
    if video is None or (question is None and len(pair) < len(PAIR)):
        return None
    return Names(video, (question,) if question else tuple(pair))


def named_fields(video: str, *questions: str) -> Callable[[dict[str, Any], int], list[Record]]:
    """A reader of entries whose video and questions have these names, or other known names."""

    def read(fields: dict[str, Any], line: int) -> list[Record]:
        names = Names(video, questions)
        if not all(name in fields for name in (video, *questions)):
            found = names_in(fields)
            if found and len(found.questions) == len(questions):
                names = found
        return _records(fields, line, names)

    return read


def read_row(fields: dict[str, Any], line: int) -> list[Record]:
    """The records of a row of a table, whose header has been checked to have all names."""
    names = names_in(fields)
    assert names is not None
    return _records(fields, line, names)


def _records(fields: dict[str, Any], line: int, names: Names) -> list[Record]:
    video = video_name(_video(fields, names.video))
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


def choice_fields(fields: Iterable[str]) -> list[str]:
    """The fields that hold the answers to choose from, such as `a0` to `a4` or `options`."""
    return [name for name in fields if _CHOICES.fullmatch(name)]


def video_name(name: str) -> str:
    """Check that a file can have this name; raises RecordError."""
    if not name.strip():
        raise RecordError("the name of the video is empty")
    try:  # bytes of a name that is not UTF-8 are lone surrogates
        name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise RecordError("the name of the video contains an unpaired surrogate") from None
    if "\0" in name:
        raise RecordError("the name of the video has a NUL character in it")
    return name


def question_text(text: str, name: str) -> str:
    """Check that a question is not empty, and valid Unicode; raises RecordError."""
    if not text or text.isspace():
        raise RecordError(f"the field {name!r} is empty")
    return whole_text(text, name)


def whole_text(text: str, name: str) -> str:
    """Check that a text has no unpaired surrogates, which tokenizers reject."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise RecordError(f"the field {name!r} contains an unpaired surrogate") from None
    return text


def max_tokens(fields: dict[str, Any], name: str) -> int | None:
    """The limit of answer tokens in a field, also as text in a table; raises RecordError."""
    value = fields.get(name)
    if value is None or value == "":
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MOST_TOKENS:
        raise RecordError(f"the field {name!r} is not a whole number from 1 to {MOST_TOKENS}")
    return value


def time_range(fields: dict[str, Any]) -> tuple[float | None, float | None]:
    """The fields `from` and `to`, or else `start` and `end`, in seconds; raises RecordError."""
    start, end = (
        _time(fields, name if name in fields else other) for name, other in _TIMES.items()
    )
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


def _video(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if name.casefold() == _NUMBERED and isinstance(value, int) and not isinstance(value, bool):
        return f"video{value}"
    path = path_in(value)
    return _text(fields, name) if path is None else path


def path_in(value: Any) -> str | None:
    """The path of a video, a string or {"path": ...} of `datasets`; None for another value."""
    if isinstance(value, dict):
        value = value.get("path")
    return value if isinstance(value, str) else None


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if isinstance(value, str):
        return value
    if name not in fields:
        raise RecordError(f"the field {name!r} is missing{nearest(name, fields)}")
    raise RecordError(f"the field {name!r} is {kind(value)}, not a string")


def nearest(name: str, fields: Iterable[str]) -> str:
    """The end of "the field ... is missing": the most similar field, or those that there are."""
    present = list(fields)
    folded = {other.casefold(): other for other in present}
    if near := get_close_matches(name.casefold(), folded, n=1, cutoff=0.5):
        return f"; the nearest is {folded[near[0]][:_SHOWN]!r}"
    shown = ", ".join(repr(other[:_SHOWN]) for other in present[:_MOST_SHOWN])
    more = ", ..." if len(present) > _MOST_SHOWN else ""
    return f"; there are {shown}{more}" if present else ""


def _first(wanted: tuple[str, ...], present: list[str]) -> str | None:
    for name in wanted:
        if name in present:
            return name
    for name in wanted:
        for found in present:
            if found.casefold() == name.casefold():
                return found
    return None
