"""The frames of the next clips, read in processes of their own while this one is answered.

A video that brings its process down, or never lets it come to an end, costs that video, and
nothing else.

A Python process that calls functions for this one, and can be killed in the middle of a call.

The pools of the standard library are not used. They keep the writing end of their own pipes open,
so a process killed while it sends is waited for without end; their semaphores are reported as
leaked where a signal ends the program; and they run the main script again in each process.
"""

import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from pandacli.errors import ClipError, DeviceError, PandaError
from pandacli.video.clip import Clip

if TYPE_CHECKING:
    from pandacli.video import Frames

_Result = TypeVar("_Result")

_STARTED = "started"
_TO_DIE = 1.0  # seconds; a process in an uninterruptible read of a dead disk outlives SIGKILL


class ProcessDiedError(Exception):
    """The process ended in the middle of a call.

    Attributes:
        code: Its exit code; of a signal, the number of it below zero. None if it cannot be told.
        started: Whether it had come as far as to take calls.
    """

    def __init__(self, code: int | None, *, started: bool = True) -> None:
        super().__init__(f"the process ended with {code}")
        self.code = code
        self.started = started


class WorkerProcess:
    """One process, started at once. It ends with this one, however this one ends.

    Its calls are made by one thread; any thread may kill it.
    """

    def __init__(self) -> None:
        ours, theirs = Pipe()
        self._connection = ours
        self._started = False
        try:
            with theirs:  # closed here: the death of the process is an end of file for us
                self._process = subprocess.Popen(
                    [sys.executable, *_warning_flags(), "-c", _program(theirs.fileno())],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,  # stdout carries answers only
                    pass_fds=[theirs.fileno()],
                    process_group=0,  # what the keyboard sends is for the main process alone
                )
        except BaseException:
            ours.close()
            raise

    def call(self, function: Callable[..., _Result], *arguments: object) -> _Result:
        """Returns what a function of a module returns there.

        Raises:
            ProcessDiedError: It was killed, or the function brought it down.
            Exception: Whatever the function raised.
        """
        try:
            if not self._started:
                self._started = self._connection.recv() == _STARTED
            self._connection.send((function, arguments))
            succeeded, outcome = self._connection.recv()
        except (EOFError, OSError) as error:
            raise ProcessDiedError(self._exit_code(), started=self._started) from error
        if not succeeded:
            raise outcome
        result: _Result = outcome
        return result

    def kill(self) -> None:
        """End it at once, whatever it is doing; a call under way raises ProcessDiedError."""
        self._process.kill()

    def close(self) -> None:
        """Kill it and let go of it; not while a call is under way."""
        self.kill()
        self._exit_code()
        self._connection.close()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _exit_code(self) -> int | None:
        try:
            return self._process.wait(_TO_DIE)
        except subprocess.TimeoutExpired:
            return None


def serve(descriptor: int) -> None:
    """The main function of the process: make the calls that come in, until none come any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with Connection(descriptor) as connection:
        connection.send(_STARTED)
        while True:
            try:
                function, arguments = connection.recv()
            except (EOFError, OSError):
                return
            try:
                outcome = True, function(*arguments)
            except Exception as error:
                outcome = False, error
            connection.send(outcome)


def _end_with_parent() -> None:
    sys.stdin.buffer.read()  # nothing is ever written: the end comes when the parent has ended
    os._exit(1)


def _program(descriptor: int) -> str:
    return (
        f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import serve; serve({descriptor})"
    )


def _warning_flags() -> list[str]:
    options = sys.warnoptions or ["ignore"]
    if any(option.startswith("error") for option in options):
        options = ["default"]  # as in the main process: a library's warning is no error
    return [f"-W{option}" for option in options]


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


class FramePrefetcher:
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
