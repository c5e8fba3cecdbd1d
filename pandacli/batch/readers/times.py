"""The times of an entry: its range, the windows that this is cut into, or single times."""

import math
import re
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from pandacli.batch.readers.entries import kind
from pandacli.batch.records import RecordError
from pandacli.errors import UsageError
from pandacli.video.clip import Clip, is_moment, parse_length, parse_time, parse_times

_RANGE = (("from", "start"), ("to", "end"))  # the second name is that of MVBench
_ALIKE = {"start", "end", "begin", "from", "to", "ts", "timestamp", "segment", "span"}
_ALIKE |= {"time", "times", "timestamps", "segments", "range", "interval"}
_WORDS = re.compile("[A-Z]?[a-z]+|[A-Z]+")
_YES_OR_NO = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_MAX_SHOWN = 80  # characters


class Times(NamedTuple):
    """What an entry says of times, in seconds; None where it says nothing."""

    start: float | None
    end: float | None
    every: float | None  # the length of windows
    at: tuple[float, ...]  # times to look at, ascending
    when: bool  # whether segments are asked for


def read_times(fields: Mapping[str, Any]) -> Times:
    """The times of an entry; RecordError where one cannot be read, or they do not go together."""
    start, end = (_time(fields, _range_name(fields, names)) for names in _RANGE)
    every, at, when = _length(fields), _moments(fields), _flag(fields)
    used = [name for name, value in (("every", every), ("at", at), ("when", when)) if value]
    if len(used) > 1:
        raise RecordError(f"the fields {used[0]!r} and {used[1]!r} do not go together")
    try:
        at = Clip(Path(), start, end, at=at).at
    except UsageError as error:
        raise RecordError(error.message) from None
    return Times(start, end, every, at, when)


def unused_times(fields: Mapping[str, Any]) -> list[str]:
    """The names of fields that look like times and are not used as such."""
    return [name for name in _named_like_times(tuple(fields)) if _is_like_time(fields[name])]


@lru_cache(8)  # most entries of a file have the same fields
def _named_like_times(names: tuple[str, ...]) -> list[str]:
    used = {next((name for name in pair if name in names), None) for pair in _RANGE}
    alike = (n for n in names if not _ALIKE.isdisjoint(map(str.lower, _WORDS.findall(n))))
    return [name for name in alike if name not in used]


def _is_like_time(value: Any) -> bool:
    """Whether a value is a time, or like 76.01-84.2 of TVQA, or a list of these."""
    if isinstance(value, list):
        return bool(value) and all(map(_is_like_time, value))
    if isinstance(value, str):
        with suppress(UsageError):
            return all(is_moment(parse_time(part)) for part in value.split("-"))
        return False
    return type(value) in (int, float) and is_moment(value)


def _range_name(fields: Mapping[str, Any], names: tuple[str, str]) -> str:
    return next((name for name in names if name in fields), names[0])


def _time(fields: Mapping[str, Any], name: str) -> float | None:
    value = fields.get(name)
    return None if value is None or value == "" else _seconds(value, name)


def _seconds(value: Any, name: str) -> float:
    seconds = math.nan
    with suppress(UsageError, OverflowError):
        if isinstance(value, str):
            seconds = parse_time(value)
        elif type(value) in (int, float):
            seconds = float(value)
    if not is_moment(seconds):
        raise RecordError(f"the field {name!r} is not a time: {_shown(value)}")
    return seconds


def _length(fields: Mapping[str, Any]) -> float | None:
    value = fields.get("every")
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise RecordError(f"the field 'every' is not a length of time: {_shown(value)}")
    try:
        return parse_length(str(value))
    except UsageError as error:
        raise RecordError(f"the field 'every': {error.message}") from None


def _moments(fields: Mapping[str, Any]) -> tuple[float, ...]:
    value = fields.get("at")
    if value is None or value in ("", []):
        return ()
    if isinstance(value, str):
        try:
            return parse_times(value)
        except UsageError as error:
            raise RecordError(f"the field 'at': {error.message}") from None
    return tuple(_seconds(each, "at") for each in (value if isinstance(value, list) else [value]))


def _flag(fields: Mapping[str, Any]) -> bool:
    value = fields.get("when")
    if isinstance(value, str) and value:  # a cell of a table
        value = _YES_OR_NO.get(value.strip().casefold(), value)
    if value not in (None, "", True, False):
        raise RecordError(f"the field 'when' is not true or false: {_shown(value)}")
    return bool(value)


def _shown(value: Any) -> str:
    return kind(value) if isinstance(value, list | dict) else repr(value)[:_MAX_SHOWN]
