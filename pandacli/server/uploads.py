"""Files that clients send, kept in a folder of this server within a budget."""

import base64
import binascii
import hashlib
import os
import re
import shutil
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from pandacli.server.engine import BusyError
from pandacli.server.protocol import RequestError
from pandacli.units import size

_DATA = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)
_PREFIX = "panda-uploads-"
_LOCK = "lock"  # of a folder; held while its server runs
_YOUNG = 60.0  # seconds: the lock of a younger folder may not have been taken yet
_MOST_TEXTS = 1000  # base64 texts whose files are remembered
_LONGEST_NAME = 255


@dataclass(frozen=True)
class Upload:
    """A file that was sent."""

    id: str
    path: Path
    name: str  # empty if it came as base64
    bytes: int
    created: int  # seconds since 1970

    @property
    def record(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.bytes,
            "created_at": self.created,
            "filename": self.name or "video",
            "purpose": "user_data",
            "status": "processed",
        }


class Uploads:
    """Files that were sent; over the budget, those used longest ago go, except those in use.

    The folder is removed at the end. What a killed server left is removed by the next one.
    """

    def __init__(self, most: int, budget: int) -> None:
        """`most` bytes of a file, `budget` bytes of all together; zero is no limit."""
        _remove_leftovers()
        self._most, self._budget = most, budget
        self._folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self._folder_lock = FileLock(self._folder / _LOCK, thread_local=False)
        self._folder_lock.acquire()
        self._files: OrderedDict[str, Upload] = OrderedDict()  # the latest used last
        self._in_use: list[set[str]] = []
        self._texts: OrderedDict[bytes, str] = OrderedDict()  # ids by the digests of base64
        self._lock = threading.Lock()

    def close(self) -> None:
        self._folder_lock.release()
        shutil.rmtree(self._folder, ignore_errors=True)

    @contextmanager
    def using(self) -> Iterator[set[str]]:
        """A set to add the ids of files to that must not be dropped in the block."""
        ids: set[str] = set()
        with self._lock:
            self._in_use.append(ids)
        try:
            yield ids
        finally:
            with self._lock:
                # a comparison would find another set with the same ids
                self._in_use = [other for other in self._in_use if other is not ids]

    def writer(self, name: str = "", used: set[str] | None = None) -> "UploadWriter":
        return UploadWriter(self, self._folder, self._most, name[:_LONGEST_NAME], used)

    def add(self, written: Path, digest: str, name: str, used: set[str] | None = None) -> Upload:
        """Keep a file that was written to the folder; the same content is kept once.

        A BusyError if there is no room, because all other files are in use.
        """
        file_id, length = f"file-{digest[:32]}", written.stat().st_size
        with self._lock:
            if (known := self._files.get(file_id)) is not None:
                written.unlink()
                known = self._files[file_id] = replace(known, name=name or known.name)
                self._touch(known, used)
                return known
            held = length + sum(each.bytes for each in self._files.values())
            for old in [*self._files.values()]:
                if not self._budget or held <= self._budget:
                    break
                if not any(old.id in ids for ids in self._in_use):
                    held -= old.bytes
                    self._drop(old.id)
            if self._budget and held > self._budget:
                raise BusyError("the files that are in use leave no room", "try again later")
            path = self._folder / digest[:32]
            written.replace(path)
            self._files[file_id] = upload = Upload(file_id, path, name, length, int(time.time()))
            self._touch(upload, used)
            return upload

    def get(self, file_id: str, used: set[str] | None = None) -> Upload:
        """A file by its id; a RequestError if there is none."""
        with self._lock:
            if (upload := self._files.get(file_id)) is None:
                what = f"there is no file {file_id[:80]!r}; it may have been dropped for newer ones"
                raise RequestError(what, status=404, code="file_not_found", param="file_id")
            self._touch(upload, used)
            return upload

    def remove(self, file_id: str) -> None:
        self.get(file_id)
        with self._lock:
            self._drop(file_id)

    def list(self) -> "list[Upload]":
        with self._lock:
            return [*self._files.values()]

    def from_base64(self, text: str, used: set[str] | None = None) -> Upload:
        """Keep a video that was sent as base64 or as a data: address."""
        start = _DATA.match(text)
        if start is None and text[:5].lower() == "data:":
            raise RequestError("a data: address must be of base64", code="invalid_video")
        try:
            encoded = text[start.end() if start else 0 :].encode("ascii")
            key = hashlib.sha256(encoded).digest()
            with self._lock:
                known = self._texts.get(key)
            if known is not None:
                with suppress(RequestError):  # dropped meanwhile
                    return self.get(known, used)
            with self.writer("", used) as writer:
                writer.write(base64.b64decode(encoded, validate=True))
                upload = writer.finish()
        except (binascii.Error, UnicodeEncodeError) as error:
            raise RequestError("the video is not base64", code="invalid_video") from error
        with self._lock:
            self._texts[key] = upload.id
            while len(self._texts) > _MOST_TEXTS:
                self._texts.popitem(last=False)
        return upload

    def _touch(self, upload: Upload, used: set[str] | None) -> None:
        self._files.move_to_end(upload.id)
        if used is not None:
            used.add(upload.id)

    def _drop(self, file_id: str) -> None:
        if upload := self._files.pop(file_id, None):
            with suppress(OSError):
                upload.path.unlink()


class UploadWriter:
    """Writes a file piece by piece; a context manager, which removes it unless it is finished."""

    def __init__(
        self, uploads: Uploads, folder: Path, most: int, name: str, used: set[str] | None
    ) -> None:
        self._uploads, self._most, self._name, self._used = uploads, most, name, used
        with _disk_errors():
            descriptor, path = tempfile.mkstemp(dir=folder)
        self._path, self._file = Path(path), os.fdopen(descriptor, "wb")
        self._digest, self._written = hashlib.sha256(), 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # a full disk, which was reported
            self._file.close()
        self._path.unlink(missing_ok=True)

    def write(self, piece: bytes) -> None:
        self._written += len(piece)
        if self._most and self._written > self._most:
            raise RequestError(
                f"the file is larger than {size(self._most)}", status=413, code="file_too_large"
            )
        self._digest.update(piece)
        with _disk_errors():
            self._file.write(piece)

    def finish(self) -> Upload:
        with _disk_errors():
            self._file.close()
            if not self._written:
                raise RequestError("the file is empty", param="file", code="invalid_video")
            digest = self._digest.hexdigest()
            return self._uploads.add(self._path, digest, self._name, self._used)


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = f"the server cannot keep the file: {error.strerror or error}"
        raise RequestError(what, status=507, code="no_space", kind="server_error") from error


def _remove_leftovers() -> None:
    """Remove the folders of servers of this user that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError, Timeout):
            status = folder.lstat()
            if time.time() - status.st_mtime < _YOUNG:
                continue
            if hasattr(os, "getuid") and status.st_uid != os.getuid():
                continue
            with FileLock(folder / _LOCK, timeout=0):
                shutil.rmtree(folder, ignore_errors=True)
