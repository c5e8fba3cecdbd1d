"""JSON from outside, one object a line or an array of objects, each parsed once."""

import codecs
import json
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any

from pandacli.batch.readers.source import MOST_BYTES, Source
from pandacli.batch.records import RecordError
from pandacli.errors import ClipError

Entry = tuple[int, dict[str, Any] | RecordError]
"""Line of an entry (or its number in an array), from 1, and its fields or why it has none."""

Entries = Iterable[Entry]

TOO_LONG = f"longer than {MOST_BYTES // 2**20} MB"
TOO_DEEP = "nested too deeply"

_DEPTH = 64
_SPACE = re.compile(r"[ \t\r\n]*")
_ARRAY_HINT = "repair the file, or write one JSON object a line"
_KINDS = {
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
    list: "a list",
    dict: "an object",
}


def kind(value: Any) -> str:
    """The JSON type of a value with its article: "a string", "null"."""
    return _KINDS[type(value)]


def json_lines(source: Source) -> Iterator[Entry]:
    """The entries of a file with one JSON object a line."""
    for number, line in source.lines():
        try:
            yield number, parse(line)
        except RecordError as error:
            yield number, error


def parse(raw: bytes) -> dict[str, Any]:
    """Parse one JSON object.

    The result can be written as JSON again: no NaN, no infinity, no duplicate field, at most 64
    levels.

    Raises:
        RecordError: It is not such an object.
    """
    if len(raw) > MOST_BYTES:
        raise RecordError(TOO_LONG)
    try:
        return checked_object(_DECODER.decode(raw.decode("utf-8").lstrip("\ufeff")))
    except UnicodeDecodeError as error:
        raise RecordError(f"not UTF-8 at byte {error.start + 1}") from None
    except json.JSONDecodeError as error:
        raise RecordError(f"not JSON: {_problem(error)} at character {error.pos + 1}") from None
    except RecursionError:
        raise RecordError(TOO_DEEP) from None


def checked_object(value: Any) -> dict[str, Any]:
    """The decoded value, if it is an object of at most 64 levels without errors in it.

    Raises:
        RecordError: It is not.
    """
    if isinstance(value, RecordError):
        raise value
    if not isinstance(value, dict):
        raise RecordError(f"not a JSON object but {kind(value)}")
    level: list[Any] = [value]
    for _ in range(_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list, RecordError))
        ]
        for inner in level:
            if isinstance(inner, RecordError):
                raise inner
        if not level:
            return value
    raise RecordError(TOO_DEEP)


def checked_fields(fields: dict[str, Any]) -> dict[str, Any] | RecordError:
    """Apply the limits of `parse` to fields that do not come from it; or why they break them."""
    try:
        if len(json.dumps(fields, allow_nan=False)) > MOST_BYTES:
            raise RecordError(TOO_LONG)
        return checked_object(fields)
    except ValueError:
        return RecordError("not JSON: a number is not finite")
    except RecordError as error:
        return error


def json_array(source: Source) -> Iterator[Entry]:
    """The entries of a JSON array, parsed one at a time.

    Raises:
        ClipError: The file as a whole is not a JSON array.
    """
    text = _ArrayText(source)
    text.take("[")
    if text.peek() != "]":
        yield text.entry()
        while text.peek() == ",":
            text.take(",")
            yield text.entry()
    text.take("]")
    if text.peek():
        raise text.damaged("something follows the end of the array")


class _ArrayText:
    """A window into the text of an array."""

    def __init__(self, source: Source) -> None:
        self._name = source.name
        self._blocks = source.blocks()
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._text = ""
        self._place = 0
        self._entries = 0

    def peek(self) -> str:
        """The next character that is not a space; "" at the end of the file."""
        while True:
            space = _SPACE.match(self._text, self._place)
            self._place = space.end() if space else self._place
            if self._place < len(self._text):
                return self._text[self._place]
            if not self._grow():
                return ""

    def take(self, wanted: str) -> None:
        """Skip a character that must come next."""
        found = self.peek()
        if found != wanted:
            raise self.damaged(f"{wanted!r} is missing" if found else "the end is missing")
        self._place += 1

    def entry(self) -> Entry:
        """Parse the next element."""
        self.peek()
        self._entries += 1
        while True:
            value, end, problem = None, len(self._text), ""
            try:
                value, end = _DECODER.raw_decode(self._text, self._place)
            except json.JSONDecodeError as error:
                problem = _problem(error)
            except RecursionError:
                raise self.damaged(TOO_DEEP) from None
            if end < len(self._text):
                break
            if end - self._place > MOST_BYTES:
                raise self.damaged(f"{problem or 'the end is missing'}, or it is {TOO_LONG}")
            if not self._grow():
                if problem:
                    raise self.damaged(problem)
                break
        length, self._place = end - self._place, end
        try:
            if length > MOST_BYTES:
                raise RecordError(TOO_LONG)
            return self._entries, checked_object(value)
        except RecordError as error:
            return self._entries, error

    def damaged(self, problem: str) -> ClipError:
        where = f"entry {self._entries}: " if self._entries else ""
        return ClipError(f"{self._name} is not a JSON array: {where}{problem}", _ARRAY_HINT)

    def _grow(self) -> bool:
        self._text, self._place = self._text[self._place :], 0
        try:
            for block in self._blocks:
                if text := self._utf8.decode(block):
                    self._text += text
                    return True
            self._utf8.decode(b"", final=True)
        except UnicodeDecodeError:
            raise ClipError(f"{self._name} is not UTF-8", "save it as UTF-8") from None
        return False


def _problem(error: json.JSONDecodeError) -> str:
    problem = error.msg.removesuffix(" at")  # "Invalid control character at"
    return problem[:1].lower() + problem[1:]


# An error takes the place of its value, so that the end of the element is found all the same.


def _unique_fields(pairs: list[tuple[str, Any]]) -> dict[str, Any] | RecordError:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        double = next(name for name in names if names.count(name) > 1)
        return RecordError(f"the field {double[:80]!r} is there twice")
    return value


def _finite(text: str) -> float | RecordError:
    value = float(text)
    return RecordError(f"the number {text[:40]} is too large") if math.isinf(value) else value


def _whole(text: str) -> int | RecordError:
    try:
        return int(text)
    except ValueError:  # Python converts 4300 digits
        return RecordError("a number has too many digits")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique_fields,
    parse_float=_finite,
    parse_int=_whole,
    parse_constant=lambda name: RecordError(f"not JSON: {name} is no number"),
)
