"""Entries of the prefix cache on disk, within a budget.

    PREFIXES/<clip digest>-<model digest>/        digests of what the entry depends on
        entry.json      its metadata; the mtime is the time of the last use
        frames.json     what was sampled from the clip
        kv              the keys and values
    PREFIXES/<the same>.<random>.partial/         being written or removed

A folder is renamed to its name when it is complete, and from it before its files are deleted. So
processes need no lock: an open file stays readable, and a removed entry is computed again.
"""

import errno
import json
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import platformdirs

from pandacli.checkpoints.registry import panda_home
from pandacli.errors import UsageError
from pandacli.file_io import atomic_write_text, read_object, replace_durably
from pandacli.units import byte_count

VARIABLE = "PANDA_CACHE_SIZE"
BUDGET = 4_000_000_000  # bytes of all entries together, by default

_FORMAT = 1
_METADATA, _FRAMES, _KV = "entry.json", "frames.json", "kv"
_NAME = re.compile(r"[0-9a-f]{16}-[0-9a-f]{32}")
_PARTIAL = re.compile(_NAME.pattern + r"\..+\.partial")
_METADATA_BYTES = 1 << 16
_MAX_NUMBER = 1 << 32  # frames, positions or seconds; more is damage
_ABANDONED_SECONDS = 3600.0  # age of a partial folder whose writer must have ended


@dataclass(frozen=True)
class Metadata:
    """What an entry holds, as it is listed."""

    video: str  # path of the clip when it was last used
    start: float | None  # of the range, in seconds; None for the beginning
    end: float | None
    frames: int  # that the model is shown
    model: str  # as the user called it
    quant: str
    engine: str
    tokens: int  # positions


@dataclass(frozen=True)
class Entry:
    folder: Path
    metadata: Metadata
    bytes: int  # on the disk
    used: float  # last, in seconds since the epoch

    @property
    def kv(self) -> Path:
        return self.folder / _KV

    def frames(self) -> dict[str, Any]:
        """What `PrefixStore.add` got as `frames`; OSError or ValueError for a damaged file."""
        return read_object(self.folder / _FRAMES)


def default_budget() -> int:
    """Bytes by `PANDA_CACHE_SIZE`, or `BUDGET`; a UsageError if the variable is no size."""
    text = os.environ.get(VARIABLE)
    try:
        return byte_count(text) if text else BUDGET
    except ValueError as error:
        raise UsageError(f"{VARIABLE}: {error}") from error


def cache_folder() -> Path:
    """Where caches are by default: in `PANDA_HOME`, or in the user's cache."""
    return panda_home() if os.environ.get("PANDA_HOME") else platformdirs.user_cache_path("panda")


def prefixes_folder() -> Path:
    """The default folder of a `PrefixStore`."""
    return cache_folder() / "prefixes"


class PrefixStore:
    """The cached prefixes in a folder; beyond a budget the least recently used are removed."""

    def __init__(self, budget: int | None = None, folder: Path | None = None) -> None:
        self.budget = default_budget() if budget is None else budget
        self.folder = folder or prefixes_folder()

    def has_clip(self, key: str) -> bool:
        return any(folder.name.startswith(f"{key}-") for folder in self._folders(_NAME))

    def find(self, name: str) -> Entry | None:
        """The entry of this name, if any; one that is damaged or of another format is removed."""
        folder = self.folder / name
        if not os.path.lexists(folder):
            return None
        with suppress(OSError, ValueError, TypeError, KeyError):
            usage = _read_usage(folder)
            fields = read_object(folder / _METADATA, _METADATA_BYTES)
            if fields.pop("format") == _FORMAT and _is_valid(metadata := Metadata(**fields)):
                return Entry(folder, metadata, usage.bytes, usage.used)
        self.remove(folder)
        return None

    def entries(self, limit: int | None = None) -> list[Entry]:
        """Up to `limit` entries, most recently used first; damaged ones are removed."""
        found = (self.find(usage.folder.name) for usage in reversed(self._by_last_use()))
        return list(islice(filter(None, found), limit))

    @property
    def count(self) -> int:
        """How many entries there are, with damaged ones."""
        return len(self._folders(_NAME))

    @property
    def bytes(self) -> int:
        partial = sum(map(_folder_bytes, self._folders(_PARTIAL)))
        return partial + sum(usage.bytes for usage in self._by_last_use())

    def touch(self, entry: Entry, video: str) -> None:
        """Record that an entry is used now, for a clip at this path."""
        path = entry.folder / _METADATA
        with suppress(OSError):  # read-only, or just removed by another process
            if video == entry.metadata.video:
                os.utime(path)
            else:
                atomic_write_text(path, _to_json(replace(entry.metadata, video=video)))

    def add(
        self,
        name: str,
        metadata: Metadata,
        frames: Mapping[str, Any],
        write: Callable[[Path], None],
        expected_bytes: int,  # about what `write` writes: the keys and values
    ) -> None:
        """Write an entry, unless it exceeds the budget; an OSError if the disk is full or fails."""
        if expected_bytes > self.budget:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self._evict(expected_bytes)
        if shutil.disk_usage(self.folder).free < expected_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder))
        partial = Path(tempfile.mkdtemp(prefix=f"{name}.", suffix=".partial", dir=self.folder))
        try:
            write(partial / _KV)
            (partial / _FRAMES).write_text(json.dumps(frames), encoding="utf-8")
            (partial / _METADATA).write_text(_to_json(metadata), encoding="utf-8")
            written = _folder_bytes(partial)
            if written > self.budget:
                return
            try:
                replace_durably(partial, self.folder / name)
            except OSError:
                if not (self.folder / name).is_dir():  # another process may have written it
                    raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        if written > expected_bytes:
            self._evict(0)

    def remove(self, folder: Path) -> None:
        removed = folder.with_name(f"{folder.name}.{os.urandom(4).hex()}.partial")
        with suppress(OSError):  # another process may have removed it
            folder.rename(removed)
            if removed.is_symlink() or not removed.is_dir():
                removed.unlink()
            else:
                shutil.rmtree(removed, ignore_errors=True)

    def clear(self) -> bool:
        """Remove all entries and partial folders; returns whether nothing is left."""
        for folder in (*self._folders(_NAME), *self._folders(_PARTIAL)):
            self.remove(folder)
        return not (self._folders(_NAME) or self._folders(_PARTIAL))

    def _evict(self, wanted: int) -> None:
        """Make room: remove abandoned partial folders, then the least recently used entries."""
        now = time.time()
        for partial in self._folders(_PARTIAL):
            with suppress(OSError):
                if now - partial.stat().st_mtime > _ABANDONED_SECONDS:
                    self.remove(partial)
        usages = self._by_last_use()
        total = sum(usage.bytes for usage in usages)
        for usage in usages:
            if total + wanted <= self.budget:
                break
            self.remove(usage.folder)
            total -= usage.bytes

    def _by_last_use(self) -> list["_Usage"]:
        """The entries, least recently used first; folders that lack a file are removed."""
        found = []
        for folder in self._folders(_NAME):
            try:
                found.append(_read_usage(folder))
            except OSError:
                self.remove(folder)
        return sorted(found)

    def _folders(self, pattern: re.Pattern[str]) -> list[Path]:
        try:
            names = os.listdir(self.folder)  # noqa: PTH208
        except OSError:  # missing or unreadable
            return []
        return [self.folder / name for name in names if pattern.fullmatch(name)]


class _Usage(NamedTuple):
    used: float
    bytes: int
    folder: Path


def _read_usage(folder: Path) -> _Usage:
    """Last use and size of an entry; an OSError unless it has all files."""
    path = str(folder)
    # pathlib is slow for thousands of entries
    found = [os.stat(f"{path}/{name}") for name in (_KV, _FRAMES, _METADATA)]  # noqa: PTH116
    if not all(stat.S_ISREG(status.st_mode) for status in found):
        raise OSError(errno.EINVAL, "not a regular file", path)
    return _Usage(found[-1].st_mtime, sum(status.st_size for status in found), folder)


def _is_valid(found: Metadata) -> bool:
    seconds = [moment for moment in (found.start, found.end) if moment is not None]
    return (
        all(isinstance(t, str) for t in (found.video, found.model, found.quant, found.engine))
        and all(type(n) is int and 0 < n < _MAX_NUMBER for n in (found.frames, found.tokens))
        and all(type(n) in (int, float) and 0 <= n < _MAX_NUMBER for n in seconds)
    )


def _to_json(metadata: Metadata) -> str:
    return json.dumps({"format": _FORMAT, **asdict(metadata)}, indent=1) + "\n"


def _folder_bytes(folder: Path) -> int:
    total = 0
    with suppress(OSError):  # just removed, or unreadable
        for path in folder.iterdir():
            with suppress(OSError):  # just replaced or removed
                total += path.stat().st_size
    return total
