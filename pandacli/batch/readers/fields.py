"""The records of an entry, from its fields."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, NamedTuple

from pandacli.batch.readers.choices import read_choices
from pandacli.batch.readers.entries import kind
from pandacli.batch.readers.times import read_times
from pandacli.batch.records import Record, RecordError

MAX_TOKENS = 1_000_000  # the largest `max_tokens` that a record can ask for

VIDEO = (
    *("video", "video_name", "video_path", "videoID"),  # videoID before the video_id of Video-MME
    *("gif_name", "vid_name", "q_uid", "video_idx", "video_id"),  # TGIF-QA, TVQA, EgoSchema, MSRVTT
)
"""Names of the field of the video in known data sets; the first one present is used."""

IDS = ("question_id", "id", "custom_id", "qid", "vid_id", "q_uid", "video_idx")
"""Names of the field of the id; the first one present is used, in any case."""

QUESTION = ("question", "Q", "prompt")
PAIR = ("Q1", "Q2")

_NUMBERED = "video_id"  # a number in MSRVTT-QA: 6513 is video6513.mp4
_MAX_SHOWN = 80  # characters
_MAX_NAMES = 5  # names of fields in a message


class Names(NamedTuple):
    """The names of the fields of an entry: its video, and each of its questions."""

    video: str
    questions: tuple[str, ...]


@lru_cache(8)  # most entries of a file have the same fields
def names_in(fields: tuple[str, ...]) -> Names | None:
    """The known names, exact or in another case, among these; None if either is missing."""
    folded = {name.casefold(): name for name in reversed(fields)}

    def first(*wanted: str) -> str | None:
        exact = [name for name in wanted if name in fields]
        found = exact or [folded[n.casefold()] for n in wanted if n.casefold() in folded]
        return found[0] if found else None

    video, question, pair = first(*VIDEO), first(*QUESTION), [first(name) for name in PAIR]
    questions = (question,) if question else tuple(name for name in pair if name)
    if video is None or len(questions) < (1 if question else len(PAIR)):
        return None
    return Names(video, questions)


def named_fields(video: str, *questions: str) -> Callable[[dict[str, Any], int], list[Record]]:
    """A reader of entries whose video and questions have these names, or other known names."""

    def read(fields: dict[str, Any], line: int) -> list[Record]:
        names = Names(video, questions)
        if not all(name in fields for name in (video, *questions)):
            found = names_in(tuple(fields))
            if found and len(found.questions) == len(questions):
                names = found
        return _read(fields, line, names)

    return read


def read_row(fields: dict[str, Any], line: int) -> list[Record]:
    """The records of a row of a table, whose header has been checked to have all names."""
    names = names_in(tuple(fields))
    assert names is not None
    return _read(fields, line, names)


def _read(fields: dict[str, Any], line: int, names: Names) -> list[Record]:
    video = fields.get(names.video)
    if type(video) is int:
        video = f"video{video}" if names.video.casefold() == _NUMBERED else str(video)
    video = path_in(video) or member(fields, names.video, str)
    questions = {name: member(fields, name, str) for name in names.questions}
    system = "" if fields.get("system") is None else member(fields, "system", str)
    if isinstance(fields.get("id"), list | dict):
        raise RecordError(f"the field 'id' is {kind(fields['id'])}, not a string or a number")
    return build_records(fields, line, video, questions, system, max_tokens(fields, "max_tokens"))


def build_records(
    fields: dict[str, Any],
    line: int,
    video: str,
    questions: Mapping[str, str],
    system: str,
    limit: int | None,
) -> list[Record]:
    """A record for each question, given by its field; an empty `system` counts as none."""
    if not video.strip():
        raise RecordError("the name of the video is empty")
    if "\0" in video:
        raise RecordError("the name of the video has a NUL character in it")
    # bytes of a name that is not UTF-8 are lone surrogates
    _check_unicode(video, "name of the video", "surrogateescape")
    for name, question in questions.items():
        if not question or question.isspace():
            raise RecordError(f"the field {name!r} is empty")
        _check_unicode(question, f"field {name!r}")
    _check_unicode(system, "field 'system'")
    times, choices = read_times(fields), read_choices(fields)
    if times.when and choices:
        raise RecordError("a record with 'when' is answered with segments, not with choices")
    shared = (times.start, times.end, system or None, limit)
    texts = choices.texts if choices else ()
    return [
        Record(line, fields, video, text, *shared, part, len(questions), texts, *times[2:])
        for part, text in enumerate(questions.values())
    ]


def max_tokens(fields: dict[str, Any], name: str) -> int | None:
    """The limit of answer tokens in a field, also as text in a table."""
    value = fields.get(name)
    if value is None or value == "":
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        value = int(value)
    if type(value) is not int or not 1 <= value <= MAX_TOKENS:
        raise RecordError(f"the field {name!r} is not a whole number from 1 to {MAX_TOKENS}")
    return value


def is_scalar(value: Any) -> bool:
    """Whether a value can be an id or an answer: a non-empty string, a number or a boolean."""
    return isinstance(value, str | int | float) and value != ""


def id_in(fields: Mapping[str, Any]) -> Any:
    """The id among the fields of an entry, under any known name in any case; None without one."""
    held = {name: value for name, value in fields.items() if is_scalar(value)}
    folded = {name.casefold(): value for name, value in held.items()}
    return next((each[name] for each in (held, folded) for name in IDS if name in each), None)


def path_in(value: Any) -> str | None:
    """The path of a video, a string or {"path": ...} of `datasets`; None for another value."""
    if isinstance(value, dict):
        value = value.get("path")
    return value if isinstance(value, str) else None


def member(fields: dict[str, Any], name: str, wanted: type) -> Any:
    """A field of the type `wanted`; raises RecordError, which names the most similar field."""
    if name in fields:
        if isinstance(fields[name], wanted):
            return fields[name]
        raise RecordError(f"the field {name!r} is {kind(fields[name])}, not {kind(wanted())}")
    raise RecordError(f"the field {name!r} is missing{near_field(fields, name)}")


def near_field(fields: Mapping[str, Any], name: str) -> str:
    """The most similar field, or else the first ones, for the end of a message."""
    folded = {other.casefold(): other for other in fields}
    if near := get_close_matches(name.casefold(), folded, n=1, cutoff=0.5):
        return f"; the nearest is {folded[near[0]][:_MAX_SHOWN]!r}"
    shown = ", ".join(repr(other[:_MAX_SHOWN]) for other in [*fields][:_MAX_NAMES])
    return f"; there are {shown}" * bool(fields) + ", ..." * (len(fields) > _MAX_NAMES)


def _check_unicode(text: str, where: str, errors: str = "strict") -> None:
    try:
        text.encode("utf-8", errors)
    except UnicodeEncodeError:  # tokenizers reject them
        raise RecordError(f"the {where} contains an unpaired surrogate") from None
