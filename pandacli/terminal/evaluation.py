"""The results of `panda eval` as tables."""

from collections.abc import Mapping
from typing import Any, Literal

from pandacli.evaluation.report import Table, notes, tables
from pandacli.terminal.console import Screen
from pandacli.terminal.text import sanitize_line

_MOST = 20  # types of questions, and questions that two runs answer differently
_NAMED = 10  # ids in a note
_PIPE_WIDTH = 10_000


def print_results(results: Mapping[str, Any], screen: Screen) -> None:
    """Print tables on stdout, and on stderr what is missing from them."""
    if not screen.stdout_is_terminal:
        screen.out.width = _PIPE_WIDTH  # tables are as wide as they have to be
    for number, table in enumerate(tables(results, _MOST)):
        if number:
            screen.line("")
        _print_table(table, screen)
    for note in notes(results, _NAMED):
        screen.notice(note)
    hidden = max((len(scored["by_type"]) for scored in results["files"]), default=0)
    if hidden > _MOST:
        screen.notice(f"there are {hidden:,} types of questions: see --json or --report")


def _print_table(table: Table, screen: Screen) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as RichTable
    from rich.text import Text

    screen.line(sanitize_line(table.title), "bold")
    grid = RichTable(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="dim")
    for number, heading in enumerate(table.headings):
        side: Literal["left", "right"] = "right" if number and table.has_numbers else "left"
        grid.add_column(Text(sanitize_line(heading)), justify=side, overflow="fold")
    for row in table.rows:
        grid.add_row(*(Text(sanitize_line(cell)) for cell in row))
    screen.out.print(grid)
