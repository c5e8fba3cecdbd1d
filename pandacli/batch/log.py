"""The lines of a file of answers: their form, and which of a file's lines are of that form.

A line is one JSON object in ASCII that begins with the digest of its record. By that our files
are told from those of others, of which not a byte is to be touched, even where the last line was
torn: by a kill, or by a power cut, which leaves zeros where something was to be.

What was written reaches the disk about a second later, however long nothing more is written.
"""

import json
import os
import re
import shlex
from array import array
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any, BinaryIO

from pandacli.errors import UsageError

EVERY = 1.0
"""Seconds from a write until it is sent to the disk."""


class BackgroundSync:
    """Sends a file that grows to its disk from time to time, beside the work.

    Args:
        descriptor: The open file.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._failure: OSError | None = None
        self._written = Event()
        self._stopped = Event()
        self._thread = Thread(target=self._sync_steadily, name="panda-sync", daemon=True)
        self._thread.start()

    def wrote(self) -> None:
        """Something was written.

        Raises:
            OSError: Something written earlier could not be sent to the disk.
        """
        self._written.set()
        if self._failure is not None:
            raise self._failure

    def now(self) -> None:
        """Send all of it to the disk, and wait for it.

        Raises:
            OSError: The disk is full or fails, now or earlier.
        """
        if self._failure is not None:
            raise self._failure
        self._written.clear()
        os.fsync(self._descriptor)

    def stop(self) -> None:
        """No more; the file may be closed."""
        self._stopped.set()
        self._written.set()
        self._thread.join()

    def _sync_steadily(self) -> None:
        while self._failure is None:
            self._written.wait()
            if self._stopped.wait(EVERY):
                return
            self._written.clear()
            try:
                os.fsync(self._descriptor)
            except OSError as error:
                self._failure = error


_BEGINNING = b'{"digest": "0123456789abcdef"'
_BEGINS = re.compile(rb'\{"digest": "[0-9a-f]{16}"[,}]')
_DIGEST = re.compile(r"[0-9a-f]{16}")
_BLOCK = 1 << 20


def encoded(line: Mapping[str, Any]) -> bytes:
    """A line as it is written; its `digest` comes first."""
    return json.dumps({"digest": line["digest"], **line}).encode() + b"\n"


class Lines:
    """Whose answers a file holds and where they stand, in columns of plain numbers."""

    def __init__(self) -> None:
        self.digest = array("Q")
        self.start = array("Q")
        self.length = array("Q")

    def __len__(self) -> int:
        """How many lines there are."""
        return len(self.digest)

    @property
    def end(self) -> int:
        """Where the next line goes."""
        return self.start[-1] + self.length[-1] if self.start else 0

    @property
    def gaps(self) -> bool:
        """Whether there is something else between the lines."""
        return self.end != sum(self.length)

    def add(self, digest: int, start: int, length: int) -> None:
        """Take note of one more."""
        self.digest.append(digest)
        self.start.append(start)
        self.length.append(length)

    def cut(self, count: int) -> None:
        """Forget all but the first so many."""
        for column in (self.digest, self.start, self.length):
            del column[count:]

    def close_up(self) -> None:
        """Take note that they stand one after another now."""
        end = 0
        for number, length in enumerate(self.length):
            self.start[number] = end
            end += length


def read_lines(
    file: BinaryIO, shown: Path, may_drop: Callable[[int], bool] = lambda _: False
) -> Lines:
    """The answers of a file.

    Not among them are the records that failed, which are tried again, nor what a power cut or a
    kill has left of a line.

    Args:
        file: The file, at its beginning.
        shown: Its name, for messages.
        may_drop: Whether a torn line may be dropped that has others after it: another program has
            cut the file while lines were added to it. Given the number of the line.

    Raises:
        UsageError: It is no file of answers, or has such a line, which may not be dropped.
        OSError: It cannot be read.
    """
    lines = Lines()
    start = torn = 0
    torn_surely = False
    if file.read(1) not in (b"{", b""):  # of a video, not even a line is read
        if _only_zeros(file):  # after a power cut that nothing had reached the disk before
            return lines
        raise _foreign(shown, 1)
    file.seek(0)
    for number, raw in enumerate(file, 1):
        if torn and raw.strip():  # a kill tears the last line only
            if not torn_surely:
                raise _foreign(shown, torn)
            if not may_drop(torn):
                raise _damaged(shown, torn)
            torn = 0
        if (line := _parsed(raw)) is not None:
            if line.get("error") is None:
                lines.add(int(line["digest"], 16), start, len(raw))
        elif number == 1 and not (_torn(raw) or _joined(raw)):
            raise _foreign(shown, number)
        elif raw.strip() and b"\0" not in raw:
            joined = _joined(raw)
            if not (joined or _torn(raw)):
                raise _foreign(shown, number)
            torn, torn_surely = number, joined or _BEGINS.match(raw) is not None
        start += len(raw)
    return lines


def _only_zeros(file: BinaryIO) -> bool:
    file.seek(0)
    return all(not block.strip(b"\0") for block in iter(partial(file.read, _BLOCK), b""))


def _parsed(raw: bytes) -> dict[str, Any] | None:
    """The JSON object of a line of ours."""
    try:
        line = json.loads(raw.decode())
    except (ValueError, RecursionError):
        return None
    digest = line.get("digest") if isinstance(line, dict) else None
    return line if isinstance(digest, str) and _DIGEST.fullmatch(digest) else None


def _torn(raw: bytes) -> bool:
    """Whether it is what a line of ours begins with, zeros after it or not."""
    text = raw.rstrip(b"\0")
    if len(text) <= len(_BEGINNING):
        whole = text + _BEGINNING[len(text) :] + b","
        return bool(text) and _BEGINS.fullmatch(whole) is not None
    return _BEGINS.match(text) is not None


def _damaged(shown: Path, number: int) -> UsageError:
    command = f"sed -i {number}d {shlex.quote(str(shown))}"
    hint = f"its question is asked again once the line is dropped: {command}"
    return UsageError(f"line {number} of {shown} is torn", hint)


def _joined(raw: bytes) -> bool:
    """Whether a whole line follows what is left of a torn one, without a line break between."""
    at = raw.rfind(_BEGINNING[:12])
    return at > 0 and _torn(raw[:at]) and _parsed(raw[at:]) is not None


def _foreign(shown: Path, number: int) -> UsageError:
    hint = f"its line {number} is not one of panda's; name another file with -o"
    return UsageError(f"{shown} is no answers file of panda", hint)
