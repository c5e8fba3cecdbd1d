"""The frames of the next clips, read in processes of their own while this one is answered.

A video that brings its process down, or never lets it come to an end, costs that video, and
nothing else.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from pandacli.errors import ClipError, DeviceError, PandaError
from pandacli.video.clip import Clip

if TYPE_CHECKING:
    from pandacli.video import Frames

PATIENCE = 600.0
"""Seconds in which the frames of any small clip are read, however busy the machine is."""

_SLOWEST = 1e6  # bytes of a clip that are gone through in a second more

_Item = TypeVar("_Item")


@dataclass
class _Reading(Generic[_Item]):
    item: _Item
    clip: Clip
    future: "Future[Frames]"


class FramesAhead:
    """Reads the frames of clips before they are wanted; a context manager.

    Args:
        num_frames: How many frames a model is shown.
        canvas_side: The side in pixels of the square that it sees them in; frames arrive fitted.
        workers: How many processes read.
    """

    def __init__(self, num_frames: int, canvas_side: int, workers: int | None = None) -> None:
        self._num_frames, self._side = num_frames, canvas_side
        self._workers = workers or _spare_cores()
        self._pool = self._new_pool(self._workers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _end(self._pool)

    def read(
        self, clips: Iterable[tuple[_Item, Clip | PandaError]]
    ) -> "Iterator[tuple[_Item, Frames | PandaError]]":
        """The frames of each clip, in order, or what is wrong with it.

        Args:
            clips: The clips, each with what it is wanted for; or, for a clip that cannot be, why.
                They are drawn a few ahead.
        """
        window: deque[_Reading[_Item] | tuple[_Item, PandaError]] = deque()
        for item, clip in clips:
            if isinstance(clip, PandaError):
                window.append((item, clip))
            else:
                window.append(_Reading(item, clip, self._submit(clip)))
            if len(window) > self._workers:
                yield self._first(window)
        while window:
            yield self._first(window)

    def _first(
        self, window: "deque[_Reading[_Item] | tuple[_Item, PandaError]]"
    ) -> "tuple[_Item, Frames | PandaError]":
        first = window.popleft()
        if not isinstance(first, _Reading):
            return first
        try:
            return first.item, first.future.result(_patience(first.clip))
        except PandaError as error:
            return first.item, error
        except TimeoutError:  # it is read since before the others, so it has had its time
            _end(self._pool)
            frames: Frames | PandaError = _endless(first.clip)
        except BrokenProcessPool:
            _end(self._pool)
            frames = self._read_alone(first.clip)
        self._pool = self._new_pool(self._workers)
        for other in window:
            if isinstance(other, _Reading):
                other.future = self._submit(other.clip)
        return first.item, frames

    def _read_alone(self, clip: Clip) -> "Frames | PandaError":
        """Read a clip with no other in sight, after one of several has ended its process.

        Raises:
            DeviceError: No process can be started, whatever it is to read.
        """
        alone = self._new_pool(1)
        try:
            with _starting_workers():
                alone.submit(_begun).result(PATIENCE)
        except (BrokenProcessPool, TimeoutError, OSError) as error:
            _end(alone)
            raise DeviceError(
                "the processes that read videos end as soon as they are started",
                "there may be too little memory, or a limit on processes (ulimit -u)",
            ) from error
        try:
            with _starting_workers():
                reading = alone.submit(read_fitted, clip, self._num_frames, self._side)
            return reading.result(_patience(clip))
        except PandaError as error:
            return error
        except TimeoutError:
            return _endless(clip)
        except BrokenProcessPool:
            return ClipError(f"{clip.path} brings the video decoder down")
        finally:
            _end(alone)

    def _submit(self, clip: Clip) -> "Future[Frames]":
        try:
            with _starting_workers():
                return self._pool.submit(read_fitted, clip, self._num_frames, self._side)
        except BrokenProcessPool as error:  # told when the turn of this clip comes
            broken: Future[Frames] = Future()
            broken.set_exception(error)
            return broken

    @staticmethod
    def _new_pool(workers: int) -> ProcessPoolExecutor:
        # not forked: torch has threads, which a fork leaves in pieces
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(workers, mp_context=context, initializer=_be_a_worker)


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


def _patience(clip: Clip) -> float:
    """Seconds after which a clip is taken for one that its decoder hangs on."""
    try:
        return PATIENCE + clip.path.stat().st_size / _SLOWEST
    except OSError:  # told by the one that reads it
        return PATIENCE


def _endless(clip: Clip) -> ClipError:
    return ClipError(f"{clip.path} does not come to an end in the video decoder")


@contextmanager
def _starting_workers() -> Iterator[None]:
    """Keep what surrounds a process that is being started out of it.

    Ctrl-C goes to all processes of a terminal, and one that has not begun yet would answer it with
    a traceback. And multiprocessing runs the main module again in each process, where a script
    without `if __name__ == "__main__":` would start a batch of its own, and one that came through
    standard input is not there any more; nothing of it is needed.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _begun() -> None:
    """What a process does that is only to show that it can be started."""


def _be_a_worker() -> None:
    """Leave Ctrl-C to the main process, and end when it does, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _end(pool: ProcessPoolExecutor) -> None:
    """End a pool at once, whatever it is reading."""
    for process in list((pool._processes or {}).values()):
        process.terminate()
    pool.shutdown(wait=True, cancel_futures=True)


def _spare_cores() -> int:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(4, (usable or 1) // 2))
