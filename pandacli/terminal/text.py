"""Text for a terminal: control characters escaped, lines wrapped between words."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any, TextIO

_CONTROLS = (*range(0x20), *range(0x7F, 0xA0))
_BIDI = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))  # these reorder a line
_LINE = {code: f"\\x{code:02x}" for code in _CONTROLS}
_LINE |= {code: f"\\u{code:04x}" for code in (*_BIDI, *range(0xD800, 0xE000))}
# Python decodes the bytes of a file name that is not UTF-8 to lone surrogates
_LINE |= {code: f"\\x{code - 0xDC00:02x}" for code in range(0xDC80, 0xDD00)}
_LINE |= str.maketrans({"\n": "\\n", "\t": "\\t", "\r": "\\r"})
_TEXT = {code: shown for code, shown in _LINE.items() if chr(code) not in "\n\t"}
_JSON = {code: f"\\u{code:04x}" for code in _LINE if code >= 0x7F}
ASCII = str.maketrans({"…": "...", "·": "-", "“": '"', "”": '"'})
_STYLES = {"bold": "1", "dim": "2", "red": "1;31", "cyan": "36"}


def sanitize(text: str) -> str:
    """Escape all control characters but newlines and tabs; works on pieces of a stream."""
    return text.translate(_TEXT)


def sanitize_line(text: str) -> str:
    """Escape all control characters, newlines and tabs too."""
    return text.translate(_LINE)


def sanitize_json(text: str) -> str:
    """Escape, as JSON does, the control characters that `json.dumps` leaves in strings."""
    return text.translate(_JSON)


def escape_unencodable(error: UnicodeError) -> tuple[str, int]:
    """Replace what a stream cannot encode by ASCII; an error handler for `codecs`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(ASCII)
    return text.encode("ascii", "backslashreplace").decode(), error.end


@cache
def sanitize_libraries() -> None:
    """Escape what Python prints for libraries from now on: warnings, log records, tracebacks."""
    import logging
    import threading
    import traceback
    import warnings

    class SanitizedRecord(logging.LogRecord):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            if self.exc_info and self.exc_info[0]:
                # formatters print exc_text, where it is set, instead of exc_info
                lines = traceback.format_exception(*self.exc_info)
                self.exc_text = sanitize("".join(lines).rstrip("\n"))
            if self.stack_info:
                self.stack_info = sanitize(self.stack_info)

        def getMessage(self) -> str:  # noqa: N802  (its name in logging)
            return sanitize(super().getMessage())

    def show(kind: Any, error: Any, trace: Any) -> None:
        if sys.stderr is not None:
            sys.stderr.write(sanitize("".join(traceback.format_exception(kind, error, trace))))

    def show_unless_ending(args: Any) -> None:
        # a signal raised one of these in a callback: the program is already ending
        if not issubclass(args.exc_type, (KeyboardInterrupt, SystemExit)):
            show(args.exc_type, args.exc_value, args.exc_traceback)

    format_warning = warnings.formatwarning
    warnings.formatwarning = lambda *args, **kwargs: sanitize(format_warning(*args, **kwargs))
    logging.setLogRecordFactory(SanitizedRecord)
    sys.excepthook = show
    threading.excepthook = sys.unraisablehook = show_unless_ending


class WordWrapper:
    """Wraps streamed text between words and never retracts what it has returned.

    Double-width characters (Chinese, Japanese) may be separated anywhere. `width` is called for
    each word, since a window may be resized; lines begun here are indented by `indent` spaces.
    """

    def __init__(self, width: Callable[[], int], indent: int = 0) -> None:
        self._width, self._indent = width, indent
        self._column = 0
        self._space = self._word = ""

    def lines(self, pieces: Iterable[str]) -> Iterator[str]:
        """Yield the pieces with line breaks; none follows the last line."""
        for piece in pieces:
            if shown := "".join(map(self._add, piece)):
                yield shown
        if rest := self.flush():
            yield rest

    @property
    def in_line(self) -> bool:
        return bool(self._column or self._word)

    def _add(self, character: str) -> str:
        if not character.isspace() and cells(character) < 2:
            self._word += character
            return ""
        shown = self.flush()
        if character == "\n":
            self._column, self._space = 0, ""
            return shown + "\n"
        if character.isspace():
            self._space += " "
            return shown
        self._word = character
        return shown + self.flush()

    def flush(self) -> str:
        """Return the word so far, with the space or line break before it."""
        if not self._word:
            return ""
        size, width = cells(self._word), max(1, self._width())
        if self._column and self._column + len(self._space) + size > width:
            # a word too long for any indented line starts at the margin
            self._column = self._indent if self._indent + size <= width else 0
            self._space = "\n" + " " * self._column
        else:
            self._column += len(self._space)
        shown = self._space + self._word
        # the terminal breaks a word that is longer
        self._column = (self._column + size) % width or width
        self._word = self._space = ""
        return shown


def wrap(text: str, width: int, indent: int = 0) -> str:
    """Wrap text without control characters to `width` cells, later lines indented."""
    return "".join(WordWrapper(lambda: width, indent).lines([text]))


def cells(text: str) -> int:
    """The columns that text without control characters takes."""
    if text.isascii():  # saves importing Rich
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def fit(text: str, width: int) -> str:
    """Pad text without control characters to `width` cells, or cut it, with "..." at its end."""
    if (free := width - cells(text)) >= 0:
        return text + " " * free
    from rich.cells import set_cell_size

    return set_cell_size(text, max(width - 3, 0)) + "..."[:width]


def colour(text: str, style: str, stream: TextIO) -> str:
    """Return `text` in bold, dim, red, cyan or "" if `stream` is a terminal with colour."""
    known = os.name != "nt" or "WT_SESSION" in os.environ  # an old Windows console prints the codes
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    if not style or not known or plain or not stream.isatty():
        return text
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m"
