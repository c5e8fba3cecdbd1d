"""The frames of the next clips, read in processes of their own while this one is answered.

A video that brings its process down, or never lets it come to an end, costs that video, and
nothing else.
"""

import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from pandacli.batch.worker_process import ProcessDiedError, WorkerProcess
from pandacli.errors import ClipError, DeviceError, PandaError
from pandacli.video.clip import Clip

if TYPE_CHECKING:
    from pandacli.video import Frames

PATIENCE = 600.0
"""Seconds in which the frames of any small clip are read, however busy the machine is."""

_SLOWEST = 1e6  # bytes of a clip that are gone through in a second more
_ATTEMPTS = 2  # at a clip whose process dies: something else may have ended the first one
_TO_END = 0.5  # seconds that the end of the processes is waited for
_KILLED = (-signal.SIGKILL, -signal.SIGTERM)

_Item = TypeVar("_Item")


@dataclass(eq=False)
class _Reading:
    """A clip whose frames are wanted.

    Attributes:
        clip: The clip.
        frames: Where they will be.
        reader: Who reads it, once that has begun.
        given_up: Whether it took too long.
    """

    clip: Clip
    frames: "Future[Frames]" = field(default_factory=Future)
    reader: "_Reader | None" = None
    given_up: bool = False


class FramesAhead:
    """Reads the frames of clips before they are wanted; a context manager.

    Args:
        num_frames: How many frames a model is shown.
        canvas_side: The side in pixels of the square that it sees them in; frames arrive fitted.
        workers: How many processes read.
    """

    def __init__(self, num_frames: int, canvas_side: int, workers: int | None = None) -> None:
        self._queue: SimpleQueue[_Reading | None] = SimpleQueue()
        how = num_frames, canvas_side
        self._readers = [_Reader(self._queue, *how) for _ in range(workers or _spare_cores())]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End all processes at once, whatever they are reading."""
        with suppress(Empty):
            while True:
                self._queue.get_nowait()
        for reader in self._readers:
            self._queue.put(None)
            reader.end()
        deadline = monotonic() + _TO_END
        for reader in self._readers:
            reader.join(max(0.0, deadline - monotonic()))

    def read(
        self, clips: Iterable[tuple[_Item, Clip | PandaError]]
    ) -> "Iterator[tuple[_Item, Frames | PandaError]]":
        """The frames of each clip, in order, or what is wrong with it.

        Args:
            clips: The clips, each with what it is wanted for; or, for a clip that cannot be, why.
                They are drawn a few ahead.

        Raises:
            DeviceError: No process can be started, whatever it is to read.
        """
        window: deque[tuple[_Item, _Reading | PandaError]] = deque()
        for item, clip in clips:
            window.append((item, clip if isinstance(clip, PandaError) else self._submit(clip)))
            if len(window) > len(self._readers):
                yield _outcome(*window.popleft())
        while window:
            yield _outcome(*window.popleft())

    def _submit(self, clip: Clip) -> _Reading:
        reading = _Reading(clip)
        self._queue.put(reading)
        return reading


def _outcome(item: _Item, reading: _Reading | PandaError) -> "tuple[_Item, Frames | PandaError]":
    if isinstance(reading, PandaError):
        return item, reading
    try:
        return item, reading.frames.result(_patience(reading.clip))
    except DeviceError:  # no process can be started, whatever it is to read
        raise
    except PandaError as error:
        return item, error
    except TimeoutError:  # it was begun before the others of the window, so it has had its time
        reading.given_up = True
        if reading.reader is not None:
            reading.reader.kill()
        return item, ClipError(f"the video decoder does not finish reading {reading.clip.path}")


class _Reader(threading.Thread):
    """A thread with a process that reads one clip after another, and is replaced when it dies."""

    def __init__(self, queue: "SimpleQueue[_Reading | None]", num_frames: int, side: int) -> None:
        super().__init__(name="panda frames", daemon=True)
        self._queue, self._num_frames, self._side = queue, num_frames, side
        self._process: WorkerProcess | None = None
        self._changing = threading.Lock()
        self._ended = False

    def run(self) -> None:
        """Read what is in the queue, up to None."""
        try:
            while (reading := self._queue.get()) is not None:
                reading.reader = self
                try:
                    reading.frames.set_result(self._read(reading))
                except BaseException as error:
                    reading.frames.set_exception(error)
        finally:
            self._drop()

    def kill(self) -> None:
        """Kill the process; what it reads fails, and the next clip gets another process."""
        with self._changing:
            if self._process is not None:
                self._process.kill()

    def end(self) -> None:
        """Kill the process, and start no other."""
        self._ended = True
        self.kill()

    def _read(self, reading: _Reading) -> "Frames":
        died = ProcessDiedError(None)
        for _ in range(_ATTEMPTS):
            if reading.given_up or self._ended:
                break
            try:
                process = self._live_process()
                return process.call(read_fitted, reading.clip, self._num_frames, self._side)
            except ProcessDiedError as error:
                died = error
                self._drop()
            except PandaError:
                raise
            except OSError as error:
                self._drop()
                raise _without_processes() from error
            except BaseException:  # what comes through the pipe next may be this call's result
                self._drop()
                raise
        if not died.started:
            raise _without_processes() from died
        if died.code in _KILLED:
            raise ClipError(
                f"the process reading {reading.clip.path} was killed (out of memory?)",
                "free some memory and run the same command again",
            )
        raise ClipError(f"the video decoder crashed on {reading.clip.path}")

    def _live_process(self) -> WorkerProcess:
        with self._changing:
            if self._ended:
                raise ProcessDiedError(None)
            if self._process is None:
                self._process = WorkerProcess()
            return self._process

    def _drop(self) -> None:
        with self._changing:
            process, self._process = self._process, None
        if process is not None:
            process.close()


def read_fitted(clip: Clip, num_frames: int, canvas_side: int) -> "Frames":
    """The sampled frames of a clip, fitted into the model's canvas, of which they fill one side.

    What is left for the model's own fitting is to find that nothing is left to do.

    Raises:
        PandaError: As `sample_frames`; also for what a decoder should not, but may, come up with.
    """
    from pandacli.video import fit_to_box, sample_frames

    try:
        frames = sample_frames(clip, num_frames)
        return replace(frames, pixels=fit_to_box(frames.pixels, image_size=canvas_side))
    except PandaError:
        raise
    except Exception as error:
        raise ClipError(f"{clip.path} cannot be read: {type(error).__name__}: {error}") from error


def _without_processes() -> DeviceError:
    return DeviceError(
        "the processes that read videos end as soon as they are started",
        "there may be too little memory, or a limit on processes (ulimit -u)",
    )


def _patience(clip: Clip) -> float:
    """Seconds after which a clip is taken for one that its decoder hangs on."""
    try:
        return PATIENCE + clip.path.stat().st_size / _SLOWEST
    except OSError:  # told by the one that reads it
        return PATIENCE


def _spare_cores() -> int:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(4, (usable or 1) // 2))
