"""Work in a background thread, and the progress of slow steps in any thread."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from time import monotonic
from typing import Generic, TypeVar

_Result = TypeVar("_Result")

_THREAD = "panda background"

Say = Callable[[str], None]  # reports progress, in a few words


@dataclass(eq=False)
class Step:
    """Progress of work that one thread does; displays read it from others."""

    words: str  # such as "loading tiny"
    total: int  # of its unit; 0 if unknown
    unit: str  # such as "tokens"; "bytes" are shown as kB, MB or GB
    find_last: Callable[[], float | None] = lambda: None  # finds `last`
    done: int = 0
    began: float = field(default_factory=monotonic)

    @cached_property
    def last(self) -> float | None:
        """The seconds that as much took last time; None if unknown."""
        return self.find_last()

    def advance(self, amount: int) -> None:
        self.done += amount

    def reach(self, part: int, parts: int) -> None:
        """Note that `part` of as many equal parts are done."""
        self.done = self.total * part // parts


_steps: dict[int, list[Step]] = {}  # of each thread, nested
_awaited: dict[int, int] = {}  # the thread that a thread waits for


@contextmanager
def running(step: Step) -> Iterator[Step]:
    """Make a step the current one of this thread for the block."""
    thread = threading.get_ident()
    nested = _steps.setdefault(thread, [])
    nested.append(step)
    try:
        yield step
    finally:
        nested.remove(step)
        if not nested:
            del _steps[thread]


def current_step(thread: int | None = None) -> Step | None:
    """The step of a thread, by default this one, or of the background work that it waits for."""
    found: int | None = threading.get_ident() if thread is None else thread
    while found is not None:
        if nested := _steps.get(found, [])[-1:]:
            return nested[0]
        found = _awaited.get(found)
    return None


def is_running() -> bool:
    return any(thread.name == _THREAD for thread in threading.enumerate())


class Background(Generic[_Result]):
    """A result that `work` computes in a daemon thread, which starts now."""

    def __init__(
        self,
        work: Callable[[Say], _Result],
        changed: Callable[[], None] = lambda: None,  # called in the thread at reports and the end
    ) -> None:
        self.doing = ""  # the last report
        self.error: BaseException | None = None
        self._result: _Result
        self._ended = threading.Event()
        self._changed = changed
        self.began = monotonic()
        self._thread = threading.Thread(target=self._run, args=[work], name=_THREAD, daemon=True)
        self._thread.start()

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for the end, at most `seconds`; whether the work has ended."""
        waiting = threading.get_ident()
        _awaited[waiting] = self._thread.ident or 0
        try:
            return self._ended.wait(seconds)
        finally:
            _awaited.pop(waiting, None)

    @property
    def step(self) -> Step | None:
        """The slow step that it does, or waits for."""
        return None if self.ended else current_step(self._thread.ident or 0)

    def result(self) -> _Result:
        """Wait for the result; raises what `work` raised."""
        self.wait()
        if self.error is not None:
            raise self.error
        return self._result

    def _run(self, work: Callable[[Say], _Result]) -> None:
        try:
            self._result = work(self._say)
        except BaseException as error:  # raised again by result()
            self.error = error
        finally:
            self._ended.set()
            self._changed()

    def _say(self, words: str) -> None:
        self.doing = words
        self._changed()
