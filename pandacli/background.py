"""Work that goes on meanwhile, in a thread of its own."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

_Result = TypeVar("_Result")

BACKGROUND = "panda background"
"""The name of its threads."""

Say = Callable[[str], None]
"""Tells what is being done, in a few words."""


def goes_on() -> bool:
    """Whether one of them is at work."""
    return any(thread.name == BACKGROUND for thread in threading.enumerate())


class Background(Generic[_Result]):
    """Something that is computed in a thread, beginning now.

    The thread ends with the program, wherever it is.

    Args:
        work: Computes it; is given what to tell with what it does.
        changed: Called, in the thread, when there are other words to tell, and at the end.

    Attributes:
        doing: What it does right now, in a few words.
        error: What it failed with, if it has.
    """

    def __init__(
        self, work: Callable[[Say], _Result], changed: Callable[[], None] = lambda: None
    ) -> None:
        self.doing = ""
        self.error: BaseException | None = None
        self._result: _Result | None = None
        self._ended = threading.Event()
        self._changed = changed
        threading.Thread(target=self._run, args=[work], name=BACKGROUND, daemon=True).start()

    @property
    def ended(self) -> bool:
        """Whether it is computed, or has failed."""
        return self._ended.is_set()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for the end, at most so long; whether it has come."""
        return self._ended.wait(seconds)

    def result(self) -> _Result:
        """What was computed; waits for it.

        Raises:
            PandaError: And whatever else `work` raised.
        """
        self._ended.wait()
        if self.error is not None:
            raise self.error
        return self._result  # type: ignore[return-value]  # without an error it is there

    def _run(self, work: Callable[[Say], _Result]) -> None:
        try:
            self._result = work(self._say)
        except BaseException as error:  # raised again by result(), where somebody hears it
            self.error = error
        finally:
            self._ended.set()
            self._changed()

    def _say(self, words: str) -> None:
        self.doing = words
        self._changed()
