"""The file of questions as bytes: from a path, a pipe or standard input."""

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO, Self

from pandacli.batch.records import Spool
from pandacli.errors import ClipError

MOST_BYTES = 8 * 1024 * 1024
"""Longer entries are rejected, not read."""

_BLOCK = 1 << 20
_LONGEST = MOST_BYTES + 64  # a line that is cut must still be seen to be too long
_BOM = b"\xef\xbb\xbf"


class Source:
    """A seekable file of questions; a context manager that closes it.

    Args:
        file: The file, open for reading.
        name: Its name in messages.
    """

    def __init__(self, file: IO[bytes], name: str) -> None:
        self.file = file
        self.name = name
        file.seek(0)
        self._start = len(_BOM) if file.read(len(_BOM)) == _BOM else 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def head(self, size: int) -> bytes:
        """The first `size` bytes after the byte order mark."""
        self.file.seek(self._start)
        return self.file.read(size)

    def lines(self, *, blank: bool = False) -> Iterator[tuple[int, bytes]]:
        """Line numbers from 1 and lines; a line that is too long is cut.

        Args:
            blank: Whether to yield blank lines as well; they are counted anyway.
        """
        self.file.seek(self._start)
        number = 0
        while line := self.file.readline(_LONGEST):
            number += 1
            rest = line
            while len(rest) == _LONGEST and not rest.endswith(b"\n"):
                rest = self.file.readline(_LONGEST)
            line = line.removesuffix(b"\n")
            if blank or (line and not line.isspace()):
                yield number, line

    def blocks(self) -> Iterator[bytes]:
        """The whole file after the byte order mark, a megabyte at a time."""
        self.file.seek(self._start)
        while block := self.file.read(_BLOCK):
            yield block


def opened(source: Path | BinaryIO) -> Source:
    """Open a file or a stream; pipes and streams are copied first.

    Raises:
        ClipError: It cannot be opened or read, or is a folder.
        PandaError: There is no room for the copy.
    """
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
        while block := stream.read(_BLOCK):
            copy.write(block)
        return Source(copy.file, name)
    except BaseException as error:
        copy.close()
        if isinstance(error, OSError):
            raise ClipError(f"{name} cannot be read: {error.strerror}") from error
        raise
