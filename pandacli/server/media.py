"""The videos of requests: files below folders that are allowed, and the frames of a file.

Frames are read in worker processes. A file that crashes a decoder, or takes longer than the limit,
costs its request and a worker process, which is replaced.
"""

import asyncio
import os
from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Self

from pandacli.errors import ClipError, PandaError, UsageError
from pandacli.server.protocol import RequestError, VideoSource
from pandacli.video.clip import VIDEO_SUFFIXES, Clip, format_time, local_file
from pandacli.video.prefetch import Reader, Request, available_cores, end_readers, read_fitted

if TYPE_CHECKING:
    from pandacli.video import Frames

_MOST_LISTED = 1000  # videos
_MOST_WALKED = 10_000  # folders, as of a home


@dataclass(frozen=True)
class Limits:
    """What a video may be; zero is no limit."""

    pixels: int = 4096 * 2304  # of a picture
    frames: int = 500_000  # in the file
    seconds: float = 6 * 3600.0  # of the file
    read_seconds: float = 120.0  # that reading its frames may take
    upload: int = 512 << 20  # bytes of a file, or of a body
    uploads: int = 4 << 30  # bytes of all files that are kept


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
                if path.is_file() and self._holds(path):
                    return path
        except ClipError as error:
            what = f"{error.message}; {error.hint}"
            raise RequestError(what, code="invalid_video") from error
        except (OSError, ValueError, RuntimeError):  # too long, a zero byte, a loop of links
            pass
        what = f"no file {address[:200]!r} below the folders that the server may read"
        raise RequestError(what, status=403, code="file_not_allowed")

    def list(self) -> Iterator[Path]:
        """The first videos below the folders, sorted in each, without links that lead elsewhere."""
        found = (path for path in self._walk() if self._holds(Path(os.path.realpath(path))))
        return islice(found, _MOST_LISTED)

    def names(self) -> Iterator[str]:
        """Paths of the videos relative to their folders, each of which `find` takes."""
        for path in self.list():
            folder = next(each for each in self.folders if path.is_relative_to(each))
            yield path.relative_to(folder).as_posix()

    def _walk(self) -> Iterator[Path]:
        for folder in self.folders:
            for place, folders, names in islice(os.walk(folder), _MOST_WALKED):
                folders.sort()
                videos = (name for name in names if name.lower().endswith(VIDEO_SUFFIXES))
                yield from (Path(place, name) for name in sorted(videos))

    def _holds(self, path: Path) -> bool:
        return any(path.is_relative_to(folder) for folder in self.folders)


class FrameReaders:
    """Worker processes that read the frames of clips within limits; a context manager.

    Used on the event loop. Requests for the same frames share one reading, which ends with the last
    of them.
    """

    def __init__(
        self,
        image_size: int,
        limits: Limits,
        workers: int | None = None,
        *,
        preload: bool = False,  # start the processes at once, not with the first requests
    ) -> None:
        self._image_size, self._limits, self._preload = image_size, limits, preload
        self._queue: SimpleQueue[Request | None] = SimpleQueue()
        workers = workers or max(2, min(4, available_cores()))
        self._readers = [Reader(self._queue) for _ in range(workers)]
        # requests begin in their order: as many threads wait as there are that can have begun
        self._waiting = ThreadPoolExecutor(workers, thread_name_prefix="panda frames wait")
        self._shared: dict[Hashable, _Reading] = {}

    def __enter__(self) -> Self:
        for reader in self._readers:
            reader.start()
            if self._preload:  # each thread takes one
                self._queue.put(Request(Path(), load_decoders, ()))
        return self

    def __exit__(self, *_: object) -> None:
        for reading in [*self._shared.values()]:
            reading.request.cancel()
        end_readers(self._readers, self._queue)
        self._waiting.shutdown(wait=False)

    async def read(
        self, clip: Clip, num_frames: int, version: Hashable = None, *, limited: bool = True
    ) -> "Frames":
        """The frames of a clip; a PandaError why there are none.

        `version` tells the contents apart that the file has had.
        """
        key = clip, version, num_frames, limited
        reading = self._shared.get(key)
        if reading is None:
            how = clip, num_frames, self._image_size
            request = Request(clip.path, read_fitted, how)
            if limited:
                request = Request(clip.path, read_limited, (*how, self._limits))
            self._queue.put(request)
            timeout = self._limits.read_seconds or None
            loop = asyncio.get_running_loop()
            result = loop.run_in_executor(self._waiting, request.wait, timeout)
            reading = self._shared[key] = _Reading(request, result)
        reading.wanted += 1
        try:
            frames = await asyncio.shield(reading.result)
        finally:
            reading.wanted -= 1
            if not reading.wanted:
                self._shared.pop(key, None)
                reading.request.cancel()
        if isinstance(frames, PandaError):
            raise frames
        return frames


@dataclass(eq=False)
class _Reading:
    request: Request
    result: "asyncio.Future[Frames | PandaError]"
    wanted: int = 0  # requests that wait for it


def load_decoders() -> None:
    """Import what a worker process reads videos with."""
    import pandacli.video.preprocessing
    import pandacli.video.sampling  # noqa: F401


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
