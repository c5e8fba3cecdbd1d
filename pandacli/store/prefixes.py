"""What models have read of clips, kept between processes: the prefix cache on the disk.

    PREFIXES/<of the clip>-<of all else>/     digests of what it depends on
        entry.json      what it is, for people; its time of last change is that of the last use
        frames.json     what was sampled from the clip
        kv              the keys and values
    PREFIXES/<the same>.<anything>.partial/   being written, or on its way out

PREFIXES is the folder `prefixes` of the platform's place for caches, or of `PANDA_HOME` where that
is set. A folder gets its name when it is finished, and loses it before anything in it is deleted,
so processes need no lock: what one has open stays readable, and what is gone is computed again.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import platformdirs

from pandacli.store.budget import usual_budget
from pandacli.store.durable import settle, write_text
from pandacli.store.places import home

_FORMAT = 1
_LABEL, _FRAMES, _KV = "entry.json", "frames.json", "kv"
_NAME = re.compile(r"[0-9a-f]{16}-[0-9a-f]{32}")
_PARTIAL = re.compile(_NAME.pattern + r"\..+\.partial")
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
        fields = json.loads((self.folder / _FRAMES).read_text(encoding="utf-8"))
        if not isinstance(fields, dict):
            raise ValueError(f"{self.folder} says nothing of frames")
        return fields


def prefixes_folder() -> Path:
    """Where prefixes are kept."""
    if os.environ.get("PANDA_HOME"):
        return home() / "prefixes"
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
        return any(path.name.startswith(start) for path in self._entry_folders())

    def find(self, name: str) -> Entry | None:
        """The entry of a name, if there is one; one that is damaged is removed."""
        folder = self.folder / name
        if not folder.is_dir():
            return None
        entry = _read(folder)
        if entry is None:
            self.remove(folder)
        return entry

    def entries(self) -> list[Entry]:
        """All entries, the one used last first."""
        found = filter(None, map(_read, self._entry_folders()))
        return sorted(found, key=lambda entry: entry.used, reverse=True)

    @property
    def bytes(self) -> int:
        """What they take on the disk, with what is not finished."""
        return sum(_size(folder) for folder in (*self._entry_folders(), *self._partials()))

    def use(self, entry: Entry, video: str) -> None:
        """Note that an entry is used now, for a clip that lies here."""
        path = entry.folder / _LABEL
        with suppress(OSError):  # it is read-only, or somebody has just removed it
            if video == entry.label.video:
                os.utime(path)
            else:
                write_text(path, _label_text(Label(**{**asdict(entry.label), "video": video})))

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
            if _size(work) > self.budget:
                return False
            self._settle(work, self.folder / name)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        self._make_room(0)
        return True

    def remove(self, folder: Path) -> bool:
        """Remove an entry, or what is left of one; whether that could be done."""
        gone = folder.with_name(f"{folder.name}.{os.urandom(4).hex()}.partial")
        try:
            folder.rename(gone)
        except OSError:
            return not folder.exists()  # another process was quicker
        shutil.rmtree(gone, ignore_errors=True)
        return not gone.exists()

    def clear(self) -> bool:
        """Remove all that was kept, finished or not; whether nothing is left."""
        for folder in (*self._entry_folders(), *self._partials()):
            self.remove(folder)
        return not (self._entry_folders() or self._partials())

    def _settle(self, work: Path, final: Path) -> None:
        try:
            settle(work, final)
        except OSError:
            if not final.is_dir():
                raise
            # another process has written the same meanwhile

    def _make_room(self, wanted: int) -> None:
        """Remove what was not used for the longest time, until so many bytes more may be kept.

        What cannot be read, and what was begun long ago and never finished, goes first.
        """
        now = time.time()
        for folder in self._partials():
            with suppress(OSError):
                if now - folder.stat().st_mtime > _ABANDONED:
                    self.remove(folder)
        for folder in self._entry_folders():
            if _read(folder) is None:
                self.remove(folder)
        entries = self.entries()
        total = sum(entry.bytes for entry in entries)
        while entries and total + wanted > self.budget:
            oldest = entries.pop()
            self.remove(oldest.folder)
            total -= oldest.bytes

    def _entry_folders(self) -> list[Path]:
        return [path for path in self._paths() if _NAME.fullmatch(path.name)]

    def _partials(self) -> list[Path]:
        return [path for path in self._paths() if _PARTIAL.fullmatch(path.name)]

    def _paths(self) -> Iterator[Path]:
        with suppress(OSError):  # there is no such folder, or it may not be read
            yield from list(self.folder.iterdir())


def _digest(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _label_text(label: Label) -> str:
    return json.dumps({"format": _FORMAT, **asdict(label)}, indent=1) + "\n"


def _read(folder: Path) -> Entry | None:
    """The entry in a folder; None where it is damaged, or another version of panda wrote it."""
    try:
        path = folder / _LABEL
        fields = json.loads(path.read_text(encoding="utf-8"))
        if fields.pop("format") != _FORMAT or not (folder / _KV).is_file():
            return None
        label = Label(**fields)
        _check(label)
        return Entry(folder, label, _size(folder), path.stat().st_mtime)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _check(label: Label) -> None:
    """Raises ValueError where a field is not what it is said to be."""
    texts = (label.video, label.model, label.quant, label.engine)
    numbers = (label.frames, label.tokens)
    moments = (label.start, label.end)
    if not (
        all(isinstance(text, str) for text in texts)
        and all(isinstance(number, int) and number > 0 for number in numbers)
        and all(moment is None or isinstance(moment, int | float) for moment in moments)
    ):
        raise ValueError("the label of an entry is damaged")


def _size(folder: Path) -> int:
    total = 0
    with suppress(FileNotFoundError, NotADirectoryError):  # another process has just removed it
        for path in folder.iterdir():
            with suppress(FileNotFoundError):  # another process is writing the label anew
                total += path.stat().st_size
    return total
