"""Scores of clips and windows on disk, so that a second search computes only what is new.

    scores.sqlite           in the cache folder
        entries             key: a digest of all that the value depends on
                            kind: a score, the digest of a file, or the length of a clip
                            value, and used: when it was last needed, in seconds since the epoch
    scores.sqlite.damaged   an earlier one that could not be read

Each score is a transaction of its own: a killed run loses what it was computing, and processes can
share the file. SQLite's rollback journal keeps it whole. The faster write-ahead log needs shared
memory, which network file systems do not have, and a folder that can be written even to read.
Transactions are synced once a second: a power cut can damage the file only where scores are
computed faster than that.

Without a usable database nothing is found and nothing kept, which one notice says.
"""

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pandacli.file_io import sync
from pandacli.prefix_cache.clip_cache import clip_digest
from pandacli.prefix_cache.store import cache_folder

MOST_BYTES = 100_000_000
"""Size of the database beyond which a quarter of it is removed, least recently used first."""

_SCHEMA = 1
_CREATE = """
CREATE TABLE IF NOT EXISTS entries
    (key BLOB PRIMARY KEY, kind INTEGER NOT NULL, value, used INTEGER NOT NULL) WITHOUT ROWID
"""
_REMOVE_QUARTER = """
DELETE FROM entries WHERE key IN
    (SELECT key FROM entries ORDER BY used LIMIT (SELECT (count(*) + 3) / 4 FROM entries))
"""
_SCORE, _DIGEST, _LENGTH = range(3)
_SYNC_INTERVAL = 1.0  # seconds: scores that are computed faster than that cost little
_TIMEOUT = 5.0  # seconds to wait for another process
_DAY = 86_400  # seconds: a use is recorded once a day
_SETTLED = 2.0  # seconds since a file has changed: file systems count time in steps
# the last is for a database of this version that lacks a table or a column
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)


def score_key(**facts: object) -> bytes:
    """The key of a score that depends on these facts, which JSON can express."""
    return _key("score", facts)


def _key(*facts: object) -> bytes:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).digest()[:16]


class ScoreStore:
    """The scores in a database; a context manager, in one thread.

    Beyond `budget`, in bytes and at most `MOST_BYTES`, old scores are removed. `notice` is called
    with a sentence where the database cannot be used.
    """

    def __init__(
        self,
        budget: int = MOST_BYTES,
        path: Path | None = None,
        notice: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.budget = min(budget, MOST_BYTES)
        self.path = path or cache_folder() / "scores.sqlite"
        self._notice = notice
        self._connection: sqlite3.Connection | None = None
        self._inode = 0  # of the file that is open
        self._reads = self._writes = True  # until that fails
        self._synced, self._unsynced = 0.0, False  # time of the last commit that was synced
        self._unrecorded: set[bytes] = set()  # keys whose last use is not recorded

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
        self._record_uses()
        if self._unsynced:
            with suppress(OSError):
                sync(self.path)
        self._disconnect()

    def _record_uses(self) -> None:
        if self._unrecorded:
            now = int(time.time())
            keys, self._unrecorded = self._unrecorded, set()
            self._write("UPDATE entries SET used = ? WHERE key = ?", [(now, key) for key in keys])

    def find(self, key: bytes) -> float | None:
        """A probability, if it is known."""
        found = self._get(key)
        return found if isinstance(found, float) and 0 <= found <= 1 else None

    def keep(self, key: bytes, probability: float) -> None:
        """Store a probability; the end of this process does not lose it."""
        self._put(key, _SCORE, float(probability))

    def digest(self, path: Path, *, whole: bool = False) -> str:
        """`clip_digest` of a file, which is read only if it has changed; may raise an OSError."""
        state = file_state(path)  # before hashing: a later change must show
        key = _key("file", os.fsencode(path.absolute()).hex(), state, whole)
        if isinstance(known := self._get(key), str):
            return known
        digest = clip_digest(path, whole=whole)
        if file_state(path) == state and time.time() - max(state[1:3]) / 1e9 > _SETTLED:
            self._put(key, _DIGEST, digest)
        return digest

    def length(self, digest: str) -> float | None:
        """The length in seconds of the clip with a digest, if it is known."""
        found = self._get(_key("length", digest))
        return found if isinstance(found, float) and found > 0 else None

    def keep_length(self, digest: str, seconds: float) -> None:
        self._put(_key("length", digest), _LENGTH, float(seconds))

    @property
    def count(self) -> int:
        """How many scores there are."""
        return self._number(f"SELECT count(*) FROM entries WHERE kind = {_SCORE}")

    @property
    def total_bytes(self) -> int:
        """The size of the database, and of a damaged one beside it."""
        return sum(path.stat().st_size for path in self._files() if path.is_file())

    def clear(self) -> bool:
        """Remove all scores, also those of a newer version; returns whether none is left."""
        damaged = self._beside(".damaged")
        with suppress(OSError):
            damaged.unlink(missing_ok=True)
            # a file that is open elsewhere is emptied: deleting it could damage the next one
            if os.path.lexists(self.path) and not self._write("DELETE FROM entries"):
                self.path.unlink()
        return not os.path.lexists(damaged) and self.count == 0

    def _files(self) -> list[Path]:
        return [self.path, self._beside("-journal"), self._beside(".damaged")]

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)

    def _get(self, key: bytes) -> object:
        rows = self._read("SELECT value, used FROM entries WHERE key = ?", key)
        if not rows:
            return None
        ((value, used),) = rows
        if not isinstance(used, int) or used < time.time() - _DAY:
            self._unrecorded.add(key)
        return value

    def _put(self, key: bytes, kind: int, value: float | str) -> None:
        row = key, kind, value, int(time.time())
        if not self._write("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?)", [row]):
            return
        if self._number("PRAGMA page_count") * self._number("PRAGMA page_size") > self.budget:
            self._write(_REMOVE_QUARTER)

    def _number(self, query: str) -> int:
        return sum(number for (number,) in self._read(query))

    def _read(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        for _ in range(2):  # the second time on a database that replaces a damaged one
            if not self._reads:
                break
            try:
                if self._connection is None:
                    if not os.path.lexists(self.path):
                        break
                    self._connect()
                if self._connection is not None:
                    return self._connection.execute(query, values).fetchall()
            except (OSError, sqlite3.Error) as error:
                if not self._set_aside(error):
                    self._give_up("read", error)
                    self._reads = False
        return []

    def _write(self, statement: str, rows: Iterable[tuple[Any, ...]] = ((),)) -> bool:
        """Run a statement, once for each row, as one transaction; whether that succeeds."""
        for _ in range(2):
            if not self._writes:
                break
            try:
                if self._connection is None:
                    self.path.parent.mkdir(parents=True, exist_ok=True)
                    self._connect()
                if self._connection is None:
                    break
                now = time.monotonic()
                self._unsynced = now - self._synced < _SYNC_INTERVAL
                self._connection.execute(f"PRAGMA synchronous = {0 if self._unsynced else 2}")
                with self._connection:
                    self._connection.execute("BEGIN IMMEDIATE")
                    for row in rows:
                        self._connection.execute(statement, row).fetchall()
                self._synced = self._synced if self._unsynced else now
                return True
            except (OSError, sqlite3.Error) as error:
                if not self._set_aside(error):
                    self._give_up("kept", error)
        return False

    def _give_up(self, what: str, error: Exception) -> None:
        """Write no more, and say so once."""
        if self._writes:
            reason = getattr(error, "strerror", None) or error
            self._notice(f"scores cannot be {what}: {self.path}: {reason}")
        self._writes = False

    def _connect(self) -> None:
        """Open the database, which is made if it is not there; none if a newer panda made it."""
        connection = sqlite3.connect(self.path, timeout=_TIMEOUT, isolation_level=None)
        self._connection, self._inode = connection, self.path.stat().st_ino
        ((version,),) = connection.execute("PRAGMA user_version")
        if version > _SCHEMA:
            self._reads = self._writes = False
            self._disconnect()
            self._notice(f"scores are not kept: {self.path} belongs to a newer version of panda")
        elif version < _SCHEMA:
            connection.execute("PRAGMA auto_vacuum = FULL")
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(_CREATE)
                connection.execute(f"PRAGMA user_version = {_SCHEMA}")
            sync(self.path.parent)

    def _disconnect(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def _set_aside(self, error: Exception) -> bool:
        """Rename a damaged database; whether another can take its place."""
        self._disconnect()
        if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _DAMAGE:
            return False
        try:
            if self.path.stat().st_ino == self._inode:  # else another process has done it
                # first: SQLite would roll the next database back to it
                self._beside("-journal").unlink(missing_ok=True)
                self.path.replace(self._beside(".damaged"))
                self._notice(f"the scores in {self.path} were damaged: they are computed again")
        except OSError:
            return False
        return True


def file_state(path: Path) -> tuple[int, int, int, int]:
    """What differs after a change of a file: size, mtime, ctime and inode; may raise an OSError."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino
