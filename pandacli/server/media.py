"""The videos of requests: files below folders that are allowed, uploads, and their frames.

Frames are read in worker processes. A file that crashes a decoder, or takes longer than the limit,
costs its request and a worker process, which is replaced.
"""

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
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Self

from pandacli.errors import ClipError, PandaError, UsageError
from pandacli.server.protocol import RequestError, VideoSource
from pandacli.units import size
from pandacli.video.clip import VIDEO_SUFFIXES, Clip, format_time, local_file
from pandacli.video.prefetch import Reader, Request, available_cores, end_readers, read_fitted

if TYPE_CHECKING:
    from pandacli.video import Frames

_DATA = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)
_CHUNK = 1 << 20
_MOST_LISTED = 1000


@dataclass(frozen=True)
class Limits:
    """What a video may be; zero is no limit."""

    pixels: int = 4096 * 2304  # of a picture
    frames: int = 500_000  # in the file
    seconds: float = 6 * 3600.0  # of the file
    read_seconds: float = 120.0  # that reading its frames may take
    upload: int = 512 << 20  # bytes of a file, or of a body
    uploads: int = 4 << 30  # bytes of all files that are kept


@dataclass(frozen=True)
class Upload:
    """A file that was sent."""

    id: str
    path: Path
    name: str
    bytes: int
    created: int  # seconds since 1970

    @property
    def record(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.bytes,
            "created_at": self.created,
            "filename": self.name,
            "purpose": "user_data",
            "status": "processed",
        }


class Uploads:
    """Files that were sent, in a folder that is removed at the end; the oldest go over budget."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._folder = Path(tempfile.mkdtemp(prefix="panda-uploads-"))
        self._files: OrderedDict[str, Upload] = OrderedDict()  # the latest used last
        self._lock = threading.Lock()

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def writer(self, name: str = "") -> "UploadWriter":
        return UploadWriter(self, self._folder, self._limits.upload, name)

    def add(self, written: Path, digest: str, name: str) -> Upload:
        """Keep a file that was written to the folder; the same content is kept once."""
        with self._lock:
            known = self._files.get(f"file-{digest[:32]}")
            if known is not None:
                written.unlink()
                self._files.move_to_end(known.id)
                return known
            path = self._folder / digest[:32]
            written.replace(path)
            length = path.stat().st_size
            upload = Upload(f"file-{digest[:32]}", path, name, length, int(time.time()))
            self._files[upload.id] = upload
            held = sum(each.bytes for each in self._files.values())
            for old in [*self._files.values()][:-1]:
                if not self._limits.uploads or held <= self._limits.uploads:
                    break
                held -= old.bytes
                self._drop(old.id)
            return upload

    def get(self, file_id: str) -> Upload:
        """A file by its id; a RequestError if there is none."""
        with self._lock:
            upload = self._files.get(file_id)
            if upload is None:
                what = f"there is no file {file_id[:80]!r}; it may have been dropped for newer ones"
                raise RequestError(what, status=404, code="file_not_found", param="file_id")
            self._files.move_to_end(file_id)
            return upload

    def remove(self, file_id: str) -> None:
        self.get(file_id)
        with self._lock:
            self._drop(file_id)

    def list(self) -> "list[Upload]":
        with self._lock:
            return [*self._files.values()]

    def from_base64(self, text: str) -> Upload:
        """Keep a video that was sent as base64 or as a data: address."""
        start = _DATA.match(text)
        if start is None and text[:5].lower() == "data:":
            raise RequestError("a data: address must be of base64", code="invalid_video")
        with self.writer("video") as writer:
            try:
                writer.write(base64.b64decode(text[start.end() if start else 0 :], validate=True))
            except (binascii.Error, ValueError) as error:
                raise RequestError("the video is not base64", code="invalid_video") from error
            return writer.finish()

    def _drop(self, file_id: str) -> None:
        if upload := self._files.pop(file_id, None):
            with suppress(OSError):
                upload.path.unlink()


class UploadWriter:
    """Writes a file piece by piece; a context manager, which removes it unless it is finished."""

    def __init__(self, uploads: Uploads, folder: Path, most: int, name: str) -> None:
        self._uploads, self._most, self._name = uploads, most, name
        descriptor, path = tempfile.mkstemp(dir=folder)
        self._path, self._file = Path(path), os.fdopen(descriptor, "wb")
        self._digest, self._written = hashlib.sha256(), 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)

    def write(self, piece: bytes) -> None:
        self._written += len(piece)
        if self._most and self._written > self._most:
            raise RequestError(
                f"the file is larger than {size(self._most)}", status=413, code="file_too_large"
            )
        self._digest.update(piece)
        self._file.write(piece)

    def finish(self) -> Upload:
        self._file.close()
        if not self._written:
            raise RequestError("the file is empty", param="file", code="invalid_video")
        return self._uploads.add(self._path, self._digest.hexdigest(), self._name)


class MediaFolders:
    """Folders below which requests may name files."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = tuple(folder.resolve() for folder in folders)

    def find(self, address: str) -> Path:
        """The file that a path or a file: address names; a RequestError unless it is below one.

        A relative path is below the first folder that has it. Whether a file exists elsewhere is
        not told.
        """
        try:
            named = local_file(address)
            places = [folder / named for folder in self.folders]  # an absolute path stays as it is
            for place in places:
                path = place.resolve()
                if path.is_file() and any(path.is_relative_to(each) for each in self.folders):
                    return path
        except ClipError as error:
            raise RequestError(error.message, code="invalid_video") from error
        except (OSError, ValueError, RuntimeError):  # too long, a zero byte, a loop of links
            pass
        what = f"no file {address[:200]!r} below the folders that the server may read"
        raise RequestError(what, status=403, code="file_not_allowed")

    def list(self) -> Iterator[Path]:
        """The videos below the folders, sorted in each."""
        count = 0
        for folder in self.folders:
            for place, folders, names in os.walk(folder):
                folders.sort()
                for name in sorted(names):
                    if name.lower().endswith(VIDEO_SUFFIXES):
                        yield Path(place, name)
                        count += 1
                        if count == _MOST_LISTED:
                            return

    def names(self) -> Iterator[str]:
        """Paths of the videos relative to their folders, each of which `find` takes."""
        for path in self.list():
            folder = next(each for each in self.folders if path.is_relative_to(each))
            yield path.relative_to(folder).as_posix()


class FrameReaders:
    """Worker processes that read the frames of clips within limits; a context manager."""

    def __init__(self, image_size: int, limits: Limits, workers: int | None = None) -> None:
        self._image_size, self._limits = image_size, limits
        self._queue: SimpleQueue[Request | None] = SimpleQueue()
        workers = workers or max(2, min(4, available_cores()))
        self._readers = [Reader(self._queue) for _ in range(workers)]

    def __enter__(self) -> Self:
        for reader in self._readers:
            reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        end_readers(self._readers, self._queue)

    def submit(self, clip: Clip, num_frames: int, *, limited: bool = True) -> Request:
        """Begin to read a clip; `wait_for` gives its frames."""
        how = clip, num_frames, self._image_size
        request = Request(clip.path, read_fitted, how)
        if limited:
            request = Request(clip.path, read_limited, (*how, self._limits))
        self._queue.put(request)
        return request

    def wait_for(self, request: Request) -> "Frames":
        """The frames of a clip; a PandaError why there are none."""
        frames: Frames | PandaError = request.wait(self._limits.read_seconds or None)
        if isinstance(frames, PandaError):
            raise frames
        return frames


def read_limited(clip: Clip, num_frames: int, image_size: int, limits: Limits) -> "Frames":
    """Read the frames of a clip, in a worker process; a UsageError if it exceeds the limits."""
    from pandacli.video.container import read_stream

    stream = read_stream(clip.path)
    length = float((stream.end or 0) * stream.time_base)
    for what, value, most, shown in (
        ("pixels in a picture", stream.frame_pixels, limits.pixels, f"{limits.pixels:,}"),
        ("frames", stream.packet_count, limits.frames, f"{limits.frames:,}"),
        ("in length", length, limits.seconds, format_time(limits.seconds)),
    ):
        if most and value > most:
            raise UsageError(f"the video has more than {shown} {what}, which this server refuses")
    return read_fitted(clip, num_frames, image_size)


def describe(source: VideoSource) -> str:
    """How a video is named in an error."""
    return source.address or source.file_id or "the video"
