"""The report of an evaluation: Markdown, the JSON object, and a plot."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pandacli.errors import PandaError, UsageError
from pandacli.evaluation.judge import ASPECTS, HIGHEST
from pandacli.evaluation.scoring import BRIER, JUDGE_SCORE
from pandacli.file_io import atomic_write_text


def shown(measure: str, value: float) -> str:
    """A mean as people write it: shares in percent, scores of a judge and Brier scores as such."""
    if measure in (JUDGE_SCORE, *ASPECTS):
        return f"{value:.2f}"
    return f"{value:.3f}" if measure == BRIER else f"{100 * value:.1f}"


def as_markdown(results: Mapping[str, Any]) -> str:
    """The whole report."""
    lines = ["# Evaluation", ""]
    for scored in results["files"]:
        lines += [f"## {scored['file']}", ""]
        lines += [f"{scored['answered']:,} of {scored['questions']:,} questions answered.", ""]
        lines += _markdown_table(scored)
        if scored["by_type"]:
            lines += ["", "### By type of question", ""]
            measures = list(scored["measures"])
            lines += _rows(
                ["type", "questions", *measures],
                [
                    [name, max(m["count"] for m in row.values())]
                    + [shown(m, row[m]["mean"]) if m in row else "" for m in measures]
                    for name, row in scored["by_type"].items()
                    if row
                ],
            )
        if "calibration" in scored:
            lines += ["", "### Calibration", ""]
            header = ["probability", "questions", "mean probability", "right"]
            rows = [
                [
                    f"{b['low']:.1f} to {b['high']:.1f}",
                    b["count"],
                    f"{b['confidence']:.3f}",
                    f"{b['accuracy']:.3f}",
                ]
                for b in scored["calibration"]
            ]
            lines += _rows(header, rows)
            lines += ["", f"Expected calibration error: {scored['calibration_error']:.3f}."]
        for title, name in (("Without an answer", "unanswered"), ("Not judged", "not_judged")):
            if scored[name]:
                lines += ["", f"### {title}", ""]
                lines += [
                    f"- {_plain(each['id'])}: {_plain(each['reason'])}" for each in scored[name]
                ]
        lines.append("")
    for title, name in (("Comparison", "comparison"), ("Blind", "blind")):
        if each := results.get(name):
            lines += [f"## {title}: difference from {each['with']}", ""]
            lines += _rows(
                ["measure", "difference", "95 % interval"],
                [[m, shown(m, d["mean"]), interval(m, d)] for m, d in each["differences"].items()],
            )
            lines += [""]
            lines += [
                f"- {q['better']}: {_plain(q['question'])} ({_plain(q['id'])}): "
                f"{_plain(q['first'])} / {_plain(q['second'])}"
                for q in each["questions"]
            ]
            lines.append("")
    if judge := results.get("judge"):
        lines += ["## Judge", "", *[f"- {name}: {value}" for name, value in judge.items()], ""]
    return "\n".join(lines)


def _markdown_table(scored: Mapping[str, Any]) -> list[str]:
    rows = []
    published = scored.get("published", {})
    for measure, value in scored["measures"].items():
        row = [measure, shown(measure, value["mean"]), interval(measure, value), value["count"]]
        if published:
            row.append(shown(measure, published[measure]) if measure in published else "")
        rows.append(row)
    header = ["measure", "mean", "95 % interval", "questions"]
    return _rows(header + ["published, not measured"] * bool(published), rows)


def interval(measure: str, value: Mapping[str, Any]) -> str:
    """The 95 % interval of a mean; empty where there is none."""
    if value["interval"] is None:
        return ""
    return " to ".join(shown(measure, end) for end in value["interval"])


def _rows(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(str(cell) for cell in line) + " |" for line in lines]


def _plain(text: object) -> str:
    """Text from outside on one line of Markdown."""
    return " ".join(str(text).split()).replace("|", "\\|").replace("<", "&lt;")


def write_report(folder: Path, results: Mapping[str, Any], results_json: str) -> None:
    """Write report.md, results.json and plot.png.

    Raises:
        UsageError: matplotlib is not installed.
        PandaError: A file cannot be written.
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise UsageError(
            "a report needs matplotlib", command="pip install 'pandacli[eval]'"
        ) from error
    mpl.use("Agg")
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # it may build a cache
    try:
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write_text(folder / "report.md", as_markdown(results))
        atomic_write_text(folder / "results.json", results_json)
        _plot(results, folder / "plot.png")
    except OSError as error:
        raise PandaError(f"cannot write the report to {folder}: {error.strerror}") from error


def _plot(results: Mapping[str, Any], path: Path) -> None:
    """Bars with intervals: shares in percent on the left, scores of a judge on the right."""
    from matplotlib.figure import Figure

    files = results["files"]
    scores = (JUDGE_SCORE, *ASPECTS)
    measures = list(dict.fromkeys(m for each in files for m in each["measures"] if m != BRIER))
    panels = [[m for m in measures if m not in scores], [m for m in measures if m in scores]]
    panels = [panel for panel in panels if panel]
    figure = Figure(figsize=(6 * len(panels), 4), layout="constrained")
    for number, panel in enumerate(panels, 1):
        axes = figure.add_subplot(1, len(panels), number)
        is_share = panel[0] not in scores
        width = 0.8 / len(files)
        for place, each in enumerate(files):
            held = [
                (at, each["measures"][m]) for at, m in enumerate(panel) if m in each["measures"]
            ]
            scale = 100 if is_share else 1
            heights = [scale * value["mean"] for _, value in held]
            ends = [value["interval"] or [value["mean"]] * 2 for _, value in held]
            low, high = ([scale * end for end in side] for side in zip(*ends, strict=True))
            # rounding can put a mean a little outside of its interval
            errors = [
                [max(height - end, 0) for height, end in zip(heights, low, strict=True)],
                [max(end - height, 0) for height, end in zip(heights, high, strict=True)],
            ]
            xs = [at + (place - (len(files) - 1) / 2) * width for at, _ in held]
            axes.bar(xs, heights, width, yerr=errors, capsize=3, label=Path(each["file"]).name)
        axes.set_xticks(range(len(panel)), panel)
        axes.set_ylim(0, 100 if is_share else HIGHEST)
        axes.set_ylabel("percent" if is_share else "score, 0 to 5")
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)
