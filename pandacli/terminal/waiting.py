"""A line on what is waited for: the step, how much of it is done, its time, and that of last time.

loading video-panda-7b 2.1 of 7.2 GB, 3 s (last time 9 s)
reading the prompt 462 of 1,232 tokens, 17 s (last time 46 s)
"""

import sys
import time
from collections.abc import Callable
from threading import get_ident
from typing import TYPE_CHECKING

from pandacli.background import Step, current_step
from pandacli.terminal.text import cells, fit, sanitize_line
from pandacli.units import size
from pandacli.video.clip import format_time

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.measure import Measurement

_SOON = 2.0  # seconds after which the elapsed time is shown
_FEWEST = 12  # columns that words are cut to before the amount is dropped
_STEP = 30  # columns of a step behind other words


def waiting_line(
    words: str, seconds: float, step: Step | None, now: float, width: int = sys.maxsize
) -> str:
    """What is waited for, in one line of at most `width` columns.

    Args:
        words: What it is; those of a step take their place, or follow words that count.
        seconds: How long it has been going on.
        step: The slow step that is waited for now, if any.
        now: The time by the clock that steps begin by.
        width: Of what does not fit, the time of last time goes first, then the unit of the
            amount, the middle of the words, and the amount.
    """
    words = sanitize_line(words)
    counts = any(map(str.isdigit, words))  # such as "window 3 of 20"
    if step is not None and counts and words != sanitize_line(step.words):
        front = f"{words}: "
        if (room := width - cells(front)) >= _STEP:
            return front + waiting_line("", seconds, step, now, room)
        step = None
    amount = short = last = ""
    if step is not None:
        words, seconds = sanitize_line(step.words), now - step.began
        amount, short = _amounts(step)
        if step.last is not None:
            last = f" (last time {_seconds(step.last)})"
    elapsed = f", {_seconds(seconds)}" if seconds >= _SOON else ""
    if not (amount or elapsed or last):
        elapsed = "…"
    for numbers in (amount + elapsed + last, amount + elapsed, short + elapsed):
        if cells(words + numbers) <= width:
            return words + numbers
    numbers = short + elapsed
    if width < _FEWEST + cells(numbers):
        numbers = elapsed
    return _cut(words, max(width - cells(numbers), 0)) + numbers[:width]


def _cut(words: str, width: int) -> str:
    """Cut the middle out of words that are wider: a number may be at the end."""
    if cells(words) <= width:
        return words
    end = words[-max(width // 2 - 3, 1) :] if width > _FEWEST else ""
    while cells(end) > width // 2:
        end = end[1:]
    return fit(words, width - cells(end)) + end


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 59.5 else format_time(round(seconds))


def _amounts(step: Step) -> tuple[str, str]:
    """How much is done of how much, and the same with fewer words."""
    done, total = min(step.done, step.total), step.total
    if not total:
        return "", ""
    if step.unit != "bytes":
        amount = f" {done:,} of {total:,}"
        return f"{amount} {step.unit}", amount
    of = size(total)
    amount = f" {size(done).removesuffix(of[of.rindex(' ') :])} of {of}"
    return amount, amount


class Waiting:
    """What a thread waits for: the words said last, or its slow step; a Rich renderable.

    Displays read it from other threads; `clock` is monotonic.
    """

    def __init__(self, words: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        self.words, self._clock = words, clock
        self._since, self._thread = clock(), get_ident()

    def say(self, words: str) -> None:
        """Note what this thread waits for from now on."""
        self._thread = get_ident()
        if words != self.words:
            self.words, self._since = words, self._clock()

    def line(self, width: int = sys.maxsize) -> str:
        """The line of now; see `waiting_line`."""
        now = self._clock()
        return waiting_line(self.words, now - self._since, current_step(self._thread), now, width)

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        from rich.text import Text

        yield Text(self.line(options.max_width), style="dim", no_wrap=True)

    def __rich_measure__(self, console: "Console", options: "ConsoleOptions") -> "Measurement":
        from rich.measure import Measurement

        columns = cells(self.line(options.max_width))
        return Measurement(columns, columns)
