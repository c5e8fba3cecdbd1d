"""What models have read of clips, kept between processes: the prefix cache on the disk.

    PREFIXES/<of the clip>-<of all else>/     digests of what it depends on
        entry.json      what it is, for people; its time of last change is that of the last use
        frames.json     what was sampled from the clip
        kv              the keys and values
    PREFIXES/<the same>.<anything>.partial/   being written, or on its way out

PREFIXES is the folder `prefixes` of the platform's place for caches, or of `PANDA_HOME` where that
is set. A folder gets its name when it is finished, and loses it before anything in it is deleted,
so processes need no lock: what one has open stays readable, and what is gone is computed again.

How much of the disk the prefix cache may take.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import platformdirs

from pandacli.checkpoints.registry import panda_home
from pandacli.errors import UsageError
from pandacli.file_io import atomic_write_text, read_object, replace_durably
from pandacli.units import byte_count

VARIABLE = "PANDA_CACHE_SIZE"
BUDGET = 4_000_000_000
"""The most bytes that all entries take together, where nothing else is said."""


def usual_budget() -> int:
    """The most bytes where the caller names none: what the variable says, or `BUDGET`.

    Raises:
        UsageError: The variable holds no size.
    """
    text = os.environ.get(VARIABLE)
    try:
        return byte_count(text) if text else BUDGET
    except ValueError as error:
        raise UsageError(f"{VARIABLE}: {error}") from error


_FORMAT = 1
_LABEL, _FRAMES, _KV = "entry.json", "frames.json", "kv"
_NAME = re.compile(r"[0-9a-f]{16}-[0-9a-f]{32}")
_PARTIAL = re.compile(_NAME.pattern + r"\..+\.partial")
_LABEL_BYTES = 1 << 16
_MOST = 1 << 32  # frames, positions, seconds: a label that says more is damaged
_ABANDONED = 3600.0  # seconds after which nobody is believed to be still writing


@dataclass(frozen=True)
class Label:
    """What an entry is, in the words of its users.

    Attributes:
        video: Where the clip was when it was last asked about.
        start: Where the range begins, in seconds; None for the beginning.
        end: Where it ends; None for the end.
        frames: How many frames the model is shown.
        model: The name that the model was asked for by.
        quant: "none", "8bit" or "4bit".
        engine: What computed it.
        tokens: How many positions it has.
    """

    video: str
    start: float | None
    end: float | None
    frames: int
    model: str
    quant: str
    engine: str
    tokens: int


@dataclass(frozen=True)
class Entry:
    """A prefix on the disk.

    Attributes:
        folder: Where it lies.
        label: What it is.
        bytes: What it takes on the disk.
        used: When it was last used, in seconds since the epoch.
    """

    folder: Path
    label: Label
    bytes: int
    used: float

    @property
    def kv(self) -> Path:
        """The file of keys and values."""
        return self.folder / _KV

    def frames(self) -> dict[str, Any]:
        """What was sampled from the clip, as it was given to `Prefixes.add`.

        Raises:
            OSError, ValueError: It is damaged.
        """
        return read_object(self.folder / _FRAMES)


def prefixes_folder() -> Path:
    """Where prefixes are kept."""
    if os.environ.get("PANDA_HOME"):
        return panda_home() / "prefixes"
    return platformdirs.user_cache_path("panda") / "prefixes"


def entry_name(clip: Mapping[str, Any], rest: Mapping[str, Any]) -> str:
    """The name of the entry that depends on this, and on nothing else.

    Args:
        clip: What there is to say of the clip and what is looked at of it.
        rest: What there is to say of the model and how it is run.
    """
    return f"{_digest(clip)[:16]}-{_digest(rest)[:32]}"


class Prefixes:
    """The prefixes on this machine.

    Args:
        budget: The most bytes that they take together; those that were not used for the longest
            time make room for others. None for `usual_budget`.
        folder: Where they are; None for the usual place.

    Raises:
        UsageError: No budget is given, and the variable that says it holds no size.
    """

    def __init__(self, budget: int | None = None, folder: Path | None = None) -> None:
        self.budget = usual_budget() if budget is None else budget
        self.folder = folder or prefixes_folder()

    def knows(self, clip: Mapping[str, Any]) -> bool:
        """Whether there is anything of a clip, of whatever model; nothing is read."""
        start = f"{_digest(clip)[:16]}-"
        return any(name.startswith(start) for name in self._names(_NAME))

    def find(self, name: str) -> Entry | None:
        """The entry of a name, if there is one; one that is damaged is removed."""
        folder = self.folder / name
        if not os.path.lexists(folder):
            return None
        entry = _read(folder)
        if entry is None:
            self.remove(folder)
        return entry

    def entries(self, most: int | None = None) -> list[Entry]:
        """Return up to `most` entries, most recently used first, reading no others.

        Those that turn out to be damaged are removed.
        """
        names = (Path(folder.path).name for folder in reversed(self._by_last_use()))
        return list(islice(filter(None, map(self.find, names)), most))

    @property
    def count(self) -> int:
        """How many entries there are, those that turn out damaged included; none is read."""
        return len(self._names(_NAME))

    @property
    def bytes(self) -> int:
        """What they take on the disk, with what is not finished."""
        finished = sum(folder.bytes for folder in self._by_last_use())
        return finished + sum(map(_size, self._partials()))

    def use(self, entry: Entry, video: str) -> None:
        """Note that an entry is used now, for a clip that lies here."""
        path = entry.folder / _LABEL
        with suppress(OSError):  # it is read-only, or somebody has just removed it
            if video == entry.label.video:
                os.utime(path)
            else:
                atomic_write_text(
                    path, _label_text(Label(**{**asdict(entry.label), "video": video}))
                )

    def add(
        self,
        name: str,
        label: Label,
        frames: Mapping[str, Any],
        write: Callable[[Path], None],
        expected: int,
    ) -> bool:
        """Keep a prefix, unless it alone is more than the budget.

        Args:
            name: Of `entry_name`.
            label: What it is.
            frames: What was sampled from the clip, for `Entry.frames`.
            write: Writes keys and values into a file.
            expected: How many bytes that will be, about.

        Returns:
            Whether it is kept.

        Raises:
            OSError: It cannot be written: the disk is full, or not ours to write to.
        """
        if expected > self.budget:
            return False
        self.folder.mkdir(parents=True, exist_ok=True)
        self._make_room(expected)
        if shutil.disk_usage(self.folder).free < expected:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder))
        work = Path(tempfile.mkdtemp(prefix=f"{name}.", suffix=".partial", dir=self.folder))
        try:
            write(work / _KV)
            (work / _FRAMES).write_text(json.dumps(frames), encoding="utf-8")
            (work / _LABEL).write_text(_label_text(label), encoding="utf-8")
            written = _size(work)
            if written > self.budget:
                return False
            self._settle(work, self.folder / name)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        if written > expected:
            self._make_room(0)
        return True

    def remove(self, folder: Path) -> bool:
        """Remove an entry, or what is left of one; whether that could be done."""
        gone = folder.with_name(f"{folder.name}.{os.urandom(4).hex()}.partial")
        try:
            folder.rename(gone)
        except OSError:
            return not os.path.lexists(folder)  # another process was quicker
        if gone.is_symlink() or not gone.is_dir():
            gone.unlink(missing_ok=True)
        else:
            shutil.rmtree(gone, ignore_errors=True)
        return not os.path.lexists(gone)

    def clear(self) -> bool:
        """Remove all that was kept, finished or not; whether nothing is left."""
        for folder in (*(self.folder / name for name in self._names(_NAME)), *self._partials()):
            self.remove(folder)
        return not (self._names(_NAME) or self._partials())

    def _settle(self, work: Path, final: Path) -> None:
        try:
            replace_durably(work, final)
        except OSError:
            if not final.is_dir():
                raise
            # another process has written the same meanwhile

    def _make_room(self, wanted: int) -> None:
        """Remove what was not used for the longest time, until so many bytes more may be kept.

        What was begun long ago and never finished goes first. Thousands of entries cost a few
        system calls each: none is opened.
        """
        now = time.time()
        for folder in self._partials():
            with suppress(OSError):
                if now - folder.stat().st_mtime > _ABANDONED:
                    self.remove(folder)
        kept = deque(self._by_last_use())
        total = sum(folder.bytes for folder in kept)
        while kept and total + wanted > self.budget:
            oldest = kept.popleft()
            self.remove(Path(oldest.path))
            total -= oldest.bytes

    def _by_last_use(self) -> list["_Folder"]:
        """The entries, the one unused for the longest time first, without opening a file.

        A folder that lacks a file is removed: it takes room and is never found again.
        """
        found = []
        for name in self._names(_NAME):
            path = f"{self.folder}/{name}"
            if folder := _looked_at(path):
                found.append(folder)
            else:
                self.remove(Path(path))
        return sorted(found, key=lambda folder: folder.used)

    def _partials(self) -> list[Path]:
        return [self.folder / name for name in self._names(_PARTIAL)]

    def _names(self, pattern: re.Pattern[str]) -> list[str]:
        try:
            return [name for name in os.listdir(self.folder) if pattern.fullmatch(name)]  # noqa: PTH208
        except OSError:  # there is no such folder, or it may not be read
            return []


def _digest(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _label_text(label: Label) -> str:
    return json.dumps({"format": _FORMAT, **asdict(label)}, indent=1) + "\n"


class _Folder(NamedTuple):
    """The folder of an entry, by what the file system says of it."""

    path: str
    bytes: int
    used: float


def _looked_at(path: str) -> _Folder | None:
    """None where it lacks a file, or one of them is not a regular file."""
    total, used = 0, 0.0
    for name in (_KV, _FRAMES, _LABEL):
        try:
            status = os.stat(f"{path}/{name}")  # noqa: PTH116  (of thousands, paths take the time)
        except OSError:
            return None
        if not stat.S_ISREG(status.st_mode):
            return None
        total += status.st_size
        used = status.st_mtime
    return _Folder(path, total, used)


def _read(path: Path) -> Entry | None:
    """The entry in a folder; None where it is damaged, or another version of panda wrote it."""
    folder = _looked_at(str(path))
    if folder is None:
        return None
    try:
        fields = read_object(path / _LABEL, _LABEL_BYTES)
        if fields.pop("format") != _FORMAT:
            return None
        label = Label(**fields)
        _check(label)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return Entry(path, label, folder.bytes, folder.used)


def _check(label: Label) -> None:
    """Raises ValueError where a field is not what it is said to be."""
    texts = (label.video, label.model, label.quant, label.engine)
    numbers = (label.frames, label.tokens)
    moments = [moment for moment in (label.start, label.end) if moment is not None]
    if not (
        all(isinstance(text, str) for text in texts)
        and all(type(number) is int and 0 < number < _MOST for number in numbers)
        and all(type(moment) in (int, float) and 0 <= moment < _MOST for moment in moments)
    ):
        raise ValueError("the label of an entry is damaged")


def _size(folder: Path) -> int:
    total = 0
    with suppress(OSError):  # another process has just removed it, or it may not be read
        for path in folder.iterdir():
            with suppress(OSError):  # another process is replacing the label
                total += path.stat().st_size
    return total
