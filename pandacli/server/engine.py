"""The engine of the server: a thread that runs the model for all clips that are asked about.

Requests about one clip run in one batch behind its prefix, which stays in memory afterwards, within
a budget. Clips take turns of one forward pass, so that a long answer about one does not hold up the
others. All of torch is on this thread; results are delivered to callbacks. Work of another kind,
such as a search, has a thread of its own; it uses the model step by step, in turn with the clips.
"""

import gc
import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from pandacli.errors import PandaError
from pandacli.inference.spec import Request, ScoreRequest
from pandacli.server.clips import ClipKey, Deliver, OpenClip, Ticket

if TYPE_CHECKING:
    from pandacli.inference.panda import Panda
    from pandacli.inference.session import VideoSession
    from pandacli.video import Frames

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_END_SECONDS = 1.0  # that the end of the thread is waited for


class BusyError(PandaError):
    """Too many requests are waiting."""


class StoppedError(PandaError):
    """The engine was closed before the request was answered."""


class Engine:
    """Answers requests about clips; a context manager. Its methods may be called on any thread."""

    def __init__(
        self,
        load: Callable[[], "Panda"],
        *,
        budget: int = 1 << 30,  # bytes of the prefixes that are kept
        most_requests: int = 256,  # waiting and running
        keep_alive: float | None = None,  # seconds without a request until the weights are freed
        preload: bool = False,  # load the model at once, not with the first request
    ) -> None:
        self._load, self._budget, self._most = load, budget, most_requests
        self._keep_alive, self._preload = keep_alive, preload
        self._panda: Panda | None = None
        self._clips: OrderedDict[ClipKey, OpenClip] = OrderedDict()  # the latest asked last
        self._work: deque[tuple[Callable[[Panda], Any], Future[Any]]] = deque()
        self._places = 0  # that are taken
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="panda engine", daemon=True)

    def __enter__(self) -> "Engine":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the thread after its pass; what was not answered gets a `StoppedError`.

        A pass or a load that takes longer ends with the process.
        """
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(_END_SECONDS)

    @property
    def panda(self) -> "Panda | None":
        """The model, while it is loaded."""
        return self._panda

    @property
    def requests(self) -> int:
        """How many requests have a place."""
        return self._places

    @property
    def clips(self) -> int:
        """How many clips are kept in memory."""
        return len(self._clips)

    def frames(self, key: ClipKey) -> "Frames | None":
        """The frames of a clip that is kept; others have to be read before `submit`."""
        with self._changed:
            clip = self._clips.get(key)
            return clip.frames if clip else None

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place among the requests, from before frames are read until the last result.

        While one is taken, the model stays loaded.

        Raises:
            BusyError: All are taken.
            StoppedError: The engine is closed.
        """
        with self._changed:
            self._check_open()
            if self._places >= self._most:
                raise BusyError(f"{self._most} requests are waiting", "try again later")
            self._places += 1
        try:
            yield
        finally:
            with self._changed:
                self._places -= 1
                self._changed.notify()

    def submit(
        self, key: ClipKey, frames: "Frames", request: Request | ScoreRequest, deliver: Deliver
    ) -> Ticket:
        """Queue a request that has a place; its results are delivered on another thread.

        The last one is always delivered. A StoppedError if the engine is closed.
        """
        ticket = Ticket(request, deliver)
        with self._changed:
            self._check_open()
            self._keep(key, frames).waiting.append(ticket)
            self._changed.notify()
        return ticket

    def submit_all(
        self,
        key: ClipKey,
        frames: "Frames",
        requests: "Sequence[tuple[Request | ScoreRequest, Deliver]]",
    ) -> list[Ticket]:
        """Queue requests that begin together; see `submit`."""
        with self._changed:
            return [self.submit(key, frames, request, deliver) for request, deliver in requests]

    def _keep(self, key: ClipKey, frames: "Frames") -> OpenClip:
        with self._changed:
            clip = self._clips.setdefault(key, OpenClip(key, frames))
            self._clips.move_to_end(key)
            return clip

    def run_on(self, key: ClipKey, frames: "Frames", work: "Callable[[VideoSession], _T]") -> _T:
        """As `run`, on the session of a clip; it may not generate or score."""
        return self.run(lambda panda: work(self._keep(key, frames).open(panda)))

    @contextmanager
    def hold(self) -> "Iterator[Panda]":
        """The model, which is to be used in `run` only; takes a `place`, and raises as it does."""
        with self.place():
            yield self.run(lambda panda: panda)

    def run(self, work: "Callable[[Panda], _T]") -> _T:
        """Run a function on the engine's thread, between forward passes, and wait for its result.

        What it raises is raised here; a StoppedError if the engine is closed.
        """
        result: Future[_T] = Future()
        with self._changed:
            self._check_open()
            self._work.append((work, result))
            self._changed.notify()
        return result.result()

    def _check_open(self) -> None:
        if self._closing:
            raise StoppedError("the server is stopping")

    def _run(self) -> None:
        try:
            if self._preload:
                with suppress(Exception):  # each request reports it
                    self._loaded()
            while (busy := self._next_busy()) is not None:
                for clip in busy:
                    self._step(clip)
                self._work_once()
                self._evict()
        finally:  # also after a fault here, or requests would wait for ever
            with self._changed:
                self._closing = True
                for clip in self._clips.values():
                    clip.fail(StoppedError("the server is stopping"))
                for _, result in self._work:
                    result.set_exception(StoppedError("the server is stopping"))
            self._release()

    def _next_busy(self) -> list[OpenClip] | None:
        """Clips with something to do, once there are any or work; None if the engine is closed."""
        idle_since = monotonic()
        while True:
            with self._changed:
                if self._closing:
                    return None
                busy = [clip for clip in self._clips.values() if not clip.is_idle]
                if busy or self._work:
                    return busy
                left = None
                if self._places:
                    idle_since = monotonic()
                elif self._keep_alive is not None and self._panda is not None:
                    left = self._keep_alive - (monotonic() - idle_since)
                if left is None or left > 0:
                    self._changed.wait(left)
                    continue
            self._release()
            gc.collect()  # without the lock: it takes a while

    def _loaded(self) -> "Panda":
        if self._panda is None:
            self._panda = self._load()
        return self._panda

    def _work_once(self) -> None:
        with self._changed:
            if not self._work:
                return
            work, result = self._work.popleft()
        try:
            result.set_result(work(self._loaded()))
        except Exception as error:
            result.set_exception(error)

    def _step(self, clip: OpenClip) -> None:
        try:
            clip.step(self._loaded())
        except PandaError as error:
            self._fail(clip, error)
        except Exception:
            _log.exception("a request failed")
            self._fail(clip, PandaError("the server failed to answer; its log says why"))

    def _fail(self, clip: OpenClip, error: PandaError) -> None:
        with self._changed:
            self._clips.pop(clip.key, None)  # a new session for the next request
        clip.fail(error)

    def _evict(self) -> None:
        """Drop the clips that were not asked about for longest, down to the budget."""
        with self._changed:
            clips = [*self._clips.values()]
        sizes = [clip.held_bytes for clip in clips]
        held = sum(sizes)
        for clip, taken in zip(clips, sizes, strict=True):
            if held <= self._budget:
                return
            with self._changed:
                if clip.is_idle:
                    held -= taken
                    del self._clips[clip.key]

    def _release(self) -> None:
        """Free the weights, and all clips that nothing is asked about."""
        with self._changed:
            for clip in [*self._clips.values()]:
                clip.session = None
                if clip.is_idle:
                    del self._clips[clip.key]
            self._panda = None
