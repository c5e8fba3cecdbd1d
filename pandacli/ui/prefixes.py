"""What is kept of clips: a table, and the same as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import NamedTuple

from pandacli.store.prefixes import Entry, Prefixes
from pandacli.ui.console import Screen
from pandacli.ui.harmless import harmless_line
from pandacli.ui.report import json_text, size
from pandacli.video.clip import format_time

_LAST_MOMENT = 250_000_000_000.0  # of the year 9892: file systems know later ones
_MOST_ROWS = 100  # on a terminal
_HEADINGS = ("SIZE", "LAST USED", "MODEL", "RANGE", "CLIP")


class _Row(NamedTuple):
    size: str
    used: str
    model: str
    range: str
    video: str


def show_prefixes(prefixes: Prefixes, screen: Screen) -> None:
    """Prints a row for each clip, the one used last first; on a terminal in columns, up to 100.

    What they take together, and may take, is said on stderr.
    """
    most = _MOST_ROWS if screen.answers_to_terminal else None
    rows = [_row(entry) for entry in prefixes.entries(most)]
    count = prefixes.count
    if not screen.answers_to_terminal:
        for row in rows:
            screen.line("\t".join(map(harmless_line, row)))
    elif rows:
        _columns(rows, screen)
    many = f"{count} {'clip' if count == 1 else 'clips'}"
    if count > len(rows):
        many = f"the newest {len(rows)} of {many}"
    limit = f"at most {size(prefixes.budget)}" if prefixes.budget else "switched off"
    screen.notice(f"{many}, {size(prefixes.bytes)} ({limit}) in {prefixes.folder}")


def prefixes_json(prefixes: Prefixes, *, pretty: bool) -> str:
    """Returns one JSON object with all clips; sizes are in bytes."""
    record = {
        "path": str(prefixes.folder),
        "bytes": prefixes.bytes,
        "budget_bytes": prefixes.budget,
        "clips": [
            asdict(entry.label)
            | {
                "bytes": entry.bytes,
                "last_used": _moment(entry).isoformat(timespec="seconds"),
                "path": str(entry.folder),
            }
            for entry in prefixes.entries()
        ],
    }
    return json_text(record, pretty=pretty)


def _row(entry: Entry) -> _Row:
    label = entry.label
    start, end = label.start, label.end
    whole = start is None and end is None
    ends = "the end" if end is None else format_time(end)
    return _Row(
        size(entry.bytes),
        _moment(entry).astimezone().strftime("%Y-%m-%d %H:%M"),
        f"{label.model} {label.quant}",
        "all" if whole else f"{format_time(start or 0.0)} to {ends}",
        label.video,
    )


def _moment(entry: Entry) -> datetime:
    return datetime.fromtimestamp(min(max(entry.used, 0.0), _LAST_MOMENT), UTC)


def _columns(rows: Sequence[_Row], screen: Screen) -> None:
    from rich.text import Text

    shown = [[harmless_line(cell) for cell in row] for row in (_HEADINGS, *rows)]
    widths = [max(len(row[column]) for row in shown) for column in range(len(_HEADINGS) - 1)]
    for number, row in enumerate(shown):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        line = Text("  ".join([*cells, row[-1]]), style="" if number else "dim")
        screen.out.print(line, soft_wrap=True)
