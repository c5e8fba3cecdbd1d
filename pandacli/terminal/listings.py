"""The output of `panda models`, `info`, `cache` and `doctor`: tables, and records for JSON."""

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pandacli.checkpoints.inventory import ModelState, published_digests
from pandacli.checkpoints.resolve import CheckpointInfo
from pandacli.diagnostics import Bytes, Fact, Section, Value, find
from pandacli.prefix_cache.store import Entry, PrefixStore
from pandacli.terminal.console import Screen
from pandacli.terminal.text import sanitize_line
from pandacli.timeline.scores import ScoreStore
from pandacli.units import size
from pandacli.video.clip import format_time

UNKNOWN_COMMIT = {  # by whether its weights are known ones
    True: "unknown to panda, but its weights match the known commit",
    False: "unknown to panda, with different weights; verified against the hub's digests only",
    None: "unknown to panda; files verified against the hub's digests only",
}

_STATES = {"here": "here", "incomplete": "incomplete", "absent": "not on this machine"}
_MODEL_HEADINGS = ("MODEL", "QUANT", "SIZE", "LICENCE")
_PREFIX_HEADINGS = ("SIZE", "LAST USED", "MODEL", "RANGE", "CLIP")
_MAX_PREFIXES = 100  # on a terminal
_MAX_TIMESTAMP = 250_000_000_000.0  # in the year 9892; file systems allow later ones
_PROBLEM = "PROBLEM: "  # not everybody sees red

Row = tuple[str, ...]


def show_models(models: Sequence[ModelState], screen: Screen) -> None:
    """Print a row per form of each model; its folder stands under it, or last where piped."""
    _show_rows(_MODEL_HEADINGS, [row for model in models for row in _model_rows(model)], screen)


def _model_rows(model: ModelState) -> Iterator[Row]:
    found, known = model.checkpoint, model.known
    if found and model.state == "here":
        yield model.name, "none", size(model.bytes), model.licence, str(found.folder)
    elif known and not model.artifacts:
        here = model.partial_bytes + (model.bytes if found else 0)
        get = f"{size(here)} here, get the rest: " if here else "get it: "
        get += known.download_command
        yield model.name, "-", size(known.download_bytes), model.licence, get
    for copy in model.artifacts:
        yield model.name, copy.quant, size(copy.bytes), model.licence, str(copy.folder)


def _show_rows(headings: Row, rows: Sequence[Row], screen: Screen) -> None:
    """Print columns on a terminal, cells without a heading on their own lines; tabs elsewhere."""
    if not screen.stdout_is_terminal:
        for row in rows:
            screen.line("\t".join(map(sanitize_line, row)))
        return
    count = len(headings)
    heading, *lines = _align([headings, *(row[:count] for row in rows)])
    screen.line(heading, "dim")
    for line, row in zip(lines, rows, strict=True):
        screen.line(line)
        for cell in row[count:]:
            screen.line(f"  {sanitize_line(_tilde(cell))}", "dim")


def _align(rows: Sequence[Row]) -> list[str]:
    cells = [[sanitize_line(cell) for cell in row] for row in rows]
    *widths, _ = (max(map(len, column)) for column in zip(*cells, strict=True))
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, (*widths, 0), strict=True))
        for row in cells
    ]


def _tilde(path: str) -> str:
    home = str(Path.home())
    return f"~{path[len(home) :]}" if path.startswith(home + "/") else path


def show_model(model: ModelState, info: CheckpointInfo | None, screen: Screen) -> None:
    """Print the facts of one model, then its files and quantised copies."""
    for line in _align(list(_model_facts(model, info))):
        screen.line(line)
    if info:
        screen.line("\nfiles")
        width = max(map(len, info.files))
        digests = published_digests(model)
        for name, count in info.files.items():
            ending = f"  sha256 {digests[name][:12]}…" if name in digests else ""
            screen.line(f"  {sanitize_line(name):<{width}}  {size(count):>9}{ending}")
    if model.known and (files := model.known.known_files):
        screen.line(f"\nknown files of commit {model.known.known_commit}")
        width = max(len(file.name) for file in files)
        for file in files:
            shown = f"{file.bytes:,} bytes" if file.exact else f"about {file.bytes / 1e9:.2f} GB"
            screen.line(f"  {file.name:<{width}}  {shown:>13}")
            if file.sha256:
                screen.line(f"    sha256 {file.sha256}")
    if model.artifacts:
        screen.line("\ncopies")
    for artifact in model.artifacts:
        screen.line(f"  {artifact.quant}  {artifact.form}  {size(artifact.bytes):>9}")
        screen.line(f"    {sanitize_line(_tilde(str(artifact.folder)))}")


def _model_facts(model: ModelState, info: CheckpointInfo | None) -> Iterator[Row]:
    known, commit, is_known = model.known, model.commit, model.has_known_commit
    yield "model", model.name
    if known:
        yield "what", known.summary
    yield "licence", model.licence
    if known and known.repo:
        yield "from", known.published_in
    yield "state", _STATES[model.state]
    if known and model.state != "here":
        yield "get it", known.download_command
    if model.checkpoint:
        yield "path", _tilde(str(model.checkpoint.folder))
    foreign = known is not None and known.known_commit is not None and not is_known
    if commit and known and foreign:
        digests = published_digests(model)
        weights = known.has_known_weights(digests) if digests else None
        yield "commit", f"{commit}, {UNKNOWN_COMMIT[weights]}"
    elif commit:
        yield "commit", f"{commit}, known to panda" if is_known else commit
    if known and foreign:
        yield "known", f"commit {known.known_commit}"
    yield "size", size(model.bytes)
    if model.partial_bytes:
        yield "unfinished", size(model.partial_bytes)
    if model.leftovers:
        yield "left over", f"{size(model.leftover_bytes)} of unfinished or damaged copies"
    if info:
        for name, value in info.sizes.items():
            yield name, f"{value:,}"
        if info.parameters:
            yield "parameters", f"{'' if info.exact else 'about '}{info.parameters:,}"


def model_record(model: ModelState) -> dict[str, Any]:
    """Return what this machine holds of a model, for JSON; sizes are in bytes."""
    found, known = model.checkpoint, model.known
    return {
        "name": model.name,
        "state": model.state,
        "licence": model.licence,
        "path": str(found.folder) if found else None,
        "kind": found.kind if found else None,
        "repository": known.repo if known else None,
        "commit": model.commit,
        "commit_known": model.has_known_commit,
        "bytes": model.bytes,
        "partial_bytes": model.partial_bytes,
        "remains_bytes": model.leftover_bytes,
        "copies": [
            {"quant": copy.quant, "form": copy.form, "path": str(copy.folder), "bytes": copy.bytes}
            | {"commit": copy.commit, "source_sha256": copy.digest}
            for copy in model.artifacts
        ],
    }


def detailed_record(model: ModelState, info: CheckpointInfo | None) -> dict[str, Any]:
    """Return `model_record` with the checkpoint's sizes and files, and the known files."""
    digests, known = published_digests(model), None
    if model.known and model.known.known_commit is not None:
        files = [
            {"name": f.name, "bytes": f.bytes, "bytes_exact": f.exact, "sha256": f.sha256}
            for f in model.known.known_files
        ]
        known = {"commit": model.known.known_commit, "files": files}
    return model_record(model) | {
        "sizes": info.sizes if info else {},
        "parameters": info.parameters if info else None,
        "parameters_exact": bool(info and info.exact),
        "files": [
            {"name": name, "bytes": count, "sha256": digests.get(name)}
            for name, count in (info.files if info else {}).items()
        ],
        "known": known,
    }


def show_prefixes(prefixes: PrefixStore, screen: Screen) -> None:
    """Print a row per cached clip, the last used first, and a total on stderr."""
    limit = _MAX_PREFIXES if screen.stdout_is_terminal else None
    if rows := [_prefix_row(entry) for entry in prefixes.entries(limit)]:
        _show_rows(_PREFIX_HEADINGS, rows, screen)
    count = prefixes.count
    total = f"{count} {'clip' if count == 1 else 'clips'}"
    if count > len(rows):
        total = f"the newest {len(rows)} of {total}"
    budget = f"at most {size(prefixes.budget)}" if prefixes.budget else "switched off"
    screen.notice(f"{total}, {size(prefixes.bytes)} ({budget}) in {prefixes.folder}")


def _prefix_row(entry: Entry) -> Row:
    label = entry.metadata
    end = "the end" if label.end is None else format_time(label.end)
    whole = label.start is None and label.end is None
    return (
        size(entry.bytes),
        _last_used(entry).astimezone().strftime("%Y-%m-%d %H:%M"),
        f"{label.model} {label.quant}",
        "all" if whole else f"{format_time(label.start or 0.0)} to {end}",
        label.video,
    )


def prefixes_record(prefixes: PrefixStore) -> dict[str, Any]:
    """Return all cached clips, for JSON; sizes are in bytes."""
    clips = [
        asdict(entry.metadata)
        | {"bytes": entry.bytes, "last_used": _last_used(entry).isoformat(timespec="seconds")}
        | {"path": str(entry.folder)}
        for entry in prefixes.entries()
    ]
    whole = {"path": str(prefixes.folder), "bytes": prefixes.bytes, "budget_bytes": prefixes.budget}
    return whole | {"clips": clips}


def show_scores(scores: ScoreStore, screen: Screen) -> None:
    """Print on stderr how many scores there are, if any."""
    if count := scores.count:
        budget = f"at most {size(scores.budget)}" if scores.budget else "switched off"
        total = f"{count:,} {'score' if count == 1 else 'scores'}, {size(scores.total_bytes)}"
        screen.notice(f"{total} ({budget}) in {scores.path}")


def scores_record(scores: ScoreStore) -> dict[str, Any]:
    """Return how many scores there are, for JSON; sizes are in bytes."""
    whole = {"path": str(scores.path), "bytes": scores.total_bytes, "budget_bytes": scores.budget}
    return whole | {"count": scores.count}


def _last_used(entry: Entry) -> datetime:
    return datetime.fromtimestamp(min(max(entry.used, 0.0), _MAX_TIMESTAMP), UTC)


def terminal_section() -> Section:
    """Return which streams are terminals, and the terminal's colours, width and graphics."""
    from rich.console import Console

    from pandacli.terminal.frame_strip import graphics_protocol

    # not sys.stdout itself, which a spinner replaces
    streams = {"stdin": sys.__stdin__, "stdout": sys.__stdout__, "stderr": sys.__stderr__}

    def colours() -> str:
        console = Console(file=sys.__stdout__)
        return "none" if console.no_color else console.color_system or "none"

    facts = [
        find("terminals", lambda: [n for n, s in streams.items() if s and s.isatty()]),
        find("type", lambda: os.environ.get("TERM")),
        find("width", lambda: shutil.get_terminal_size().columns),
        find("colours", colours),
        find("pictures", lambda: graphics_protocol(os.environ) or "half-blocks"),
        find("encoding", lambda: getattr(sys.__stdout__, "encoding", None)),
    ]
    return Section("Terminal", facts)


def show_report(sections: Sequence[Section], screen: Screen) -> None:
    """Print the sections on stdout, then all problems again."""
    facts = [fact for section in sections for fact in section.facts]
    problems = [fact for fact in facts if fact.problem]
    width = max(len(fact.name) for fact in facts) + 2
    for section in sections:
        rows = [_fact_row(fact) for fact in section.facts] or [("  none", "")]
        screen.table(rows, section.title, on_stdout=True, width=width)
        screen.line("")
    title = f"Problems: {len(problems) or 'none found'}"
    screen.table(map(_fact_row, problems), title, on_stdout=True, width=width)


def _fact_row(fact: Fact) -> Row:
    value = "" if fact.value is None and fact.problem else format_value(fact.value)
    return f"  {fact.name}", value, _PROBLEM + fact.problem if fact.problem else ""


def report_record(sections: Sequence[Section]) -> dict[str, Any]:
    """Return the facts of each section, and the problems, for JSON; memory is in bytes."""
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
    return record


def _key(name: str) -> str:
    return name.strip(" -").replace(" ", "_")


def format_value(value: Value) -> str:
    """Return a value for people; in a dict, numbers are followed by their key."""
    if isinstance(value, dict):
        pairs = value.items()
        return ", ".join(v if isinstance(v, str) else f"{format_value(v)} {k}" for k, v in pairs)
    if isinstance(value, list):
        return ", ".join(value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Bytes):
        return size(value)
    return "none" if value is None else str(value)
