"""The findings of `panda doctor`: two columns a section for people, one object for programs."""

from collections.abc import Sequence
from typing import Any

from pandacli.diagnostics.facts import Bytes, Fact, Section, Value
from pandacli.terminal.console import Screen
from pandacli.terminal.report import json_text, size
from pandacli.terminal.text import sanitize_line

_PROBLEM = "PROBLEM: "  # in words, because not everybody sees red


def show_report(sections: Sequence[Section], screen: Screen) -> None:
    """Prints the sections on stdout, and after them the problems once more.

    On a terminal long values are broken under their column; elsewhere each fact is one line.
    """
    width = max(len(fact.name) for section in sections for fact in section.facts)
    for section in sections:
        _heading(section.title, screen)
        for fact in section.facts or [Fact("none", "")]:
            _row(fact, width, screen)
        screen.line("")
    wrong = [fact for section in sections for fact in section.facts if fact.problem]
    _heading(f"Problems: {len(wrong) or 'none found'}", screen)
    for fact in wrong:
        _row(fact, width, screen)


def report_json(sections: Sequence[Section], *, pretty: bool) -> str:
    """Returns one JSON object: an object of facts for each section, and the list of problems.

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


def shown(value: Value) -> str:
    """Returns a value as people read it.

    Of a table, texts stand for themselves, and numbers have their name behind them.
    """
    if isinstance(value, dict):
        return ", ".join(_part(name, part) for name, part in value.items())
    if isinstance(value, list):
        return ", ".join(value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Bytes):
        return size(value)
    return "none" if value is None else str(value)


def _part(name: str, value: Any) -> str:
    return value if isinstance(value, str) else f"{shown(value)} {name}"


def _key(name: str) -> str:
    return name.strip(" -").replace(" ", "_")


def _heading(title: str, screen: Screen) -> None:
    if screen.stdout_is_terminal:
        from rich.text import Text

        screen.out.print(Text(title, style="bold"))
    else:
        screen.line(title)


def _row(fact: Fact, width: int, screen: Screen) -> None:
    value = "" if fact.value is None and fact.problem else sanitize_line(shown(fact.value))
    problem = _PROBLEM + sanitize_line(fact.problem) if fact.problem else ""
    name = sanitize_line(fact.name)
    if not screen.stdout_is_terminal:
        both = " - ".join(filter(None, (value, problem)))
        screen.line(f"  {name:<{width}}  {both}".rstrip())
        return
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(width=width + 2, no_wrap=True)
    grid.add_column(overflow="fold")
    if value or not problem:
        grid.add_row(Text(f"  {name}", style="dim"), value)
    if problem:
        grid.add_row(Text("" if value else f"  {name}", style="dim"), Text(problem, style="red"))
    screen.out.print(grid)
