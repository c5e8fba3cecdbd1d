"""The bytes of a file of questions: read by offset, whatever they come from."""

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, BinaryIO, Self

from pandacli.batch.readers.json_parsing import MOST_BYTES
from pandacli.errors import ClipError, PandaError

Entry = tuple[int, int, bytes]
"""Where an entry begins, its line from 1, and what it holds."""

_BLOCK = 1 << 20
_LINE = 4096
_LONGEST = MOST_BYTES + 64  # what is cut must still be seen to be too long
_BOM = b"\xef\xbb\xbf"


class Source:
    """A file that is read at any place, by any thread; closing it deletes it if it is a copy.

    Args:
        file: The file, open for reading.
        name: What it is called in messages.
    """

    def __init__(self, file: IO[bytes], name: str) -> None:
        self._file = file
        self.name = name

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def at(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset` on; fewer only at the end.

        Raises:
            ClipError: The disk fails.
        """
        try:
            read = os.pread(self._file.fileno(), size, offset)
            while 0 < len(read) < size:
                more = os.pread(self._file.fileno(), size - len(read), offset + len(read))
                if not more:
                    break
                read += more
        except OSError as error:
            raise ClipError(f"{self.name} cannot be read: {error.strerror}") from error
        return read

    def stream(self) -> BinaryIO:
        """The file again, for a library that reads files; to be closed by the caller."""
        return os.fdopen(os.dup(self._file.fileno()), "rb")

    @property
    def start(self) -> int:
        """Where the text begins: after the byte order mark, if there is one."""
        return len(_BOM) if self.at(0, len(_BOM)) == _BOM else 0

    def lines(self, *, blank: bool = False) -> Iterator[Entry]:
        """The lines in their order; of one that is too long, its beginning.

        Args:
            blank: Whether lines with nothing in them are yielded; they are counted anyway.

        Raises:
            ClipError: The disk fails.
        """
        begin = read_to = self.start
        number, length, head = 0, 0, b""  # `length` is that of the line, `head` may be cut
        while block := self.at(read_to, _BLOCK):
            read_to += len(block)
            *whole, rest = block.split(b"\n")
            for piece in whole:
                number += 1
                line = (head + piece)[:_LONGEST] if head else piece
                if blank or (line and not line.isspace()):
                    yield begin, number, line
                begin += length + len(piece) + 1
                length, head = 0, b""
            length += len(rest)
            if len(head) < _LONGEST:
                head = (head + rest)[:_LONGEST]
        if head and (blank or not head.isspace()):
            yield begin, number + 1, head

    def line(self, offset: int) -> bytes:
        """The line that begins at `offset`; of one that is too long, its beginning."""
        size = _LINE
        while True:
            read = self.at(offset, size)
            line, newline, _ = read.partition(b"\n")
            if newline or len(read) < size or size >= _LONGEST:
                return line
            size = min(size * 8, _LONGEST)


def opened(path: Path) -> Source:
    """A file of questions, opened; what is no regular file, such as a pipe, is copied.

    Raises:
        ClipError: It cannot be opened, or is a folder.
        PandaError: There is no room for the copy.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise ClipError(f"there is no file {path}", "check the path") from None
    except IsADirectoryError:
        raise ClipError(f"{path} is a folder", "name the file of questions in it") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ClipError(f"{path} cannot be opened: {reason}") from error
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return Source(file, str(path))
    with file:
        return copied(file, str(path))


def copied(stream: BinaryIO, name: str) -> Source:
    """A stream that can be read only once, copied to a file that has no name.

    Raises:
        ClipError: The stream fails.
        PandaError: There is no room for the copy.
    """
    copy = Copy(name)
    try:
        while block := _read(stream, name):
            copy.write(block)
        return copy.finished()
    except BaseException:
        copy.discard()
        raise


class Copy:
    """A file without a name, that is gone when it is closed, even by a kill.

    Args:
        name: What it is a copy of, for messages.

    Raises:
        PandaError: It cannot be made.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        try:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 (it outlives this function)
        except OSError as error:
            raise self._no_room(error) from error

    def write(self, block: bytes) -> None:
        """Add to it.

        Raises:
            PandaError: There is no room.
        """
        try:
            self._file.write(block)
        except OSError as error:
            raise self._no_room(error) from error

    def finished(self) -> Source:
        """The copy, now for reading.

        Raises:
            PandaError: There is no room.
        """
        try:
            self._file.flush()
        except OSError as error:
            raise self._no_room(error) from error
        return Source(self._file, self._name)

    def discard(self) -> None:
        """Let go of a copy that is not finished."""
        with suppress(OSError):  # closing tries once more to write what there was no room for
            self._file.close()

    def _no_room(self, error: OSError) -> PandaError:
        return PandaError(
            f"no copy of {self._name} can be kept: {error.strerror}",
            "set TMPDIR to a folder on a disk with room",
        )


def _read(stream: BinaryIO, name: str) -> bytes:
    try:
        return stream.read(_BLOCK)
    except OSError as error:
        raise ClipError(f"{name} cannot be read: {error.strerror}") from error
