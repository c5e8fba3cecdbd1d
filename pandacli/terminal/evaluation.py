"""The results of `panda eval` as tables."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pandacli.evaluation.report import interval, shown
from pandacli.evaluation.scoring import BRIER
from pandacli.terminal.console import Screen
from pandacli.terminal.text import sanitize_line

_TYPES = 12  # the most types of questions in a table
_NAMED = 10  # unanswered questions that are named
_CHANGED = 20  # questions that two runs answer differently


def print_results(results: Mapping[str, Any], screen: Screen) -> None:
    """Print tables on stdout, and on stderr what is missing from them."""
    for scored in results["files"]:
        _print_file(scored, screen)
    for name in ("comparison", "blind"):
        if name in results:
            _print_comparison(results[name], screen)
    if judge := results.get("judge"):
        reported = ", ".join(judge["reported"])
        screen.notice(
            f"judged by {judge['model']} (reported as {reported}), prompts {judge['prompts']}, "
            f"temperature {judge['temperature']:g}; replies in {judge['replies']}"
        )


def _print_file(scored: Mapping[str, Any], screen: Screen) -> None:
    published = scored.get("published", {})
    title = (
        f"{Path(scored['file']).name}: {scored['answered']:,} of {scored['questions']:,} answered"
    )
    headings = ["", "mean", "95 % interval", "questions"]
    if published:
        headings.append("published")
    rows = []
    for measure, value in scored["measures"].items():
        row = [measure, shown(measure, value["mean"]), interval(measure, value)]
        row.append(f"{value['count']:,}")
        if published:
            row.append(shown(measure, published[measure]) if measure in published else "")
        rows.append(row)
    _print_table(title, headings, rows, screen)
    if published:
        judged = "judged by the gpt-3.5-turbo of its day, not measured here"
        screen.notice(f"published: {scored['benchmark']} in the paper, {judged}")
    if 1 < len(scored["by_type"]) <= _TYPES:
        measures = [measure for measure in scored["measures"] if measure != BRIER][:4]
        rows = [
            [name, f"{max(value['count'] for value in row.values()):,}"]
            + [shown(m, row[m]["mean"]) if m in row else "" for m in measures]
            for name, row in scored["by_type"].items()
            if row
        ]
        _print_table("by type of question", ["", "questions", *measures], rows, screen)
    if "calibration" in scored:
        rows = [
            [
                f"{each['low']:.1f} to {each['high']:.1f}",
                f"{each['count']:,}",
                f"{100 * each['confidence']:.1f}",
                f"{100 * each['accuracy']:.1f}",
            ]
            for each in scored["calibration"]
        ]
        title = f"calibration, expected error {scored['calibration_error']:.3f}"
        headings = ["probability", "questions", "mean, %", "right, %"]
        _print_table(title, headings, rows, screen)
    for name, what in (("unanswered", "without an answer"), ("not_judged", "not judged")):
        if held := scored[name]:
            named = ", ".join(str(each["id"]) for each in held[:_NAMED])
            more = ", ..." if len(held) > _NAMED else ""
            screen.notice(f"{len(held):,} {what}, which count as wrong: {named}{more}")


def _print_comparison(comparison: Mapping[str, Any], screen: Screen) -> None:
    rows = [
        [measure, shown(measure, value["mean"]), interval(measure, value)]
        for measure, value in comparison["differences"].items()
    ]
    title = f"difference from {Path(comparison['with']).name}"
    _print_table(title, ["", "mean", "95 % interval"], rows, screen)
    changed = comparison["questions"]
    for question in changed[:_CHANGED]:
        answers = f"{question['first'] or '-'} / {question['second'] or '-'}"
        screen.line(sanitize_line(f"{question['better']}: {question['question']}: {answers}"))
    if len(changed) > _CHANGED:
        screen.notice(f"{len(changed) - _CHANGED:,} more questions differ; see --json or --report")


def _print_table(title: str, headings: list[str], rows: list[list[str]], screen: Screen) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(sanitize_line(title)), title_justify="left", box=None, padding=(0, 1))
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left", no_wrap=number > 0)
    for row in rows:
        table.add_row(*(Text(sanitize_line(cell)) for cell in row))
    screen.out.print(table)
