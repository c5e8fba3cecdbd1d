"""Progress of downloads and conversions: bars on a terminal, a line per file elsewhere."""

from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
)
from rich.table import Column
from rich.text import Text

from pandacli.terminal.console import Screen
from pandacli.terminal.text import sanitize_line
from pandacli.units import size

Advance = Callable[[int], None]

_QUANTISING = "quantising"


class Bars:
    """Progress of a download or a conversion, on stderr; a context manager.

    With `--quiet` it shows nothing.
    """

    def __init__(self, screen: Screen) -> None:
        self.screen = screen
        self._progress = _progress_columns(screen) if screen.animates else None
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        if self._progress:
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._progress:
            self._progress.stop()

    def downloading(self, name: str, total: int, done: int) -> Advance:
        """Start a file of `total` bytes, `done` of which are here already."""
        if self._progress is None:
            resumed = f", going on after {size(done)}" if done else ""
            self.screen.notice(f"downloading {name}, {size(total)}{resumed}")
        return self._row(name, "", total, done)

    def checking(self, name: str, total: int) -> Advance:
        """Start to verify the digest of a file of `total` bytes."""
        return self._row(name, "check", total, 0)

    def replacing(self, name: str) -> None:
        """Report a file whose digest is wrong."""
        self.screen.notice(f"{name} is damaged here; it is downloaded again")

    def converting(self, done: int, total: int) -> None:
        """Report a conversion after `done` of `total` steps."""
        if self._progress is None:
            if not self._tasks:
                self.screen.notice("quantising; this is done once")
                self._tasks[_QUANTISING] = TaskID(0)
            return
        if not self._tasks:
            self._row(_QUANTISING, _QUANTISING, total, 0)
        self._progress.update(self._tasks[_QUANTISING], completed=done, total=total)

    def _row(self, name: str, doing: str, total: int, done: int) -> Advance:
        """Add or restart the row of a file."""
        progress = self._progress
        if progress is None:
            return lambda _: None
        if name not in self._tasks:
            self._tasks[name] = progress.add_task(sanitize_line(name), total=total, doing=doing)
        task = self._tasks[name]
        progress.reset(task, total=total, completed=done, doing=doing)
        return lambda more: progress.advance(task, more)


class _Amount(DownloadColumn):
    """Bytes; percent of a conversion."""

    def render(self, task: Task) -> Text:
        """Render the cell of a row."""
        if task.fields["doing"] == _QUANTISING:
            return Text(f"{int(task.percentage)} %", style="progress.download")
        return super().render(task)


class _Speed(ProgressColumn):
    """Bytes per second and time left, or whether the digest is verified."""

    def render(self, task: Task) -> Text:
        """Render the cell of a row."""
        doing = task.fields["doing"]
        if doing == "check":
            return Text("checked" if task.finished else "checking")
        if task.finished or task.speed is None or task.time_remaining is None:
            return Text("")
        minutes, seconds = divmod(int(task.time_remaining), 60)
        left = f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
        speed = "" if doing == _QUANTISING else f"{size(task.speed)}/s "
        return Text(f"{speed}{left}")


def _progress_columns(screen: Screen) -> Progress:
    one_line = Column(no_wrap=True, overflow="ellipsis")
    return Progress(
        TextColumn("{task.description}", markup=False, table_column=one_line),
        BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=8)),
        _Amount(),
        _Speed(table_column=Column(no_wrap=True, min_width=17)),
        console=screen.err,
        expand=True,
    )
