"""Live view of a batch on a terminal: current step, progress bar, counts and the latest answer."""

import sys
from collections.abc import Iterator
from contextlib import suppress

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from pandacli.terminal.batch_progress import BatchProgress, per_second
from pandacli.terminal.console import Screen, spinner
from pandacli.terminal.text import sanitize_line

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
