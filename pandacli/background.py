"""Work in a background thread."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

_Result = TypeVar("_Result")

_THREAD = "panda background"

Say = Callable[[str], None]  # reports progress, in a few words


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
        threading.Thread(target=self._run, args=[work], name=_THREAD, daemon=True).start()

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for the end, at most `seconds`; whether the work has ended."""
        return self._ended.wait(seconds)

    def result(self) -> _Result:
        """Wait for the result; raises what `work` raised."""
        self._ended.wait()
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
