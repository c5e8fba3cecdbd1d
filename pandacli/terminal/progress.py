"""Progress on stderr: bars of downloads and conversions, throughput and live view of a batch."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Lock
from typing import TYPE_CHECKING, Self

from rich import progress as rich_progress
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Column, Table
from rich.text import Text

from pandacli.terminal.console import Screen, spinner
from pandacli.terminal.text import sanitize_line
from pandacli.terminal.waiting import Waiting
from pandacli.units import size
from pandacli.video.clip import format_time

if TYPE_CHECKING:
    from pandacli.batch.check import Counts
    from pandacli.batch.results import Counters, Outcome

STOPPING = "finishing the answers in flight; Ctrl-C again stops at once"
_QUANTISING = "quantising"
_WINDOW = 30.0  # seconds that throughput is measured over; the model may have loaded for minutes
_MIN_BATCHES = 4  # kept however old they are: one batch may take longer than the window
_MERGE = 0.5  # seconds that count as one batch, so that few need to be kept
_STALLED = 2.0  # seconds without a result after which the current step is shown
_MAX_MESSAGE = 300  # characters
_FPS = 4
_MAX_BAR = 80  # columns
_MARK = 2  # columns of a spinner and the space behind it
_ECHO = 4  # columns on the right kept free: the terminal echoes ^C at the cursor
_MAX_TEXT = 1000  # characters: more than any line shows


class Bars:
    """A bar per file of a download or conversion; lines elsewhere than on a terminal."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._tasks: dict[str, rich_progress.TaskID] = {}
        name = Column(no_wrap=True, overflow="ellipsis")
        self._progress = rich_progress.Progress(
            rich_progress.TextColumn("{task.description}", markup=False, table_column=name),
            rich_progress.BarColumn(None, table_column=Column(ratio=1, min_width=8)),
            _Amount(),
            _Speed(table_column=Column(no_wrap=True, min_width=17)),
            console=screen.err,
            expand=True,
            disable=not screen.animates,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def downloading(self, name: str, total: int, done: int) -> Callable[[int], None]:
        """Start a file of `total` bytes, `done` of which are here already."""
        if self._progress.disable:
            resumed = f", resuming after {size(done)}" if done else ""
            self._screen.notice(f"downloading {name}, {size(total)}{resumed}")
        return self._start(name, "", total, done)

    def checking(self, name: str, total: int) -> Callable[[int], None]:
        """Start to verify the digest of a file of `total` bytes."""
        return self._start(name, "check", total)

    def replacing(self, name: str) -> None:
        """Report a file whose digest is wrong."""
        self._screen.notice(f"{name} is damaged here; it is downloaded again")

    def converting(self, done: int, total: int) -> None:
        """Report a conversion after `done` of `total` steps."""
        if not self._tasks:
            if self._progress.disable:
                self._screen.notice("quantising; this is done once")
            self._start(_QUANTISING, _QUANTISING, total)
        self._progress.update(self._tasks[_QUANTISING], completed=done, total=total)

    def _start(self, name: str, doing: str, total: int, done: int = 0) -> Callable[[int], None]:
        progress = self._progress
        if name not in self._tasks:
            self._tasks[name] = progress.add_task(sanitize_line(name), total=total, doing=doing)
        task = self._tasks[name]
        progress.reset(task, total=total, completed=done, doing=doing)
        return lambda more: progress.advance(task, more)


class _Amount(rich_progress.DownloadColumn):
    def render(self, task: rich_progress.Task) -> Text:
        if task.fields["doing"] == _QUANTISING:
            return Text(f"{int(task.percentage)} %", style="progress.download")
        return super().render(task)


class _Speed(rich_progress.ProgressColumn):
    def render(self, task: rich_progress.Task) -> Text:
        doing = task.fields["doing"]
        if doing == "check":
            return Text("checked" if task.finished else "checking")
        if task.finished or task.speed is None or task.time_remaining is None:
            return Text("")
        speed = "" if doing == _QUANTISING else f"{size(task.speed)}/s "
        return Text(speed + format_time(int(task.time_remaining)))


class Throughput:
    """Results per second of the last half minute, which come in batches; clocks are monotonic."""

    def __init__(self) -> None:
        self._batches: dict[float, int] = {}  # number of results by the time of the first one
        self._longest_gap = 0.0

    def add(self, now: float) -> None:
        last = next(reversed(self._batches), now)
        if self._batches and now - last < _MERGE:
            self._batches[last] += 1
            return
        self._longest_gap = max(self._longest_gap, now - last)
        self._batches[now] = 1
        while len(self._batches) > _MIN_BATCHES and min(self._batches) < now - _WINDOW:
            del self._batches[min(self._batches)]

    def per_second(self, now: float) -> float | None:
        """Return the rate; None before the second batch."""
        if len(self._batches) < 2:
            return None
        began, *_, last = self._batches
        # a gap no longer than an earlier one is normal; a longer one lowers the rate
        until = max(last, now - self._longest_gap)
        return (sum(self._batches.values()) - self._batches[began]) / (until - began)


class BatchProgress:
    """Snapshot of a run, written by one thread and read by another; `clock` is monotonic."""

    def __init__(self, counters: "Counters", clock: Callable[[], float]) -> None:
        self.counters, self.clock = counters, clock
        self.latest: Outcome | None = None  # the last answered question
        self.failure: Outcome | None = None  # the last failed one
        self.stopping = False  # whether the user asked the run to stop
        self.waiting = Waiting(clock=clock)  # for a step, such as "loading video-panda-7b"
        self._updated = clock()
        self._lock = Lock()
        self._answers, self._records = Throughput(), Throughput()

    def update(self, outcome: "Outcome") -> None:
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

    def forecast(self) -> list[str]:
        """Return recent answers per second and the estimated time left, where known."""
        left, now = self.counters.left, self.clock()
        with self._lock:
            answers, records = self._answers.per_second(now), self._records.per_second(now)
        words = [per_second(answers)] if answers else []
        if records:
            words.append(f"{format_time(round(left / records))} left")
        return words if left > 0 else []

    def line(self) -> str:
        """Return the progress in one line; "" if nothing is known."""
        counters = self.counters
        step = self.waiting.line().removesuffix("…") if self.waiting.words else ""
        if not counters.records:
            return STOPPING if self.stopping else step
        words = [f"{counters.earlier + counters.answered} of {counters.records} answered"]
        if counters.failed:
            reason = self.failure and counters.left > 0 and shorten(self.failure.error or "")
            words.append(f"{counters.failed} failed" + (f" ({reason})" if reason else ""))
        words += self.forecast()
        stalled = self.latest is None or self.clock() - self._updated > _STALLED
        if stalled and step and not self.stopping and counters.left > 0:
            words.append(step)
        return ", ".join(words)


def per_second(rate: float, unit: str = "") -> str:
    """Return a rate as "4.2/s", "0.042/s" or "1240 answers/s"."""
    digits = 0 if rate >= 100 else 1 if rate >= 1 else 3
    return f"{rate:.{digits}f}{' ' * bool(unit)}{unit}/s"


def shorten(message: str) -> str:
    """Return a message, or the beginning of a very long one, which may quote a line of a file."""
    return message if len(message) <= _MAX_MESSAGE else message[: _MAX_MESSAGE - 1] + "…"


@contextmanager
def live_view(screen: Screen, panel: RenderableType) -> Iterator[None]:
    """Draw a panel on stderr for the block, and leave nothing behind."""
    live = Live(
        panel,
        console=screen.err,
        refresh_per_second=_FPS,
        transient=True,
        redirect_stdout=False,  # stdout may be a file
        vertical_overflow="crop",
    )
    try:
        live.start(refresh=True)
        yield
    finally:
        with suppress(OSError):  # the terminal may be gone
            try:
                live.stop()
            finally:  # a signal in the middle of the start must not hide the cursor for good
                screen.err.show_cursor(True)


class BatchPanel:
    """Rich renderable of a `BatchProgress`: step, bar, counts, the last question and answer."""

    def __init__(self, progress: BatchProgress) -> None:
        self._progress = progress
        self._spinner = Spinner(spinner(sys.stderr), style="dim")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        progress, width = self._progress, max(1, options.max_width - _ECHO)
        if progress.stopping:  # must be readable in full
            yield _row(self._spinner, Text(STOPPING, style="bold"), width, crop=False)
        else:
            named = progress.waiting.words
            step = progress.waiting if named else Text("answering…", style="dim")
            yield _row(self._spinner, step, width)
        if total := progress.counters.records:
            yield _bar(total - max(0, progress.counters.left), total, width)
            yield from self._counts(width)
        texts: dict[str, str] = {}
        if latest := progress.latest:
            texts |= {"Q": latest.question, "A": latest.answer or ""}
        if failure := progress.failure:
            texts["!"] = f"line {failure.line}: {failure.error}"
        for mark, text in texts.items():
            shown = sanitize_line(" ".join(text[:_MAX_TEXT].split()))
            yield _row(Text(mark, style="dim"), Text(shown), width)

    def _counts(self, width: int) -> Iterator[Text]:
        """Yield the counts in as few lines as possible, none of them broken."""
        counters = self._progress.counters
        parts = [Text(words) for words in self._progress.forecast()]
        if counters.failed:
            parts.insert(0, Text(f"{counters.failed} failed", style="red"))
        if counters.clips:
            parts.insert(0, Text(f"clips {counters.clips_done}/{counters.clips}"))
        line = Text()
        for part in parts:
            if line and line.cell_len + 2 + part.cell_len > width:
                yield line
                line = Text()
            line = Text.assemble(line, ", ", part) if line else part
        if line:
            yield line


class RunProgress:
    """Rich renderable of a run over clips or windows: its step, a bar and the time left."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.waiting = Waiting("reading frames", clock)
        self.share = 0.0  # of the run that is done
        self.total = 0  # clips or windows; 0 until it is known
        self._clock, self._began = clock, clock()
        self._spinner = Spinner(spinner(sys.stderr), style="dim")

    def begin(self) -> None:
        """Measure the time left from now on."""
        self._began = self._clock()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, left = max(1, options.max_width - _ECHO), ""
        if self.share:
            seconds = (self._clock() - self._began) * (1 - self.share) / self.share
            left = f" {format_time(round(seconds))} left"
        words = self.waiting.line(max(1, width - _MARK - len(left)))
        yield _row(self._spinner, Text(words + left, style="dim"), width)
        if self.total:
            yield _bar(int(self.share * self.total + 1e-6), self.total, width)


class CheckProgress:
    """Rich renderable of a check, and its progress in one line for a log."""

    stopping = False

    def __init__(self, counts: "Counts", clock: Callable[[], float]) -> None:
        self._counts, self.clock = counts, clock
        self._spinner = Spinner(spinner(sys.stderr), style="dim")

    def line(self) -> str:
        """Return the progress in one line; "" once all clips are checked."""
        counts = self._counts
        if counts.checked == counts.clips:
            return ""
        failed = f", {counts.bad_clips} cannot be used" if counts.bad_clips else ""
        return f"{counts.checked} of {counts.clips} clips are checked{failed}"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        counts, width = self._counts, max(1, options.max_width - _ECHO)
        yield _row(self._spinner, Text("checking the clips…", style="dim"), width)
        yield _bar(counts.checked, max(1, counts.clips), width)
        if counts.bad_clips:
            yield Text(f"{counts.bad_clips} cannot be used", style="red")


def _bar(done: int, total: int, width: int) -> Table:
    bar = ProgressBar(
        total, done, style="bright_black", complete_style="green", finished_style="green"
    )
    grid = Table.grid(Column(ratio=1), Column(no_wrap=True), padding=(0, 1), expand=True)
    grid.width = min(width, _MAX_BAR)
    grid.add_row(bar, f"{done}/{total} {100 * done // total:>3}%")
    return grid


def _row(mark: RenderableType, text: RenderableType, width: int, *, crop: bool = True) -> Table:
    content = Column(no_wrap=crop, overflow="ellipsis", ratio=1)
    grid = Table.grid(Column(width=1), content, padding=(0, 1))
    grid.width = width
    grid.add_row(mark, text)
    return grid
