r"""Text from outside, made safe to print.

File names, questions, answers and metadata are data: a terminal must never act on them. Control
characters (C0, C1, DEL) and the bidirectional overrides that can reorder a line are shown as
`\x1b` or `\u202e`. Everything else, emoji and right-to-left scripts included, passes unchanged.

What libraries say by themselves (warnings, log records, tracebacks of threads) goes to the terminal
past panda's own output; `sanitize_libraries` has it pass through here too.

Lines that fit the terminal, made of text that comes in pieces.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import chain
from typing import TextIO

# Embeddings, overrides and isolates: they make a line read otherwise than it is.
_BIDI = chain(range(0x202A, 0x202F), range(0x2066, 0x206A))
_CONTROLS = chain(range(0x20), range(0x7F, 0xA0))
# Python keeps the bytes of a file name that is not UTF-8 as lone surrogates.
_UNDECODED_BYTES = range(0xDC80, 0xDD00)
_OTHER_SURROGATES = chain(range(0xD800, 0xDC80), range(0xDD00, 0xE000))

_LINE = (
    {code: f"\\x{code:02x}" for code in _CONTROLS}
    | {code: f"\\u{code:04x}" for code in _BIDI}
    | {code: f"\\x{code - 0xDC00:02x}" for code in _UNDECODED_BYTES}
    | {code: f"\\u{code:04x}" for code in _OTHER_SURROGATES}
    | {ord("\n"): "\\n", ord("\t"): "\\t", ord("\r"): "\\r"}
)
_JSON = {code: f"\\u{code:04x}" for code in _LINE if code >= 0x7F}
_TEXT = {code: shown for code, shown in _LINE.items() if chr(code) not in "\n\t"}


def sanitize(text: str) -> str:
    """Returns `text` with what a terminal might act on spelt out; newlines and tabs stay.

    One character at a time, so the pieces of a stream can be passed one by one.
    """
    return text.translate(_TEXT)


def sanitize_line(text: str) -> str:
    """Returns `text` as `harmless` does, on one line: newlines and tabs are spelt out too."""
    return text.translate(_LINE)


def sanitize_json(text: str) -> str:
    """Returns a JSON text in which such characters are escaped as JSON has it.

    They can only stand within strings. C0 characters are escaped in every JSON.
    """
    return text.translate(_JSON)


@cache
def sanitize_libraries() -> None:
    """Makes harmless, in this process from now on, what Python prints for libraries.

    That is every warning, every record of `logging` whatever handler prints it, and tracebacks of
    threads and finalizers.
    """
    import logging
    import threading
    import traceback
    import warnings
    from types import TracebackType
    from typing import Any

    class HarmlessRecord(logging.LogRecord):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            if self.exc_info and self.exc_info[0]:
                # set, it is printed instead of what a formatter would make of `exc_info`
                lines = traceback.format_exception(*self.exc_info)
                self.exc_text = sanitize("".join(lines).rstrip("\n"))
            if self.stack_info:
                self.stack_info = sanitize(self.stack_info)

        def getMessage(self) -> str:  # noqa: N802  (its name in logging)
            return sanitize(super().getMessage())

    logging.setLogRecordFactory(HarmlessRecord)
    format_warning = warnings.formatwarning

    def formatwarning(*args: Any, **kwargs: Any) -> str:
        return sanitize(format_warning(*args, **kwargs))

    warnings.formatwarning = formatwarning

    def show(
        kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if sys.stderr is not None:
            sys.stderr.write(sanitize("".join(traceback.format_exception(kind, error, trace))))

    def show_of_thread(args: "threading.ExceptHookArgs") -> None:
        if args.exc_type is not SystemExit:
            show(args.exc_type, args.exc_value, args.exc_traceback)

    def show_unraisable(args: "sys.UnraisableHookArgs") -> None:
        # raised by a signal in a callback, where nothing can catch it: the program is ending
        if not issubclass(args.exc_type, (KeyboardInterrupt, SystemExit)):
            show(args.exc_type, args.exc_value, args.exc_traceback)

    sys.excepthook = show
    threading.excepthook = show_of_thread
    sys.unraisablehook = show_unraisable


_ASCII = str.maketrans({"…": "...", "·": "-", "“": '"', "”": '"'})


def escape_unencodable(error: UnicodeError) -> tuple[str, int]:
    """What a stream writes for characters that it cannot encode: a handler for `codecs`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_ASCII)
    return text.encode("ascii", "backslashreplace").decode(), error.end


class Wrapped:
    """Breaks lines between words, without ever having to take back what was shown.

    A word is given once it is known to end. Characters that take two cells, as in Chinese and
    Japanese, may be parted anywhere.

    Args:
        width: Tells the cells of a line, and is asked at every word, so that a window may change.
        indent: Spaces in front of every line after a break that was inserted here.
    """

    def __init__(self, width: Callable[[], int], indent: int = 0) -> None:
        self._width = width
        self._indent = indent
        self._column = 0
        self._space = ""
        self._word = ""

    def lines(self, pieces: Iterable[str]) -> Iterator[str]:
        """The pieces with line breaks in them; the last one is followed by none."""
        for piece in pieces:
            if shown := "".join(map(self._add, piece)):
                yield shown
        if rest := self.rest():
            yield rest

    @property
    def begun(self) -> bool:
        """Whether the line that is being written has anything in it."""
        return bool(self._column or self._word)

    def rest(self) -> str:
        """The word that is not known to have ended, where no more comes."""
        return self._flush()

    def _add(self, character: str) -> str:
        if character == "\n":
            shown = self._flush() + "\n"
            self._column, self._space = 0, ""
            return shown
        if character.isspace():
            shown = self._flush()
            self._space += " "
            return shown
        if _cells(character) > 1:
            shown = self._flush()
            self._word = character
            return shown + self._flush()
        self._word += character
        return ""

    def _flush(self) -> str:
        """The word so far, in front of it what parts it from the one before."""
        if not self._word:
            return ""
        size, width = _cells(self._word), max(1, self._width())
        if self._column and self._column + len(self._space) + size > width:
            # a word that fits into no indented line would only be pushed further off
            indent = self._indent if self._indent + size <= width else 0
            shown, self._column = "\n" + " " * indent + self._word, indent + size
        else:
            shown = self._space + self._word
            self._column += len(self._space) + size
        self._column = self._column % width or width  # where the terminal breaks a long word
        self._word = self._space = ""
        return shown


def wrapped(text: str, width: int, indent: int = 0) -> str:
    """Returns `text` broken between words, the lines after the first indented.

    Args:
        text: Without control characters.
        width: Cells of a line.
        indent: Spaces in front of every line that is begun here.
    """
    return "".join(Wrapped(lambda: width, indent).lines([text]))


def _cells(text: str) -> int:
    if text.isascii():  # spares the import
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


_STYLES = {"bold": "1", "red": "1;31", "cyan": "36"}


def colour(text: str, style: str, stream: TextIO) -> str:
    """Return `text` in a style, one of bold, red and cyan, if `stream` is a terminal with colour.

    Rich takes longer to import than help and usage errors take to print.
    """
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if _shows_colour(stream) else text


def _shows_colour(stream: TextIO) -> bool:
    known = os.name != "nt" or "WT_SESSION" in os.environ  # an old Windows console prints the codes
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return known and not plain and stream.isatty()
