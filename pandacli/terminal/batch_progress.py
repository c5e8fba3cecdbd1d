"""Progress of a batch: throughput, time left, a thread-safe snapshot, and its live view."""

import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from pandacli.batch.results import Counters, Outcome
from pandacli.terminal.console import Screen, spinner
from pandacli.terminal.text import sanitize_line
from pandacli.video.clip import format_time

STOPPING = "finishing the answers in flight; Ctrl-C again stops at once"

_WINDOW = 30.0  # seconds that throughput is measured over
_MIN_EVENTS = 4  # kept however old they are: one batch may take longer than the window
_MERGE = 0.5  # seconds that count as one event, so that few need to be kept
_STALLED = 2.0  # seconds without a result after which the current step is shown
_MAX_MESSAGE = 300  # characters: a message may quote a whole line of a file


@dataclass
class _Event:
    first: float
    last: float
    count: int


class Throughput:
    """Results per second over the last half minute.

    Only recent results count, as the model may have been loading for minutes. Results come in
    batches, so the rate is measured from one batch to another.
    """

    def __init__(self) -> None:
        self._events: deque[_Event] = deque()
        self._longest_gap = 0.0

    def add(self, now: float) -> None:
        """Count one result at `now` seconds of a monotonic clock."""
        events = self._events
        if events and now - events[-1].first < _MERGE:
            events[-1].last = now
            events[-1].count += 1
            return
        if events:
            self._longest_gap = max(self._longest_gap, now - events[-1].last)
        events.append(_Event(now, now, 1))
        while len(events) > _MIN_EVENTS and events[0].last < now - _WINDOW:
            events.popleft()

    def per_second(self, now: float) -> float | None:
        """Return the rate; None before the second batch."""
        events = list(self._events)
        if len(events) < 2:
            return None
        began = events[0].last
        # a gap no longer than an earlier one is normal; a longer one lowers the rate
        until = max(events[-1].last, now - self._longest_gap)
        return sum(event.count for event in events[1:]) / (until - began)


class BatchProgress:
    """Snapshot of a run, written by one thread and read by another.

    Args:
        counters: Of the run, as it goes on.
        clock: Monotonic, in seconds.

    Attributes:
        latest: The last answered question.
        failure: The last failed one.
        stopping: Whether the user asked the run to stop.
    """

    def __init__(self, counters: Counters, clock: Callable[[], float]) -> None:
        self.counters = counters
        self.clock = clock
        self.latest: Outcome | None = None
        self.failure: Outcome | None = None
        self.stopping = False
        self._step = ""
        self._updated = clock()
        self._lock = Lock()
        self._answers = Throughput()
        self._records = Throughput()

    def update(self, outcome: Outcome) -> None:
        """Note that a record is done."""
        now = self._updated = self.clock()
        with self._lock:
            if outcome.error is None:
                self.latest = outcome
                self._answers.add(now)
            else:
                self.failure = outcome
            # invalid lines found before the first answer take no time and would skew the rate
            if self.latest:
                self._records.add(now)

    def set_step(self, words: str) -> None:
        """Note what the run does now, such as "loading video-panda-7b"."""
        self._step = words

    @property
    def step(self) -> str:
        """What the run does now; "" if unknown."""
        return STOPPING if self.stopping else self._step

    @property
    def is_stalled(self) -> bool:
        """Whether no result has come for some seconds, or at all."""
        return self.latest is None or self.clock() - self._updated > _STALLED

    @property
    def done(self) -> int:
        """How many records are answered or failed."""
        return self.counters.records - max(0, self.counters.left)

    @property
    def answers_per_second(self) -> float | None:
        """Recent throughput of answers; None if unknown."""
        with self._lock:
            return self._answers.per_second(self.clock())

    @property
    def time_left(self) -> str | None:
        """Estimated time left, as "1:05" or "2:03:04"; None if unknown."""
        with self._lock:
            rate = self._records.per_second(self.clock())
        left = self.counters.left
        return format_time(round(left / rate)) if rate and left > 0 else None

    def line(self) -> str:
        """Return the progress in one line; "" if nothing is known."""
        counters, step = self.counters, self.step
        words = []
        if counters.records:
            words.append(f"{counters.earlier + counters.answered} of {counters.records} answered")
        if counters.failed:
            reason = self.failure and counters.left > 0 and shorten(self.failure.error or "")
            words.append(f"{counters.failed} failed" + (f" ({reason})" if reason else ""))
        if counters.left > 0:
            if rate := self.answers_per_second:
                words.append(per_second(rate))
            if left := self.time_left:
                words.append(f"about {left} left")
            if self.is_stalled and step and not self.stopping:
                words.append(step)
        elif not counters.records and step:
            words.append(step)
        return ", ".join(words)


def per_second(rate: float, unit: str = "") -> str:
    """Return a rate as "4.2/s", "0.042/s" or "1240 answers/s"."""
    digits = 0 if rate >= 100 else 1 if rate >= 1 else 3
    return f"{rate:.{digits}f}{' ' * bool(unit)}{unit}/s"


def shorten(message: str) -> str:
    """Return a message, or the beginning of a very long one."""
    return message if len(message) <= _MAX_MESSAGE else message[: _MAX_MESSAGE - 1] + "…"


_FPS = 4
_MAX_BAR = 80  # columns
_ECHO = 4  # columns on the right kept free: the terminal echoes ^C at the cursor
_MAX_TEXT = 1000  # characters: more than any line shows


class LiveView:
    """Draws on stderr until it is stopped, and leaves nothing behind."""

    def __init__(self, screen: Screen, progress: BatchProgress) -> None:
        self._console = screen.err
        panel = ProgressPanel(progress)
        self._live = Live(
            console=screen.err,
            get_renderable=lambda: panel,
            refresh_per_second=_FPS,
            transient=True,
            redirect_stdout=False,  # stdout may be a file
            vertical_overflow="crop",
        )

    def start(self) -> None:
        """Start to draw."""
        try:
            self._live.start(refresh=True)
        except BaseException:  # a signal in the middle must not hide the cursor for good
            self.stop()
            raise

    def stop(self) -> None:
        """Erase the view and show the cursor again."""
        with suppress(OSError):  # the terminal may be gone
            try:
                self._live.stop()
            finally:
                self._console.show_cursor(True)


class ProgressPanel:
    """Rich renderable of a `BatchProgress`."""

    def __init__(self, progress: BatchProgress) -> None:
        self._progress = progress
        self._spinner = Spinner(spinner(sys.stderr), style="dim")

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        width = max(1, options.max_width - _ECHO)
        yield self._step(width)
        if self._progress.counters.records:
            yield self._bar(min(width, _MAX_BAR))
            yield from _flow(self._counts(), width)
        if latest := self._progress.latest:
            yield _cropped("Q", latest.question, width)
            yield _cropped("A", latest.answer or "", width)
        if failure := self._progress.failure:
            yield _cropped("!", f"line {failure.line}: {failure.error}", width)

    def _step(self, width: int) -> Table:
        words = sanitize_line(self._progress.step or "answering")
        if self._progress.stopping:  # must be readable in full
            return _row(self._spinner, Text(words, style="bold"), width, crop=False)
        return _row(self._spinner, Text(f"{words}…", style="dim"), width)

    def _bar(self, width: int) -> Table:
        done, total = self._progress.done, self._progress.counters.records
        grid = Table.grid(padding=(0, 1), expand=True)
        grid.width = width
        grid.add_column(ratio=1)
        grid.add_column(no_wrap=True, justify="right")
        bar = ProgressBar(
            total, done, style="bright_black", complete_style="green", finished_style="green"
        )
        grid.add_row(bar, f"{done}/{total} {100 * done // total:>3}%")
        return grid

    def _counts(self) -> Iterator[Text]:
        counters = self._progress.counters
        if counters.clips:
            yield Text(f"clips {counters.clips_done}/{counters.clips}")
        if counters.failed:
            yield Text(f"{counters.failed} failed", style="red")
        if counters.left > 0:
            if rate := self._progress.answers_per_second:
                yield Text(per_second(rate))
            if left := self._progress.time_left:
                yield Text(f"{left} left")


def _flow(parts: Iterator[Text], width: int) -> Iterator[Text]:
    """Yield the parts in as few lines as possible, none of them broken."""
    line = Text()
    for part in parts:
        if line and cell_len(line.plain) + 2 + cell_len(part.plain) > width:
            yield line
            line = Text()
        line = Text.assemble(line, ", ", part) if line else part
    if line:
        yield line


def _cropped(mark: str, text: str, width: int) -> Table:
    shown = sanitize_line(" ".join(text[:_MAX_TEXT].split()))
    return _row(Text(mark, style="dim"), Text(shown), width)


def _row(mark: RenderableType, text: Text, width: int, *, crop: bool = True) -> Table:
    grid = Table.grid(padding=(0, 1))
    grid.width = width
    grid.add_column(width=1)
    grid.add_column(no_wrap=crop, overflow="ellipsis", ratio=1)
    grid.add_row(mark, text)
    return grid
