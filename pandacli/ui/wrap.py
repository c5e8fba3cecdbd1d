"""Lines that fit the terminal, made of text that comes in pieces."""

from collections.abc import Callable, Iterable, Iterator


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
