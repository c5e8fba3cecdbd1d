"""Records, one question about one clip each, and the digests that identify them.

A digest is 64 bits of a record's content and of the settings that its answer depends on. The
position in the file is no part of it: lines may move and stay answered, while an edited question,
another model or another setting is asked again.
"""

import json
import pickle
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from hashlib import blake2b
from json.encoder import encode_basestring_ascii
from operator import attrgetter
from threading import Lock
from typing import Any

from pandacli.batch.readers.source import Spool
from pandacli.errors import PandaError


@dataclass(frozen=True, slots=True)
class Record:
    """One question about one clip.

    Attributes:
        line: Line in the file, or number of the entry in an array, from 1.
        fields: All fields of the entry, unchanged and in their order.
        video: The file name as written in the entry.
        question: The question.
        start: Start of the range, in seconds; None for the beginning.
        end: End of the range, in seconds; None for the end.
        system: The system prompt; None for that of the run.
        max_tokens: The limit of answer tokens; None for that of the run.
        part: Index of the question in its entry, from 0.
        parts: Number of questions in the entry.
    """

    line: int
    fields: dict[str, Any]
    video: str
    question: str
    start: float | None = None
    end: float | None = None
    system: str | None = None
    max_tokens: int | None = None
    part: int = 0
    parts: int = 1


class RecordError(PandaError):
    """An entry that is not a valid record; the rest of the file is answered.

    Attributes:
        fields: The fields of the entry, if it could be parsed.
    """

    fields: dict[str, Any] | None = None


@dataclass(frozen=True)
class BadLine:
    """An entry that is not a valid record.

    Attributes:
        line: Line in the file, or number of the entry, from 1.
        error: What is wrong with it.
    """

    line: int
    error: RecordError

    @property
    def digest(self) -> int:
        """The digest under which the error is written."""
        text = f"{self.line} {self.error.message}".encode(errors="surrogatepass")
        return int.from_bytes(blake2b(text, digest_size=_BYTES, person=b"line").digest())


@dataclass(frozen=True)
class Question:
    """A record to be answered.

    Attributes:
        record: The record.
        digest: Its digest with the settings of the run.
    """

    record: Record
    digest: int


class RecordStore:
    """The records and bad lines of a file in their order, kept in a spooled temporary file.

    Each was parsed once; reading it back unpickles it. In memory it takes eight bytes.

    Args:
        name: The name of the file, for messages.
    """

    def __init__(self, name: str) -> None:
        self._spool = Spool(name)
        self._ends = array("Q", [0])
        self._lock = Lock()  # records are read by several threads

    def __len__(self) -> int:
        """The number of records and bad lines."""
        return len(self._ends) - 1

    def __getitem__(self, number: int) -> Record | BadLine:
        """Read one back; raises IndexError behind the last."""
        if not 0 <= number < len(self):
            raise IndexError(number)
        start, end = self._ends[number : number + 2]
        with self._lock:
            self._spool.file.seek(start)
            data = self._spool.file.read(end - start)
        item = pickle.loads(data)
        return item if isinstance(item, BadLine) else Record(*item)

    def __iter__(self) -> Iterator[Record | BadLine]:
        """All of them in order."""
        return map(self.__getitem__, range(len(self)))

    def append(self, item: Record | BadLine) -> None:
        """Add a record, before any is read back.

        Raises:
            PandaError: There is no room on the disk.
        """
        data = pickle.dumps(item if isinstance(item, BadLine) else _values(item))
        self._spool.write(data)
        self._ends.append(self._ends[-1] + len(data))

    def close(self) -> None:
        """Delete the temporary file."""
        self._spool.close()


_values = attrgetter(*(field.name for field in fields(Record)))

_BYTES = 8
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def record_hash(settings: Mapping[str, Any]) -> Callable[[Record], int]:
    """The function that gives records their digests.

    Args:
        settings: Everything that an answer depends on besides the record, as a JSON object.

    Returns:
        A function from a record to an unsigned 64-bit number; it raises RecordError for a record
        that cannot be written as JSON.
    """
    begun = blake2b(_canonical(settings), digest_size=_BYTES)

    def digest(record: Record) -> int:
        hashed = begun.copy()
        try:
            hashed.update(_canonical([record.fields, record.question, record.part]))
        except RecursionError as error:
            raise RecordError(f"line {record.line} is nested too deeply") from error
        return int.from_bytes(hashed.digest())

    return digest


def clip_digest(record: Record) -> int:
    """The digest of a record's clip.

    `./a.mp4` is `a.mp4`, but `b/../a.mp4` is another clip, as `b` may be a link.
    """
    video = encode_basestring_ascii(_normalized(record.video))
    start = None if record.start is None else float(record.start)
    end = None if record.end is None else float(record.end)
    clip = f"{video} {start} {end}".encode()
    return int.from_bytes(blake2b(clip, digest_size=_BYTES, person=b"clip").digest())


def digest_text(digest: int) -> str:
    """A digest as it is written in files: 16 hexadecimal digits."""
    return f"{digest:016x}"


def belongs_to(clip: int, shard: int, shards: int) -> bool:
    """Whether the clip with this digest is in a shard, counted from 1."""
    return clip % shards == shard - 1


def _normalized(path: str) -> str:
    # a PurePath would intern the names of all files for the life of the process
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return "/" * path.startswith("/") + "/".join(parts)


def _canonical(value: object) -> bytes:
    return _CANONICAL.encode(value).encode()
