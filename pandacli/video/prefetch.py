"""Prefetch: worker processes read the frames of the next clips while one is answered.

A video that crashes or hangs its decoder costs that video only. With a pool of the standard
library, waiting for a worker killed while sending never ends, a signal leaks semaphores, and each
worker runs the main script again.
"""

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Any, Self, TypeVar

from pandacli.errors import ClipError, DeviceError, PandaError
from pandacli.video.clip import Clip

if TYPE_CHECKING:
    from pandacli.video import Frames

TIMEOUT = 600.0  # seconds in which any small clip is read, however busy the machine is

_BYTES_PER_SECOND = 1e6  # of a clip; larger clips have more time
_ATTEMPTS = 2  # for a clip whose worker dies: something else may have ended the first one
_EXIT_TIMEOUT = 0.5  # seconds to wait for the threads at the end
_WAIT_TIMEOUT = 1.0  # seconds; a process in an uninterruptible read of a dead disk outlives SIGKILL
_KILLED = (-9, -15)  # exit codes for SIGKILL and SIGTERM
_STARTED = "started"

_Item = TypeVar("_Item")


class ProcessDiedError(Exception):
    """The worker process ended during a call."""

    def __init__(self, code: int | None, *, started: bool) -> None:
        super().__init__(f"the process ended with {code}")
        self.code = code  # negative for a signal, None if unknown
        self.started = started  # whether it had begun to take calls


class WorkerProcess:
    """A Python process that runs functions, and ends with this process however that ends.

    One thread makes calls; any may kill the `process`, and a call then raises ProcessDiedError.
    """

    def __init__(self) -> None:
        # a process group of its own: Ctrl-C is for the main process only
        group: dict[str, Any] = {"process_group": 0}
        if sys.platform == "win32":
            group = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        warn = sys.warnoptions or ["ignore"]
        if any(option.startswith("error") for option in warn):
            warn = ["default"]  # a library's warning is not an error
        command = [sys.executable, *(f"-W{option}" for option in warn), "-c", _program()]
        pipe = subprocess.PIPE
        try:
            self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, **group)
        except OSError as error:
            raise ProcessDiedError(None, started=False) from error
        assert self.process.stdin
        assert self.process.stdout
        self._calls, self._results = self.process.stdin, self.process.stdout
        self._started = False

    def call(self, function: Callable[..., Any], *arguments: object) -> Any:
        """Run a module-level function there; return its result, or raise its exception."""
        try:
            if not self._started:
                self._started = pickle.load(self._results) == _STARTED
            pickle.dump((function, arguments), self._calls)
            self._calls.flush()
            succeeded, outcome = pickle.load(self._results)
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            raise ProcessDiedError(self._exit_code(), started=self._started) from error
        if not succeeded:
            raise outcome
        return outcome

    def close(self) -> None:
        """Kill it and close its pipes; not during a call."""
        self.process.kill()
        self._exit_code()
        self._results.close()
        with suppress(OSError):  # a call that it did not take
            self._calls.close()

    def _exit_code(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            return self.process.wait(_WAIT_TIMEOUT)
        return None


def serve() -> None:
    """The main function of a worker process: run the calls from stdin until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    results = os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "wb") as devnull:  # noqa: PTH123
        os.dup2(devnull.fileno(), 1)  # libraries may print
    calls: SimpleQueue[tuple[Callable[..., Any], tuple[Any, ...]]] = SimpleQueue()

    def receive() -> None:
        with suppress(Exception):
            while True:
                calls.put(pickle.load(sys.stdin.buffer))
        os._exit(1)  # the main process has ended; do not wait for the decoder

    threading.Thread(target=receive, daemon=True).start()
    outcome: Any = _STARTED
    while True:
        pickle.dump(outcome, results, pickle.HIGHEST_PROTOCOL)
        results.flush()
        function, arguments = calls.get()
        try:
            outcome = True, function(*arguments)
        except Exception as error:
            outcome = False, error


def _program() -> str:
    return f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import serve; serve()"


def available_cores() -> int:
    """How many CPU cores this process may use."""
    has_affinity = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1


def read_fitted(clip: Clip, num_frames: int, image_size: int) -> "Frames":
    """Sample frames and fit them as `preprocess` would; any decoder's exception is a PandaError."""
    from pandacli.video import fit_to_box, sample_frames

    with as_clip_errors(clip.path):
        frames = sample_frames(clip, num_frames)
        return replace(frames, pixels=fit_to_box(frames.pixels, image_size=image_size))


@contextmanager
def as_clip_errors(path: Path) -> Iterator[None]:
    """Raise any exception but a PandaError as a ClipError about this file."""
    try:
        yield
    except PandaError:
        raise
    except Exception as error:
        raise ClipError(f"{path} cannot be read: {type(error).__name__}: {error}") from error


@dataclass(eq=False)
class Request:
    """A call in a worker process that reads a video file."""

    path: Path
    function: Callable[..., Any]
    arguments: tuple[object, ...]
    result: "Future[Any]" = field(default_factory=Future)
    reader: "Reader | None" = None  # the thread that reads it, once it has begun
    unwanted: bool = False  # the result is no longer waited for
    begun: threading.Event = field(default_factory=threading.Event)

    def wait(self, timeout: float | None = None) -> Any:
        """The result, or the PandaError of this file; DeviceError if no process can be started.

        `timeout` counts from when it is begun; the default is enough for any file of its size.
        """
        if timeout is not None:
            self.begun.wait()
        else:
            timeout = TIMEOUT
            with suppress(OSError):  # the reader reports it
                timeout += self.path.stat().st_size / _BYTES_PER_SECOND
        try:
            return self.result.result(timeout)
        except DeviceError:
            raise
        except PandaError as error:
            return error
        except TimeoutError:  # it began before the requests after it, so it has had its time
            self.cancel()
            return ClipError(f"the video decoder does not finish reading {self.path}")

    def cancel(self) -> None:
        """Do not begin to read it, or kill the process that reads it; `wait` gives a ClipError."""
        self.unwanted = True
        if self.reader is not None and not self.result.done():
            self.reader.kill()


class FramePrefetcher:
    """Reads frames, fitted to the model's square image, ahead of need; a context manager.

    Of `workers` processes there are half as many as CPU cores by default, and four at most. They
    read `ahead` clips, by default one each.
    """

    def __init__(
        self,
        num_frames: int,
        image_size: int,
        workers: int | None = None,
        ahead: int | None = None,
    ) -> None:
        self._queue: SimpleQueue[Request | None] = SimpleQueue()
        self._fitting = num_frames, image_size
        workers = workers or max(1, min(4, available_cores() // 2))
        self._ahead = ahead or workers
        self._readers = [Reader(self._queue) for _ in range(workers)]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        end_readers(self._readers, self._queue)

    def read(
        self, clips: Iterable[tuple[_Item, Clip | PandaError]]
    ) -> "Iterator[tuple[_Item, Frames | PandaError]]":
        """The frames of each clip in order, or its error, with the item that came with it.

        Clips are drawn ahead, too. Raises DeviceError where no worker process can be started.
        """
        window: deque[tuple[_Item, Request | PandaError]] = deque()
        for item, clip in clips:
            window.append((item, clip if isinstance(clip, PandaError) else self._submit(clip)))
            if len(window) > self._ahead:
                item, request = window.popleft()
                yield item, request if isinstance(request, PandaError) else request.wait()
        for item, request in window:
            yield item, request if isinstance(request, PandaError) else request.wait()

    def _submit(self, clip: Clip) -> Request:
        request = Request(clip.path, read_fitted, (clip, *self._fitting))
        self._queue.put(request)
        return request


class Reader(threading.Thread):
    """A thread with a worker process for one request after another; a dead one is replaced."""

    def __init__(self, queue: "SimpleQueue[Request | None]") -> None:
        super().__init__(name="panda frames", daemon=True)
        self._queue = queue
        self._process: WorkerProcess | None = None
        self._lock = threading.Lock()  # on self._process
        self.deaths = 0  # of processes, since the last result
        self.ended = False  # start no other process

    def run(self) -> None:
        try:
            while (request := self._queue.get()) is not None:
                request.reader = self
                request.begun.set()
                try:
                    request.result.set_result(self._read(request))
                except BaseException as error:
                    request.result.set_exception(error)
        finally:
            self._drop()

    def kill(self) -> None:
        """Kill the process; its clip fails, and the next clip gets another process."""
        with self._lock:
            if self._process is not None:
                self._process.process.kill()

    def _read(self, request: Request) -> Any:
        path, died = request.path, ProcessDiedError(None, started=True)
        for _ in range(_ATTEMPTS):
            try:
                with self._lock:
                    if request.unwanted or self.ended:
                        break
                    self._process = process = self._process or WorkerProcess()
                result = process.call(request.function, *request.arguments)
                self.deaths = 0
                return result
            except PandaError:
                self.deaths = 0
                raise
            except ProcessDiedError as error:
                died = error
                self.deaths += 1
                self._drop()
            except BaseException:  # the result of this call may still be in the pipe
                self._drop()
                raise
        if request.unwanted:
            raise ClipError(f"{path} was not read")
        if not died.started:
            message = "the processes that read videos end as soon as they are started"
            hint = "there may be too little memory, or a limit on processes (ulimit -u)"
            raise DeviceError(message, hint) from died
        if died.code in _KILLED:
            message = f"the process reading {path} was killed (out of memory?)"
            raise ClipError(message, "free some memory and run the same command again")
        raise ClipError(f"the video decoder crashed on {path}")

    def _drop(self) -> None:
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            process.close()


def end_readers(readers: "Sequence[Reader]", queue: "SimpleQueue[Request | None]") -> None:
    """End reader threads and kill their processes; requests in the queue are dropped."""
    with suppress(Empty):
        while True:
            if (request := queue.get_nowait()) is not None:
                request.result.set_exception(ClipError(f"{request.path} was not read"))
                request.begun.set()
    for reader in readers:
        queue.put(None)
        reader.ended = True
        reader.kill()
    deadline = monotonic() + _EXIT_TIMEOUT
    for reader in readers:
        reader.join(max(0.0, deadline - monotonic()))
