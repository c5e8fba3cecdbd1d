"""Ratios as people read them: a table, bars in the terminal, and a picture."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.bar import Bar
from rich.table import Table
from rich.text import Text

THE_LIMIT = "the machine's limit"
"""What a value stands beside whose ratio is its share of what this machine can do."""

_BARS = 30  # cells
_LONGEST = 20.0  # a ratio above it fills the bar
_MARKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200)  # of the picture's scale


@dataclass(frozen=True)
class Row:
    """One comparison, both sides of which were measured in the same run, or a value by itself.

    Attributes:
        group: What it is about, as "STAB".
        name: What was measured.
        ours: The measured value.
        unit: Its unit, "s" or something a second.
        beside: What it is compared with: a rival, or `THE_LIMIT`.
        theirs: The value of that; None where nothing is compared.
        goal: The ratio that is aimed at; None where there is no goal.
    """

    group: str
    name: str
    ours: float
    unit: str
    beside: str = ""
    theirs: float | None = None
    goal: float | None = None

    @property
    def ratio(self) -> float | None:
        """How many times better ours is: faster, whichever way the unit counts.

        Beside a limit of the machine it is the share of it that is used.
        """
        if self.theirs is None:
            return None
        if self.unit.endswith("/s"):
            return self.ours / self.theirs
        return self.theirs / self.ours


def table_of(rows: Sequence[Row]) -> Table:
    """Every row, with a bar as long as its ratio."""
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    table.add_column("")
    table.add_column("ours", justify="right", no_wrap=True)
    table.add_column("beside")
    table.add_column("theirs", justify="right", no_wrap=True)
    table.add_column("ratio", justify="right", no_wrap=True)
    table.add_column("goal", justify="right", no_wrap=True)
    table.add_column("", width=_BARS)
    group = ""
    for row in rows:
        if row.group != group:
            group = row.group
            table.add_row(Text(group, style="bold"))
        ours = f"  {row.name}", _measure(row.ours, row.unit)
        if row.theirs is None or row.ratio is None:
            table.add_row(*ours)
            continue
        table.add_row(
            *ours,
            row.beside,
            _measure(row.theirs, row.unit),
            f"x{row.ratio:.2f}",
            "" if row.goal is None else f"x{row.goal:g}",
            Bar(_LONGEST, 0, min(row.ratio, _LONGEST), color="green" if _met(row) else "yellow"),
        )
    return table


def draw(rows: Iterable[Row], path: Path, title: str) -> None:
    """Draw all ratios into a picture, the goals as ticks; without a ratio there is none.

    Args:
        rows: What was measured.
        path: The file, PNG by its suffix.
        title: What stands above it: the machine.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    drawn = [(row, row.ratio) for row in rows if row.ratio is not None][::-1]
    if not drawn:
        return
    ratios = [ratio for _, ratio in drawn]
    figure, axes = plt.subplots(figsize=(10, 1.2 + 0.32 * len(drawn)), layout="constrained")
    places = range(len(drawn))
    colours = ["#3a7d44" if _met(row) else "#d9a441" for row, _ in drawn]
    axes.barh(places, [ratio - 1 for ratio in ratios], left=1, color=colours)
    axes.set_yticks(places, [f"{row.group}: {row.name}, beside {row.beside}" for row, _ in drawn])
    axes.set_xscale("log")
    marks = [mark for mark in _MARKS if min(ratios) / 2 < mark < max(ratios) * 2]
    axes.set_xticks(marks, [f"x{mark:g}" for mark in marks], minor=False)
    axes.set_xticks([], minor=True)
    axes.margins(x=0.12, y=0.01)
    axes.axvline(1, color="black", linewidth=0.8)
    for place, (row, ratio) in enumerate(drawn):
        side = "left" if ratio >= 1 else "right"
        text = f" x{ratio:.3g} "
        axes.annotate(text, (ratio, place), va="center", ha=side, fontsize=8)
        if row.goal:
            axes.plot([row.goal] * 2, [place - 0.4, place + 0.4], color="black")
    axes.set_xlabel("times as fast (a tick is a goal)")
    figure.suptitle(title, fontsize=9)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _met(row: Row) -> bool:
    """Whether a row reaches its goal; one without a goal does."""
    return not row.goal or (row.ratio is not None and row.ratio >= row.goal)


def _measure(value: float, unit: str) -> str:
    number = f"{value:.3g}" if value < 1000 else f"{value:.0f}"
    return f"{number} {unit}"
