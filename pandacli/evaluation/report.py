"""The report of an evaluation: tables and notes, a page of Markdown, and a plot."""

import logging
import math
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pandacli.errors import PandaError, UsageError
from pandacli.evaluation.replies import ASPECTS, HIGHEST
from pandacli.evaluation.scoring import BRIER, JUDGE_SCORE
from pandacli.file_io import atomic_write_text, read_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMES = ("report.md", "results.json", "plot.png")
"""The files of a report."""

_HEADING = "# Evaluation"
_SCORES = (JUDGE_SCORE, *ASPECTS)  # from 0 to 5; others are shares
_MARKDOWN = re.compile(r"([\\`*_\[\]<>|#~!])")
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]+")


@dataclass(frozen=True)
class Table:
    """A table of a report; its texts may be from outside."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    has_numbers: bool = True  # in all columns but the first


def tables(results: Mapping[str, Any], most: int | None = None) -> Iterator[Table]:
    """The tables of an evaluation.

    Args:
        results: What `pandacli.evaluation.job.run` returns.
        most: How many types of questions, and questions that two runs answer differently, are
            shown; None for all.
    """
    for scored in results["files"]:
        yield from _tables_of(scored, most)
    for name in ("comparison", "blind"):
        if results[name]:
            yield from _comparison(results[name], name, most)


def _tables_of(scored: Mapping[str, Any], most: int | None) -> Iterator[Table]:
    measures, published = scored["measures"], _published(scored)
    rows = [
        [measure, _shown(measure, value["mean"]), _interval(measure, value), f"{value['count']:,}"]
        + [published.get(measure, "")] * bool(published)
        for measure, value in measures.items()
    ]
    headings = ["", "mean", "95 % interval", "questions", *["published"] * bool(published)]
    counts = f"{scored['answered']:,} of {scored['questions']:,} answered"
    yield Table(f"{scored['file']}: {counts}", headings, rows)
    if scored["by_type"] and len(scored["by_type"]) <= (most or len(scored["by_type"])):
        rows = [
            [name, f"{max(value['count'] for value in row.values()):,}"]
            + [_shown(m, row[m]["mean"]) if m in row else "" for m in measures]
            for name, row in scored["by_type"].items()
            if row
        ]
        yield Table("by type of question", ["", "questions", *measures], rows)
    if scored["calibration"]:
        rows = [
            [f"{each['low']:.1f} to {each['high']:.1f}", f"{each['count']:,}"]
            + [f"{100 * each[side]:.1f}" for side in ("confidence", "accuracy")]
            for each in scored["calibration"]
        ]
        title = f"calibration, expected error {scored['calibration_error']:.3f}"
        if scored["coverage"] is not None:
            title += f", mean coverage {scored['coverage']:.3f}"
        yield Table(title, ["probability", "questions", "mean, %", "right, %"], rows)


def _comparison(compared: Mapping[str, Any], name: str, most: int | None) -> Iterator[Table]:
    rows = [
        [measure, _shown(measure, value["mean"], "+"), _interval(measure, value, "+")]
        for measure, value in compared["differences"].items()
    ]
    title = "gain over the blind answers of" if name == "blind" else "difference from"
    yield Table(f"{title} {compared['with']}", ["", "mean", "95 % interval"], rows)
    if changed := compared["questions"]:
        rows = [
            [q["better"], q["question"], " / ".join(q["right"])]
            + ["-" if q[name] is None else q[name] for name in ("first", "second")]
            for q in changed[:most]
        ]
        title = (
            f"answered better by this run (first) or by {compared['with']} (second):"
            f" {len(rows):,} of {len(changed):,}"
        )
        yield Table(title, ["better", "question", "right", "first", "second"], rows, False)


def notes(results: Mapping[str, Any], most: int | None = None) -> Iterator[str]:
    """Sentences on what the tables leave out; of ids, the first `most` are named."""
    several = len(results["files"]) > 1
    found: dict[str, None] = {}  # of several files, some say the same
    for scored in results["files"]:
        found |= dict.fromkeys(_notes_of(scored, scored["file"] if several else "", most))
    for compared in filter(None, (results["comparison"], results["blind"])):
        found |= dict.fromkeys(_notes_of(compared, compared["with"], most))
    yield from found
    if judge := results["judge"]:
        reported = ", ".join(judge["reported"]) or "no model"
        seed = "" if judge["seed"] is None else f", seed {judge['seed']}"
        yield (
            f"judged by {judge['model']} at {judge['url']}, which reports {reported}; prompts"
            f" {judge['prompts']}, temperature {judge['temperature']:g}{seed}; replies are in"
            f" {judge['replies']}"
        )


def _notes_of(scored: Mapping[str, Any], name: str, most: int | None) -> Iterator[str]:
    if _published(scored):
        yield (
            f"published: {scored['benchmark']} in the paper, judged by the gpt-3.5-turbo of its"
            " day, not measured here"
        )
    where = f" in {name}" if name else ""
    groups = {
        f"without an answer{where}, which count as wrong": scored["unanswered"],
        f"not judged{where}, which count as wrong": scored["not_judged"],
    }
    for each in scored["ignored"]:
        groups.setdefault(f"answers{where} do not count, {each['reason']}", []).append(each)
    for said, entries in groups.items():
        if entries:
            named = [str(each["id"]) for each in entries]
            more = ["..."] if len(named) > (most or len(named)) else []
            yield f"{len(named):,} {said}: {', '.join(named[:most] + more)}"
    if without := scored.get("without_reference"):
        yield f"{without:,} have no right answer and are not scored"
    if scored.get("clustered_by") == "question":
        yield "no videos are named, so intervals take questions as independent; see --questions"


def _published(scored: Mapping[str, Any]) -> dict[str, str]:
    """The results of the paper for the measures that there are."""
    return {
        measure: f"{value:g}" if measure in _SCORES else _shown(measure, value)
        for measure, value in (scored.get("published") or {}).items()
        if measure in scored["measures"]
    }


def _shown(measure: str, value: float, sign: str = "") -> str:
    """A mean as people write it: shares in percent, scores of a judge and Brier scores as such."""
    if measure in _SCORES:
        return f"{value:{sign}.2f}"
    return f"{value:{sign}.3f}" if measure == BRIER else f"{100 * value:{sign}.1f}"


def _interval(measure: str, value: Mapping[str, Any], sign: str = "") -> str:
    """The 95 % interval of a mean; empty where there is none."""
    return " to ".join(_shown(measure, end, sign) for end in value["interval"] or ())


def as_markdown(results: Mapping[str, Any]) -> str:
    """The whole report."""
    lines = [_HEADING]
    for table in tables(results):
        rows = [table.headings, ["---"] * len(table.headings), *table.rows]
        lines += ["", f"## {_plain(table.title)}", ""]
        lines += ["| " + " | ".join(map(_plain, row)) + " |" for row in rows]
    if said := list(notes(results)):
        lines += ["", "## Notes", "", *(f"- {_plain(note)}" for note in said)]
    reasons = {
        (each["id"], each["reason"])
        for scored in results["files"]
        for each in (*scored["unanswered"], *scored["not_judged"])
    }
    if reasons:
        lines += ["", "## Failures", ""]
        lines += [f"- {_plain(name)}: {_plain(reason)}" for name, reason in sorted(reasons)]
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """Text from outside on one line of Markdown, without markup and control characters."""
    text = _CONTROLS.sub(" ", text)
    return text if set(text) <= {"-"} else _MARKDOWN.sub(r"\\\1", text)


def check_report(folder: Path) -> None:
    """Make the folder of a report, before anything slow.

    Raises:
        UsageError: matplotlib is not installed, the folder cannot be written, or a file of another
            is there under the name of one of ours.
    """
    try:
        import matplotlib as _  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "a report needs matplotlib", command="pip install 'pandacli[eval]'"
        ) from error
    held = [name for name in NAMES if os.path.lexists(folder / name)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        begin = read_bytes(folder / NAMES[0]) if NAMES[0] in held else b""
    except OSError as error:
        raise _failed(folder, error) from error
    if held and not begin.startswith(_HEADING.encode()):
        raise UsageError(
            f"{folder} has another {held[0]}, which is not replaced", "name a new folder"
        )
    if not os.access(folder, os.W_OK):
        raise UsageError(f"cannot write the report to {folder}: Permission denied")


def _failed(folder: Path, error: OSError) -> PandaError:
    return UsageError(f"cannot write the report to {folder}: {error.strerror}")


def write_report(folder: Path, results: Mapping[str, Any], results_json: str) -> None:
    """Write report.md, results.json and plot.png.

    Raises:
        UsageError: As of `check_report`.
    """
    check_report(folder)
    try:
        atomic_write_text(folder / "report.md", as_markdown(results))
        atomic_write_text(folder / "results.json", results_json)
        _plot(results["files"], folder / "plot.png")
    except OSError as error:
        raise _failed(folder, error) from error


def _plot(files: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Bars with intervals: shares in percent on the left, scores of a judge on the right."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.use("Agg")
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it may build a cache of fonts
    measures = list(dict.fromkeys(m for each in files for m in each["measures"] if m != BRIER))
    panels = [[m for m in measures if (m in _SCORES) == is_score] for is_score in (False, True)]
    panels = [panel for panel in panels if panel]
    sizes = [1 + 0.6 * len(panel) * (1 + len(files)) for panel in panels]
    figure = Figure(figsize=(max(4, sum(sizes)), 4), layout="constrained")
    grid = figure.subplots(1, len(panels), squeeze=False, width_ratios=sizes)
    for panel, axes in zip(panels, grid[0], strict=True):
        _bars(axes, panel, files)
    labelled = dict[str, Any]()  # once each; both panels have the same files
    for axes in grid[0]:
        labelled |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    handles, names = labelled.values(), labelled.keys()
    legend = figure.legend(handles, names, loc="outside upper center", ncols=2)
    for text in legend.get_texts():
        text.set_parse_math(False)  # a name may have $ in it
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of characters that the font does not have
        figure.savefig(path, dpi=120)


def _bars(axes: "Axes", panel: Sequence[str], files: Sequence[Mapping[str, Any]]) -> None:
    """A group of bars for each measure, with a bar for each file that has it."""
    scale, highest = (1, HIGHEST) if panel[0] in _SCORES else (100, 100)
    width = 0.7 / len(files)
    for place, each in enumerate(files):
        found = [each["measures"].get(measure) for measure in panel]
        means = [scale * value["mean"] if value else math.nan for value in found]
        ends = [(value and value["interval"]) or (0, 0) for value in found]
        # a file without an interval has no error bar, and rounding can put a mean outside of it
        low = [max(m - scale * e[0], 0) if any(e) else 0 for m, e in zip(means, ends, strict=True)]
        high = [max(scale * e[1] - m, 0) for m, e in zip(means, ends, strict=True)]
        xs = [number + (place - (len(files) - 1) / 2) * width for number in range(len(panel))]
        name = _CONTROLS.sub(" ", Path(each["file"]).name).lstrip("_")  # those are hidden
        axes.bar(xs, means, width, yerr=[low, high], capsize=3, label=name)
        known = each["published"] if each["measures"].keys() & each["published"] else {}
        published = [scale * known.get(measure, math.nan) for measure in panel]
        if any(measure in known for measure in panel):
            label = f"{each['benchmark']} as published, not measured"
            axes.plot(xs, published, "D", color="black", label=label)
    axes.set_xticks(range(len(panel)), panel)
    axes.set_xlim(-0.6, len(panel) - 0.4)
    axes.set_ylim(0, highest)
    axes.set_ylabel("percent" if scale == 100 else f"score, 0 to {HIGHEST}")
    axes.spines[["top", "right"]].set_visible(False)
