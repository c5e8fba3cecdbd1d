"""The report of `panda doctor`: two columns per section for people, one object for programs."""

import os
import shutil
import sys
from collections.abc import Sequence
from typing import Any

from pandacli.diagnostics import Bytes, Fact, Section, Value, find
from pandacli.terminal.console import Screen
from pandacli.terminal.report import json_text
from pandacli.terminal.text import sanitize_line
from pandacli.units import size

_PROBLEM = "PROBLEM: "  # not everybody sees red


def terminal_section() -> Section:
    """Return which streams are terminals, and the terminal's colours, width and graphics."""
    from pandacli.terminal.frame_strip import graphics_protocol

    # not sys.stdout itself, which a spinner replaces
    streams = {"stdin": sys.__stdin__, "stdout": sys.__stdout__, "stderr": sys.__stderr__}
    return Section(
        "Terminal",
        [
            find("terminals", lambda: [n for n, s in streams.items() if s and s.isatty()]),
            find("type", lambda: os.environ.get("TERM")),
            find("width", lambda: shutil.get_terminal_size().columns),
            find("colours", _colours),
            find("pictures", lambda: graphics_protocol(os.environ) or "half-blocks"),
            find("encoding", lambda: getattr(sys.__stdout__, "encoding", None)),
        ],
    )


def _colours() -> str:
    from rich.console import Console

    console = Console(file=sys.__stdout__)
    return "none" if console.no_color else console.color_system or "none"


def show_report(sections: Sequence[Section], screen: Screen) -> None:
    """Print the sections on stdout, then all problems again.

    On a terminal long values are folded in their column; elsewhere each fact is one line.
    """
    width = max(len(fact.name) for section in sections for fact in section.facts)
    for section in sections:
        _heading(section.title, screen)
        for fact in section.facts or [Fact("none", "")]:
            _show_fact(fact, width, screen)
        screen.line("")
    problems = [fact for section in sections for fact in section.facts if fact.problem]
    _heading(f"Problems: {len(problems) or 'none found'}", screen)
    for fact in problems:
        _show_fact(fact, width, screen)


def report_json(sections: Sequence[Section], *, pretty: bool) -> str:
    """Return one JSON object: one object of facts per section, and the list of problems.

    Memory is in bytes.
    """
    record: dict[str, Any] = {
        _key(section.title): {_key(fact.name): fact.value for fact in section.facts}
        for section in sections
    }
    record["problems"] = [
        {"section": _key(section.title), "fact": _key(fact.name), "problem": fact.problem}
        for section in sections
        for fact in section.facts
        if fact.problem
    ]
    return json_text(record, pretty=pretty)


def format_value(value: Value) -> str:
    """Return a value for people; in a dict, numbers are followed by their key."""
    if isinstance(value, dict):
        return ", ".join(
            part if isinstance(part, str) else f"{format_value(part)} {name}"
            for name, part in value.items()
        )
    if isinstance(value, list):
        return ", ".join(value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Bytes):
        return size(value)
    return "none" if value is None else str(value)


def _key(name: str) -> str:
    return name.strip(" -").replace(" ", "_")


def _heading(title: str, screen: Screen) -> None:
    if screen.stdout_is_terminal:
        screen.out.print(title, style="bold")
    else:
        screen.line(title)


def _show_fact(fact: Fact, width: int, screen: Screen) -> None:
    value = "" if fact.value is None and fact.problem else sanitize_line(format_value(fact.value))
    problem = _PROBLEM + sanitize_line(fact.problem) if fact.problem else ""
    name = sanitize_line(fact.name)
    if not screen.stdout_is_terminal:
        both = " - ".join(filter(None, (value, problem)))
        screen.line(f"  {name:<{width}}  {both}".rstrip())
        return
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(width=width + 2, no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    if value or not problem:
        grid.add_row(f"  {name}", value)
    if problem:
        grid.add_row("" if value else f"  {name}", Text(problem, style="red"))
    screen.out.print(grid)
