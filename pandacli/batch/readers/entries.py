"""A file of questions as bytes, and its JSON entries, one object a line or an array of objects."""

import codecs
import json
import math
import re
import shutil
import stat
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any, BinaryIO, Self

from pandacli.batch.records import RecordError, Spool
from pandacli.errors import ClipError

Fields = dict[str, Any] | RecordError  # the fields of an entry, or why it has none
Entry = tuple[int, Fields]  # line of an entry, or its number in an array, from 1
Entries = Iterable[Entry]

MOST_BYTES = 8 * 1024 * 1024  # longer entries are rejected, not read
TOO_LONG = f"longer than {MOST_BYTES // 2**20} MB"
TOO_DEEP = "nested too deeply"

_MAX_DEPTH = 64
_BLOCK = 1 << 20
_LONGEST = MOST_BYTES + 64  # a line that is cut must still be seen to be too long
_BOM = b"\xef\xbb\xbf"
_SPACE = re.compile(r"[ \t\r\n]*")
_KINDS: dict[type, str] = {
    **{str: "a string", int: "a number", float: "a number", bool: "true or false"},
    **{type(None): "null", list: "a list", dict: "an object"},
}


class Source:
    """A seekable file of questions and its name in messages; a context manager that closes it."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self.file, self.name, self._start = file, name, 0
        self._start = len(_BOM) if self.head(len(_BOM)) == _BOM else 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def head(self, size: int) -> bytes:
        """The first `size` bytes after the byte order mark."""
        self.file.seek(self._start)
        return self.file.read(size)

    def lines(self, *, blank: bool = False) -> Iterator[tuple[int, bytes]]:
        """Line numbers from 1 and lines, a line that is too long cut; blank lines if asked for."""
        self.file.seek(self._start)
        for number, line in enumerate(iter(partial(self.file.readline, _LONGEST), b""), 1):
            rest = line
            while len(rest) == _LONGEST and not rest.endswith(b"\n"):
                rest = self.file.readline(_LONGEST)
            if blank or not line.isspace():
                yield number, line.removesuffix(b"\n")


def opened(source: Path | BinaryIO) -> Source:
    """Open a file or a stream; pipes and streams are copied first."""
    if not isinstance(source, Path):
        return _copied(source, "standard input")
    try:
        file = source.open("rb")
    except FileNotFoundError:
        raise ClipError(f"there is no file {source}", "check the path") from None
    except IsADirectoryError:
        raise ClipError(f"{source} is a folder", "name the file of questions in it") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ClipError(f"{source} cannot be opened: {reason}") from error
    if stat.S_ISREG(source.stat().st_mode):
        return Source(file, str(source))
    with file:
        return _copied(file, str(source))


def _copied(stream: BinaryIO, name: str) -> Source:
    copy = Spool(name)
    try:
        shutil.copyfileobj(stream, copy, _BLOCK)
        return Source(copy.file, name)
    except BaseException as error:
        copy.close()
        if isinstance(error, OSError):
            raise ClipError(f"{name} cannot be read: {error.strerror}") from error
        raise


def kind(value: Any) -> str:
    """The JSON type of a value with its article: "a string", "null"."""
    return _KINDS[type(value)]


def json_lines(source: Source) -> Iterator[Entry]:
    """The entries of a file with one JSON object a line."""
    return ((number, _parse(line)) for number, line in source.lines())


def _parse(raw: bytes) -> Fields:
    if len(raw) > MOST_BYTES:
        return RecordError(TOO_LONG)
    try:
        return _checked(_DECODER.decode(raw.decode("utf-8").lstrip("\ufeff")))
    except UnicodeDecodeError as error:
        return RecordError(f"not UTF-8 at byte {error.start + 1}")
    except json.JSONDecodeError as error:
        return RecordError(f"not JSON: {_problem(error)} at character {error.pos + 1}")
    except RecursionError:
        return RecordError(TOO_DEEP)


def checked_fields(fields: dict[str, Any]) -> Fields:
    """Apply the limits of JSON entries to fields from elsewhere."""
    try:
        size = len(json.dumps(fields, allow_nan=False))
    except ValueError:
        return RecordError("not JSON: a number is not finite")
    return RecordError(TOO_LONG) if size > MOST_BYTES else _checked(fields)


def _checked(value: Any) -> Fields:
    if not isinstance(value, (dict, RecordError)):
        return RecordError(f"not a JSON object but {kind(value)}")
    return _error_in(value, _MAX_DEPTH) or value


def _error_in(value: Any, levels: int) -> RecordError | None:
    if isinstance(value, RecordError) or not levels:
        return value if isinstance(value, RecordError) else RecordError(TOO_DEEP)
    for inner in value.values() if isinstance(value, dict) else value:
        nested = isinstance(inner, (dict, list, RecordError))
        if nested and (error := _error_in(inner, levels - 1)):
            return error
    return None


def json_array(source: Source) -> Iterator[Entry]:
    """The entries of a JSON array, parsed one at a time; raises ClipError where it is none."""
    text = _ArrayText(source)
    text.take("[")
    more = text.peek() != "]"
    while more:
        yield text.entry()
        if more := text.peek() == ",":
            text.take(",")
    text.take("]")
    if text.peek():
        raise text.damaged("something follows the end of the array")


class _ArrayText:
    """A window into the text of an array."""

    def __init__(self, source: Source) -> None:
        self._name = source.name
        source.head(0)
        self._blocks = iter(partial(source.file.read, _BLOCK), b"")
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._text = ""
        self._place = self._entries = 0

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
        found = self.peek()
        if found != wanted:
            raise self.damaged(f"{wanted!r} is missing" if found else "the end is missing")
        self._place += 1

    def entry(self) -> Entry:
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
        return self._entries, RecordError(TOO_LONG) if length > MOST_BYTES else _checked(value)

    def damaged(self, problem: str) -> ClipError:
        where = f"entry {self._entries}: " if self._entries else ""
        hint = "repair the file, or write one JSON object a line"
        return ClipError(f"{self._name} is not a JSON array: {where}{problem}", hint)

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


# an error takes the place of its value, so that the end of the element is found all the same
_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique_fields,
    parse_float=_finite,
    parse_int=_whole,
    parse_constant=lambda name: RecordError(f"not JSON: {name} is no number"),
)
