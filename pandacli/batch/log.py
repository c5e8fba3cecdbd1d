"""The append-only log under a results file: JSON lines, their index, and a background fsync.

A line is a JSON object in ASCII with its digest first, which tells our files from other files. The
last line may be torn: by a kill, or by a power cut, which leaves zeros in place of data.
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

SYNC_INTERVAL = 1.0  # seconds from a write to its fsync

_HEAD = b'{"digest": "0123456789abcdef"'
_HEAD_PATTERN = re.compile(rb'\{"digest": "[0-9a-f]{16}"[,}]')
_DIGEST = re.compile(r"[0-9a-f]{16}")
_BLOCK = 1 << 20


def encode_line(line: Mapping[str, Any]) -> bytes:
    return json.dumps({"digest": line["digest"], **line}).encode() + b"\n"


class BackgroundSync:
    """Calls fsync at most once a second, in a thread; `notify` and `flush` raise its OSError."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._failure: OSError | None = None
        self._written, self._stopped = Event(), Event()
        self._thread = Thread(target=self._run, name="panda-sync", daemon=True)
        self._thread.start()

    def notify(self) -> None:
        self._written.set()
        self._raise_failure()

    def flush(self) -> None:
        self._raise_failure()
        self._written.clear()
        os.fsync(self._descriptor)

    def stop(self) -> None:
        """End the thread; the file may be closed then."""
        self._stopped.set()
        self._written.set()
        self._thread.join()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            while True:
                self._written.wait()
                if self._stopped.wait(SYNC_INTERVAL):
                    return
                self._written.clear()
                os.fsync(self._descriptor)
        except OSError as error:
            self._failure = error


class LineIndex:
    """The digest, offset and length of each line, in columns: 24 bytes a line."""

    def __init__(self) -> None:
        self.digest, self.start, self.length = array("Q"), array("Q"), array("Q")

    def __len__(self) -> int:
        return len(self.digest)

    @property
    def end(self) -> int:
        return self.start[-1] + self.length[-1] if self.start else 0

    def add(self, digest: int, start: int, length: int) -> None:
        self.digest.append(digest)
        self.start.append(start)
        self.length.append(length)

    def truncate(self, count: int) -> None:
        for column in (self.digest, self.start, self.length):
            del column[count:]


def index_lines(
    file: BinaryIO, shown: Path, may_drop: Callable[[int], bool] = lambda _: False
) -> LineIndex:
    """Index the answers in a results file, which is called `shown` in messages.

    Failed records are left out, as they are retried; so is the rest of a torn line. Where lines
    follow a torn one (another program cut the file while panda appended to it), `may_drop` is
    called with its number. Raises UsageError if it returns False, or this is not a results file.
    """

    def foreign(number: int) -> UsageError:
        hint = f"its line {number} is not one of panda's; name another file with -o"
        return UsageError(f"{shown} is not a results file of panda", hint)

    lines = LineIndex()
    start = torn = 0
    torn_is_ours = False
    if file.read(1) not in (b"{", b""):  # of a video, not even a line is read
        file.seek(0)
        if any(block.strip(b"\0") for block in iter(partial(file.read, _BLOCK), b"")):
            raise foreign(1)
        return lines  # only zeros: a power cut before anything reached the disk
    file.seek(0)
    for number, raw in enumerate(file, 1):
        if torn and raw.strip():  # a kill tears the last line only
            if not torn_is_ours:
                raise foreign(torn)
            if not may_drop(torn):
                command = f"sed -i {torn}d {shlex.quote(str(shown))}"
                hint = f"its question is asked again once the line is dropped: {command}"
                raise UsageError(f"line {torn} of {shown} is torn", hint)
            torn = 0
        if (line := _parse(raw)) is not None:
            if line.get("error") is None:
                lines.add(int(line["digest"], 16), start, len(raw))
        else:
            has_text, joined = raw.strip() and b"\0" not in raw, _is_joined(raw)
            if not (joined or _is_torn(raw)):
                if has_text or number == 1:
                    raise foreign(number)
            elif has_text:
                torn, torn_is_ours = number, joined or _HEAD_PATTERN.match(raw) is not None
        start += len(raw)
    return lines


def _parse(raw: bytes) -> dict[str, Any] | None:
    """Parse a line; None if it is not a complete line of a results file."""
    try:
        line = json.loads(raw.decode())
    except (ValueError, RecursionError):
        return None
    digest = line.get("digest") if isinstance(line, dict) else None
    return line if isinstance(digest, str) and _DIGEST.fullmatch(digest) else None


def _is_torn(raw: bytes) -> bool:
    """Whether it is the beginning of a line, with or without zeros after it."""
    text = raw.rstrip(b"\0")
    padded = text + _HEAD[len(text) :] + b","
    return bool(text) and _HEAD_PATTERN.match(padded) is not None


def _is_joined(raw: bytes) -> bool:
    """Whether it is a torn line and a whole one, without a line break between them."""
    at = raw.rfind(_HEAD[:12])
    return at > 0 and _is_torn(raw[:at]) and _parse(raw[at:]) is not None
