"""One JSON object from outside, read so that nothing in it can surprise us later."""

import json
import math
from typing import Any

from pandacli.batch.records import RecordError

MOST_BYTES = 8 * 1024 * 1024
"""An entry that is longer is not read: nobody writes such a question."""

TOO_LONG = f"longer than {MOST_BYTES // 2**20} MB"
TOO_DEEP = "nested too deeply"

_DEPTH = 64


def parse(raw: bytes) -> dict[str, Any]:
    """The object that a line holds.

    Whatever it returns can be written as JSON again: no NaN, no infinity, no field twice, and not
    nested deeper than 64 levels.

    Raises:
        RecordError: It is not such an object.
    """
    if len(raw) > MOST_BYTES:
        raise RecordError(TOO_LONG)
    try:
        text = raw.decode("utf-8").lstrip("\ufeff")
    except UnicodeDecodeError as error:
        raise RecordError(f"not UTF-8 at byte {error.start + 1}") from None
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise RecordError(f"not JSON: {_first_down(error)}") from None
    except RecursionError:
        raise RecordError(TOO_DEEP) from None
    except ValueError:  # Python converts no number of more than 4300 digits
        raise RecordError("a number has too many digits") from None
    if not isinstance(value, dict):
        raise RecordError(f"not a JSON object but {kind(value)}")
    if raw.count(b"[") + raw.count(b"{") > _DEPTH and _depth(value) > _DEPTH:
        raise RecordError(TOO_DEEP)
    return value


def kind(value: Any) -> str:
    """What JSON calls a value, with its article: "a string", "null"."""
    return _KINDS[type(value)]


_KINDS = {
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
    list: "a list",
    dict: "an object",
}


def _first_down(error: json.JSONDecodeError) -> str:
    problem = error.msg.removesuffix(" at")  # "Invalid control character at"
    return f"{problem[:1].lower()}{problem[1:]} at character {error.pos + 1}"


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        double = next(name for name in names if names.count(name) > 1)
        raise RecordError(f"the field {double[:80]!r} is there twice")
    return value


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise RecordError(f"the number {text[:40]} is too large")
    return value


def _no_constant(name: str) -> None:
    raise RecordError(f"not JSON: {name} is no number")


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level and depth <= _DEPTH:
        depth += 1
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return depth


_DECODER = json.JSONDecoder(
    object_pairs_hook=_without_doubles, parse_float=_finite, parse_constant=_no_constant
)
