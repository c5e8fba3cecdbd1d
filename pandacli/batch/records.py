"""Records: one question about one clip each, their digests, their videos, and which are open.

A digest is 64 bits of content and settings, but not of the position: moved lines stay answered.
"""

import json
import pickle
import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from operator import attrgetter
from pathlib import Path
from tempfile import SpooledTemporaryFile
from threading import Lock
from typing import Any, cast

from pandacli.errors import ClipError, PandaError
from pandacli.video.clip import as_on_disk, local_file

SPOOL_BYTES = 8 * 1024 * 1024  # temporary copies above this size go to the disk

EXTENSIONS = (
    *(".mp4", ".avi", ".mkv", ".webm", ".mov", ".gif", ".m4v", ".mpg", ".mpeg"),
    *(".wmv", ".flv", ".3gp", ".ts", ".ogv", ".webp"),
)
"""Suffixes that are tried after a name without a file, in this order, then in capitals."""

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"))
_NUMBERED = re.compile(r"(video|vid|)(\d+)")  # MSRVTT-QA, MSVD-QA; some have only the number
_MSVD = "youtube_mapping.txt"  # lines of a file's name and its number, as "vid1"
_NEXT_QA = "map_vid_vidorID.json"  # an object of files by number, such as "1164/2399296074"
_PREFIX = "v_"  # in the file names of ActivityNet, but not in ActivityNet-QA
_MAX_SHOWN = 200  # characters of a name in an error


@dataclass(frozen=True, slots=True)
class Record:
    """One question about one clip; None stands for the setting of the run."""

    line: int  # in the file, or number of the entry in an array, from 1
    fields: dict[str, Any]  # all of the entry, unchanged and in their order
    video: str  # as written in the entry
    question: str
    start: float | None = None  # seconds
    end: float | None = None
    system: str | None = None
    max_tokens: int | None = None
    part: int = 0  # index of the question in its entry
    parts: int = 1  # number of questions in the entry
    choices: tuple[str, ...] = ()  # the answers to choose from
    every: float | None = None  # seconds: the length of the windows that the range is cut into
    at: tuple[float, ...] = ()  # seconds: times to look at, in place of a range
    when: bool = False  # whether it asks for the segments in which the answer is yes

    @property
    def has_windows(self) -> bool:
        """Whether the clip is looked at through windows."""
        return self.every is not None or self.when

    @property
    def looks(self) -> dict[str, Any]:
        """How the clip is looked at, where that is not through its range as one."""
        named = {"every": self.every, "at": self.at, "when": self.when}
        return {name: value for name, value in named.items() if value}


_values = attrgetter(*Record.__match_args__)  # pickled in a fifth of the time of a record


class RecordError(PandaError):
    """An entry that is not a valid record; the rest of the file is answered."""

    fields: dict[str, Any] | None = None  # those of the entry, if it could be parsed


@dataclass(frozen=True)
class BadLine:
    """An entry that is not a valid record."""

    line: int
    error: RecordError

    @property
    def digest(self) -> int:
        text = f"{self.line} {self.error.message}"
        return _digest(text.encode(errors="surrogatepass"), b"line")


@dataclass(frozen=True)
class Question:
    """A record to be answered, and its digest with the settings of the run."""

    record: Record
    digest: int


class Spool:
    """A temporary copy of the file `name`; `write` raises PandaError where the disk is full."""

    def __init__(self, name: str) -> None:
        self.file = SpooledTemporaryFile(SPOOL_BYTES)  # noqa: SIM115
        self._name = name

    def write(self, data: bytes) -> None:
        try:
            self.file.write(data)
        except OSError as error:
            self.close()
            message = f"no copy of {self._name} can be kept: {error.strerror}"
            raise PandaError(message, "set TMPDIR to a folder on a disk with room") from error

    def close(self) -> None:
        with suppress(OSError):  # closing flushes what there was no room for
            self.file.close()


class RecordStore(Spool):
    """The records and bad lines of a file in order: on disk, with eight bytes each in memory."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._ends = array("Q", [0])
        self._lock = Lock()  # records are read by several threads

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, number: int) -> Record | BadLine:
        if not 0 <= number < len(self):
            raise IndexError(number)
        start, end = self._ends[number : number + 2]
        with self._lock:
            self.file.seek(start)
            data = self.file.read(end - start)
        item = pickle.loads(data)
        return item if isinstance(item, BadLine) else Record(*item)

    def __iter__(self) -> Iterator[Record | BadLine]:
        return map(self.__getitem__, range(len(self)))

    def append(self, item: Record | BadLine) -> None:
        """Add a record, before any is read back; errors as of `write`."""
        data = pickle.dumps(item if isinstance(item, BadLine) else _values(item))
        self.write(data)
        self._ends.append(self._ends[-1] + len(data))


class Index:
    """The open records of a file, grouped by clip; a few numbers a record in memory."""

    def __init__(
        self,
        records: RecordStore,
        settings: Mapping[str, Any],  # all that an answer depends on besides the record
        done: Iterable[int] = (),  # digests of answered records, each as often as it was answered
        shard: tuple[int, int] = (1, 1),  # of the clips: its number, from 1, and how many there are
        choose: str = "likelihood",  # how choices are answered
        search: Mapping[str, Any] | None = None,  # how segments are searched for
    ) -> None:
        self._records = records
        self._bad = array("Q")
        self._by_clip: dict[int, array[int]] = {}  # in the order of their first open record
        self._films = array("Q")  # the clips that are looked at through windows
        self.digests = array("Q")  # of all records and bad lines, in the order of the file
        self.total = self.earlier = 0  # records and bad lines of the shard; those answered already
        digest_of, answers = record_hash(settings, choose, search), Counter(map(int, done))
        for number, record in enumerate(records):
            if isinstance(record, BadLine):
                digest = clip = record.digest
            else:
                digest, clip = digest_of(record), clip_digest(record)
            self.digests.append(digest)
            if clip % shard[1] != shard[0] - 1:
                continue
            self.total += 1
            if isinstance(record, BadLine):
                self._bad.append(number)
            elif answers[digest] > 0:  # of equal records, the first are the answered ones
                answers[digest] -= 1
                self.earlier += 1
            else:
                if clip not in self._by_clip and record.has_windows:
                    self._films.append(clip)
                self._by_clip.setdefault(clip, array("Q")).append(number)
        self.clips = len(self._by_clip)  # with open records

    def bad_lines(self) -> Iterator[BadLine]:
        return (cast(BadLine, self._records[number]) for number in self._bad)

    def groups(self, *, films: bool | None = None) -> "Iterator[Group]":
        """The records of each clip; only, or but, those looked at through windows if asked for."""
        windowed = set(self._films)
        for clip, numbers in self._by_clip.items():
            if films is None or films == (clip in windowed):
                yield Group(self._records, self.digests, numbers)


@dataclass(frozen=True)
class Group:
    """The open records of one clip in the order of the file, read back as they are iterated."""

    _records: RecordStore
    _digests: Sequence[int]
    _numbers: Sequence[int]

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[Question]:
        for number in self._numbers:
            yield Question(cast(Record, self._records[number]), self._digests[number])


def record_hash(
    settings: Mapping[str, Any],
    choose: str = "likelihood",
    search: Mapping[str, Any] | None = None,
) -> Callable[[Record], int]:
    """The function that gives records their digests under these settings, or raises RecordError.

    How choices are answered is part of the digest of records that have some, and how segments are
    searched for of those that ask when.
    """
    begun = blake2b(_CANONICAL.encode(settings).encode(), digest_size=8)

    def digest(record: Record) -> int:
        hashed = begun.copy()
        try:
            content = [record.fields, record.question, record.part]
            looks = record.looks | dict(search or {}) if record.when else record.looks
            content += [choose] * bool(record.choices) + [looks] * bool(looks)
            text = _CANONICAL.encode(content)
        except RecursionError as error:
            raise RecordError(f"line {record.line} is nested too deeply") from error
        hashed.update(text.encode())
        return int.from_bytes(hashed.digest())

    return digest


def clip_digest(record: Record) -> int:
    """The digest of a record's clip; `./a.mp4` is `a.mp4`, but in `b/../a.mp4` b may be a link."""
    # a PurePath would intern the names of all files for the life of the process
    parts = [part for part in record.video.split("/") if part not in ("", ".")]
    video = json.dumps("/" * record.video.startswith("/") + "/".join(parts))
    start, end = (None if time is None else float(time) for time in (record.start, record.end))
    looks = [f" {_CANONICAL.encode(record.looks)}"] * bool(record.looks)
    return _digest("".join([f"{video} {start} {end}", *looks]).encode(), b"clip")


def _digest(data: bytes, person: bytes) -> int:
    return int.from_bytes(blake2b(data, digest_size=8, person=person).digest())


def find_video(folder: Path, name: str) -> Path:
    """The file of a video, from its name in a record: a path in the folder, or a `file://` address.

    A name without a file is tried with the usual extensions, with and without the `v_` of
    ActivityNet, and for a number with the `video` or `vid` of MSRVTT-QA and MSVD-QA, or as it is
    called in a mapping of MSVD or NExT-QA in the folder or the one above; accents may be in either
    Unicode form. The folder may hold many clips, so it is never listed.
    """
    wanted = str(local_file(name)) if ":" in name else name
    for candidate in map(as_on_disk, _candidates(folder / wanted)):
        with suppress(OSError, ValueError):  # a name that is too long or impossible
            if candidate.is_file():
                return candidate
    shown = shown_name(name)
    if Path(wanted).is_absolute():
        raise ClipError(f"there is no file {shown}", "check the path")
    folder = folder if folder.parts else folder.absolute()  # not "in ."
    raise ClipError(f"no file {shown} in {folder}", "name its folder with --video-dir")


def shown_name(name: str) -> str:
    """The name of a video as it is in messages."""
    return name if len(name) <= _MAX_SHOWN else name[:_MAX_SHOWN] + "..."


def _candidates(path: Path) -> Iterator[Path]:
    bare = path.name.removeprefix(_PREFIX)
    other = bare if bare != path.name else _PREFIX + path.name
    own = [path.name, other] if path.name and other else [path.name]
    numbered = _NUMBERED.fullmatch(path.name)
    alternatives = [prefix + numbered[2] for prefix in ("video", "vid", "")] if numbered else []
    extensions = ["", *EXTENSIONS, *map(str.upper, EXTENSIONS)]
    if path.suffix.lower() in EXTENSIONS:
        extensions = [""]
    yield path
    for names in (own, alternatives):  # the record's own name with any extension comes first
        yield from (path.parent / (n + extension) for extension in extensions for n in names)
    for name in _mapped_names(path.parent, numbered[2]) if numbered else ():
        yield from (path.parent / (name + extension) for extension in extensions)


def _mapped_names(folder: Path, number: str) -> Iterator[str]:
    """The files of a number in data sets that have them in a mapping only."""
    for home in (folder, folder.parent):
        with suppress(OSError, ValueError):
            lines = map(str.split, (home / _MSVD).read_text("utf-8").splitlines())
            yield from (line[0] for line in lines if line[1:] == [f"vid{number}"])
        with suppress(OSError, ValueError):
            files = json.loads((home / _NEXT_QA).read_text("utf-8"))
            if isinstance(files, dict) and isinstance(files.get(number), str):
                yield files[number]
