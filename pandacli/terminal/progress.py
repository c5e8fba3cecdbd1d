"""How far something long has come: bars on a terminal, a line for each file elsewhere."""

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
from pandacli.terminal.report import size
from pandacli.terminal.text import sanitize_line

Advance = Callable[[int], None]

_QUANTISING = "quantising"


class Bars:
    """The progress of a download, or of a conversion, on stderr.

    Used as a context manager. With `--quiet` it shows nothing.

    Args:
        screen: Where it is shown.
    """

    def __init__(self, screen: Screen) -> None:
        self.screen = screen
        self._drawn = _new_progress(screen) if screen.animates else None
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        if self._drawn:
            self._drawn.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._drawn:
            self._drawn.stop()

    def downloading(self, name: str, total: int, done: int) -> Advance:
        """A file of `total` bytes begins to come, `done` of which are here already."""
        if self._drawn is None:
            resumed = f", going on after {size(done)}" if done else ""
            self.screen.notice(f"downloading {name}, {size(total)}{resumed}")
        return self._row(name, "", total, done)

    def checking(self, name: str, total: int) -> Advance:
        """A file of `total` bytes begins to be compared with its published digest."""
        return self._row(name, "check", total, 0)

    def replacing(self, name: str) -> None:
        """A file that is here is not what was published, and is to be downloaded again."""
        self.screen.notice(f"{name} is damaged here; it is downloaded again")

    def converting(self, done: int, total: int) -> None:
        """`done` of the `total` steps of a conversion are over."""
        if self._drawn is None:
            if not self._tasks:
                self.screen.notice("quantising; this is done once")
                self._tasks[_QUANTISING] = TaskID(0)
            return
        if not self._tasks:
            self._row(_QUANTISING, _QUANTISING, total, 0)
        self._drawn.update(self._tasks[_QUANTISING], completed=done, total=total)

    def _row(self, name: str, doing: str, total: int, done: int) -> Advance:
        """The row of a file begins anew, with other work to show."""
        drawn = self._drawn
        if drawn is None:
            return lambda _: None
        if name not in self._tasks:
            self._tasks[name] = drawn.add_task(sanitize_line(name), total=total, doing=doing)
        task = self._tasks[name]
        drawn.reset(task, total=total, completed=done, doing=doing)
        return lambda more: drawn.advance(task, more)


class _Amount(DownloadColumn):
    """Bytes; of work that is not counted in bytes, the share that is done."""

    def render(self, task: Task) -> Text:
        """Returns the cell of a row."""
        if task.fields["doing"] == _QUANTISING:
            return Text(f"{int(task.percentage)} %", style="progress.download")
        return super().render(task)


class _Pace(ProgressColumn):
    """Bytes a second and the time left; at the end, whether the file was checked."""

    def render(self, task: Task) -> Text:
        """Returns the cell of a row."""
        doing = task.fields["doing"]
        if doing == "check":
            return Text("checked" if task.finished else "checking")
        if task.finished or task.speed is None or task.time_remaining is None:
            return Text("")
        minutes, seconds = divmod(int(task.time_remaining), 60)
        left = f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
        speed = "" if doing == _QUANTISING else f"{size(task.speed)}/s "
        return Text(f"{speed}{left}")


def _new_progress(screen: Screen) -> Progress:
    one_line = Column(no_wrap=True, overflow="ellipsis")
    return Progress(
        TextColumn("{task.description}", markup=False, table_column=one_line),
        BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=8)),
        _Amount(),
        _Pace(table_column=Column(no_wrap=True, min_width=17)),
        console=screen.err,
        expand=True,
    )
