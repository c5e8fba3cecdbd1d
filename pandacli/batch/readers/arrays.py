"""The entries of a JSON array, one after the other, however large the file is."""

import codecs
import json
import re
from collections.abc import Iterator

from pandacli.batch.readers.json_parsing import MOST_BYTES, TOO_DEEP, TOO_LONG
from pandacli.batch.readers.source import Source
from pandacli.errors import ClipError

_SPACE = re.compile(r"[ \t\r\n]*")
_BLOCK = 1 << 20
_HINT = "repair the file, or write one JSON object a line"

# Only the end of each entry is wanted here, so that numbers need not be converted.
_SCANNER = json.JSONDecoder(parse_int=len, parse_float=len, parse_constant=len)


def elements(source: Source) -> Iterator[bytes]:
    """The entries of the array that a file holds, each as it is written there, on one line.

    Args:
        source: The file.

    Raises:
        ClipError: As a whole it is not JSON, or no array. Entries before the damage have been
            yielded by then.
    """
    window = _Window(source)
    window.take("[")
    if window.peek() != "]":
        yield window.element()
        while window.peek() == ",":
            window.take(",")
            yield window.element()
    window.take("]")
    if window.peek():
        raise window.damaged("something follows the end of the array")


class _Window:
    """The part of a file that is being looked at."""

    def __init__(self, source: Source) -> None:
        self._name = source.name
        self._blocks = _text(source)
        self._text = ""
        self._place = 0
        self._entries = 0

    def peek(self) -> str:
        """The next character that is no space; "" at the end of the file."""
        while True:
            space = _SPACE.match(self._text, self._place)
            self._place = space.end() if space else self._place
            if self._place < len(self._text):
                return self._text[self._place]
            if not self._grow():
                return ""

    def take(self, wanted: str) -> None:
        """Go past a character that must come next."""
        found = self.peek()
        if found != wanted:
            raise self.damaged(f"{wanted!r} is missing" if found else "the end is missing")
        self._place += 1

    def element(self) -> bytes:
        """The value that comes next, whatever it is."""
        self.peek()
        self._entries += 1
        while True:
            try:
                _, end = _SCANNER.raw_decode(self._text, self._place)
                problem = ""
            except json.JSONDecodeError as error:
                end, problem = len(self._text), error.msg[:1].lower() + error.msg[1:]
            except RecursionError:
                raise self.damaged(TOO_DEEP) from None
            if end < len(self._text):
                break
            if end - self._place > MOST_BYTES:
                raise self.damaged(f"{problem or 'the end is missing'}, or it is {TOO_LONG}")
            if not self._grow():  # a value that ends with the file is told by `take`
                if problem:
                    raise self.damaged(problem)
                break
        written = self._text[self._place : end]
        self._place = end
        # a line break can only stand between values: within a string it is written \n
        return written.replace("\r", " ").replace("\n", " ").encode()

    def damaged(self, problem: str) -> ClipError:
        where = f"entry {self._entries}: " if self._entries else ""
        return ClipError(f"{self._name} is not a JSON array: {where}{problem}", _HINT)

    def _grow(self) -> bool:
        block = next(self._blocks, "")
        self._text, self._place = self._text[self._place :] + block, 0
        return bool(block)


def _text(source: Source) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = source.start
    try:
        while block := source.at(offset, _BLOCK):
            offset += len(block)
            if text := decoder.decode(block):
                yield text
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise ClipError(f"{source.name} is not UTF-8", "save it as UTF-8") from None
