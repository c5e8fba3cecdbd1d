"""How far a run is, as a picture on a terminal that is drawn anew a few times a second."""

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

from pandacli.terminal.batch_progress import Moment, per_second
from pandacli.terminal.console import Screen, spinner
from pandacli.terminal.text import sanitize_line

_PER_SECOND = 4
_WIDEST_BAR = 80
_ECHO = 4  # columns on the right that are left to the terminal, which writes ^C at the cursor
_FAR_OFF = 1000  # characters: more than any line shows


class MovingPicture:
    """Draws on stderr until it is stopped, and leaves nothing behind.

    Args:
        screen: Where it is drawn.
        moment: How far the run is.
    """

    def __init__(self, screen: Screen, moment: Moment) -> None:
        self._console = screen.err
        picture = Picture(moment)
        self._live = Live(
            console=screen.err,
            get_renderable=lambda: picture,
            refresh_per_second=_PER_SECOND,
            transient=True,
            redirect_stdout=False,  # what is written there may go to a file
            vertical_overflow="crop",
        )

    def start(self) -> None:
        """Begins to draw."""
        try:
            self._live.start(refresh=True)
        except BaseException:  # a signal in the middle must not keep the cursor
            self.stop()
            raise

    def stop(self) -> None:
        """Wipes the picture and gives the cursor back."""
        with suppress(OSError):  # there may be no terminal any more
            try:
                self._live.stop()
            finally:
                self._console.show_cursor(True)


class Picture:
    """What is drawn: what is under way, the bar, the counts, and the latest answer.

    Args:
        moment: How far the run is.
    """

    def __init__(self, moment: Moment) -> None:
        self._moment = moment
        self._spinner = Spinner(spinner(sys.stderr), style="dim")

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        width = max(1, options.max_width - _ECHO)
        yield self._doing(width)
        if self._moment.counters.records:
            yield self._bar(min(width, _WIDEST_BAR))
            yield from _filled(self._counts(), width)
        if latest := self._moment.latest:
            yield _quoted("Q", latest.question, width)
            yield _quoted("A", latest.answer or "", width)
        if failure := self._moment.failure:
            yield _quoted("!", f"line {failure.line}: {failure.error}", width)

    def _doing(self, width: int) -> Table:
        words = sanitize_line(self._moment.doing or "answering")
        if self._moment.stopping:  # to be read to its end, on however many lines
            return _row(self._spinner, Text(words, style="bold"), width, cut=False)
        return _row(self._spinner, Text(f"{words}…", style="dim"), width)

    def _bar(self, width: int) -> Table:
        done, total = self._moment.dealt_with, self._moment.counters.records
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
        counters = self._moment.counters
        if counters.clips:
            yield Text(f"clips {counters.clips_done}/{counters.clips}")
        if counters.failed:
            yield Text(f"{counters.failed} failed", style="red")
        if counters.left > 0:
            if pace := self._moment.answers_per_second:
                yield Text(per_second(pace))
            if left := self._moment.time_left:
                yield Text(f"{left} left")


def _filled(parts: Iterator[Text], width: int) -> Iterator[Text]:
    """The parts in as few lines as hold them; none of them is broken."""
    line = Text()
    for part in parts:
        if line and cell_len(line.plain) + 2 + cell_len(part.plain) > width:
            yield line
            line = Text()
        line = Text.assemble(line, ", ", part) if line else part
    if line:
        yield line


def _quoted(name: str, text: str, width: int) -> Table:
    """A line that is cut where the terminal ends."""
    shown = sanitize_line(" ".join(text[:_FAR_OFF].split()))
    return _row(Text(name, style="dim"), Text(shown), width)


def _row(mark: RenderableType, text: Text, width: int, *, cut: bool = True) -> Table:
    grid = Table.grid(padding=(0, 1))
    grid.width = width
    grid.add_column(width=1)
    grid.add_column(no_wrap=cut, overflow="ellipsis", ratio=1)
    grid.add_row(mark, text)
    return grid
