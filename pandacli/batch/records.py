"""Records: one question about one clip each, the digests that identify them, and their videos.

A digest is 64 bits of a record's content and of the settings that its answer depends on. The
position in the file is no part of it: lines may move and stay answered, while an edited question,
another model or another setting is asked again.
"""

import json
import pickle
import re
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from hashlib import blake2b
from json.encoder import encode_basestring_ascii
from operator import attrgetter
from pathlib import Path
from threading import Lock
from typing import Any

from pandacli.batch.readers.source import Spool
from pandacli.errors import ClipError, PandaError
from pandacli.video.clip import as_on_disk, local_file


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


EXTENSIONS = (
    *(".mp4", ".avi", ".mkv", ".webm", ".mov", ".gif", ".m4v", ".mpg", ".mpeg"),
    *(".wmv", ".flv", ".3gp", ".ts", ".ogv", ".webp"),
)
"""Suffixes that are tried after a name without a file, in this order, then in capitals."""

_NUMBERED = re.compile(r"(video|vid|)(\d+)")  # MSRVTT-QA, MSVD-QA; some have only the number
_PREFIX = "v_"  # in the file names of ActivityNet, but not in ActivityNet-QA
_SHOWN = 200  # characters of a name in an error
_CACHED = 65_536  # files


class VideoFolder:
    """The folder of the videos of a batch; names in records are relative to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._found: dict[str, Path] = {}

    def find(self, name: str) -> Path:
        """The file of a video.

        A name without a file is tried with the usual extensions, with and without the `v_` of
        ActivityNet, and for a number with the `video` or `vid` of MSRVTT-QA and MSVD-QA; accents
        may be in either Unicode form. Folders are never listed, however many clips they hold.

        Args:
            name: The video as written in the record, a path or a `file://` address.

        Raises:
            ClipError: There is no such file, or it is another address.
        """
        found = self._found.get(name)
        if found is not None:
            return found
        wanted = str(local_file(name)) if ":" in name else name
        for candidate in map(as_on_disk, self._candidates(wanted)):
            if _is_file(candidate):
                if len(self._found) >= _CACHED:
                    self._found.clear()
                self._found[name] = candidate
                return candidate
        shown = name if len(name) <= _SHOWN else name[:_SHOWN] + "..."
        if Path(wanted).is_absolute():
            raise ClipError(f"there is no file {shown}", "check the path")
        folder = self.folder if self.folder.parts else self.folder.absolute()  # not "in ."
        raise ClipError(f"no file {shown} in {folder}", "name its folder with --video-dir")

    def _candidates(self, name: str) -> Iterator[Path]:
        path = self.folder / name
        bare = path.name.removeprefix(_PREFIX)
        other = bare if bare != path.name else _PREFIX + path.name
        own = [path.name, other] if path.name and other else [path.name]
        numbered = _NUMBERED.fullmatch(path.name)
        number = numbered[2] if numbered else ""
        alternatives = [f"video{number}", f"vid{number}", number] if number else []
        extensions = ["", *EXTENSIONS, *map(str.upper, EXTENSIONS)]
        if path.suffix.lower() in EXTENSIONS:
            extensions = [""]
        yield path
        for names in (own, alternatives):  # the record's own name with any extension comes first
            for extension in extensions:
                for written in names:
                    yield path.parent / (written + extension)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long or impossible
        return False
