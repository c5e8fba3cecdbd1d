"""The output of `panda models`, `info`, `cache` and `doctor`: tables, and the same as JSON."""

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
from pandacli.terminal.report import json_text
from pandacli.terminal.text import sanitize_line
from pandacli.units import size
from pandacli.video.clip import format_time

UNKNOWN_COMMIT = {
    True: "unknown to panda, but its weights match the known commit",
    False: "unknown to panda, with different weights; verified against the hub's digests only",
    None: "unknown to panda; files verified against the hub's digests only",
}
"""Description of an unknown commit, by whether its weights are known ones."""

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


def models_json(models: Sequence[ModelState], *, pretty: bool) -> str:
    """Return one JSON object with all models; sizes are in bytes."""
    return json_text({"models": [_model_record(model) for model in models]}, pretty=pretty)


def _model_rows(model: ModelState) -> Iterator[Row]:
    """Yield name, quantisation, size, licence and folder of each form, or how to download it."""
    found, known = model.checkpoint, model.known
    if found and model.state == "here":
        yield model.name, "none", size(model.bytes), model.licence, str(found.folder)
    elif known and not model.artifacts:
        here = model.partial_bytes + (model.bytes if found else 0)
        get = f"{size(here)} here, get the rest: " if here else "get it: "
        place = get + known.download_command
        yield model.name, "-", size(known.download_bytes), model.licence, place
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
    screen.out.print(heading, style="dim", soft_wrap=True)
    for line, row in zip(lines, rows, strict=True):
        screen.out.print(line, soft_wrap=True)
        for cell in row[count:]:
            screen.out.print(f"  {sanitize_line(_tilde(cell))}", style="dim", soft_wrap=True)


def _align(rows: Sequence[Row]) -> list[str]:
    """Return rows as lines with aligned columns; the last column is not padded."""
    cells = [[sanitize_line(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    widths[-1] = 0
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        for row in cells
    ]


def _tilde(path: str) -> str:
    """Return a path with the home folder as `~`."""
    home = str(Path.home())
    return f"~{path[len(home) :]}" if path.startswith(home + "/") else path


def _model_record(model: ModelState) -> dict[str, Any]:
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
        screen.line(f"\nknown of the files in commit {model.known.known_commit}")
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


def model_json(model: ModelState, info: CheckpointInfo | None, *, pretty: bool) -> str:
    """Return one JSON object with the facts of one model; sizes are in bytes."""
    digests, known = published_digests(model), None
    if model.known and model.known.known_commit is not None:
        files = [
            {
                "name": file.name,
                "bytes": file.bytes,
                "bytes_exact": file.exact,
                "sha256": file.sha256,
            }
            for file in model.known.known_files
        ]
        known = {"commit": model.known.known_commit, "files": files}
    record = _model_record(model) | {
        "sizes": info.sizes if info else {},
        "parameters": info.parameters if info else None,
        "parameters_exact": bool(info and info.exact),
        "files": [
            {"name": name, "bytes": count, "sha256": digests.get(name)}
            for name, count in (info.files if info else {}).items()
        ],
        "known": known,
    }
    return json_text(record, pretty=pretty)


def _model_facts(model: ModelState, info: CheckpointInfo | None) -> Iterator[Row]:
    known = model.known
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
    yield from _commit_facts(model)
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


def _commit_facts(model: ModelState) -> Iterator[Row]:
    """Yield the commit on this machine and, where it differs, the one panda knows."""
    commit, known = model.commit, model.known
    is_known = model.has_known_commit
    if commit and known and known.known_commit and not is_known:
        digests = published_digests(model)
        weights = known.has_known_weights(digests) if digests else None
        yield "commit", f"{commit}, {UNKNOWN_COMMIT[weights]}"
    elif commit:
        yield "commit", f"{commit}, known to panda" if is_known else commit
    if known and known.known_commit and not is_known:
        yield "known", f"commit {known.known_commit}"


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


def prefixes_json(prefixes: PrefixStore, *, pretty: bool) -> str:
    """Return one JSON object with all cached clips; sizes are in bytes."""
    clips = [
        asdict(entry.metadata)
        | {"bytes": entry.bytes, "last_used": _last_used(entry).isoformat(timespec="seconds")}
        | {"path": str(entry.folder)}
        for entry in prefixes.entries()
    ]
    whole = {"path": str(prefixes.folder), "bytes": prefixes.bytes, "budget_bytes": prefixes.budget}
    return json_text(whole | {"clips": clips}, pretty=pretty)


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

    return Section(
        "Terminal",
        [
            find("terminals", lambda: [n for n, s in streams.items() if s and s.isatty()]),
            find("type", lambda: os.environ.get("TERM")),
            find("width", lambda: shutil.get_terminal_size().columns),
            find("colours", colours),
            find("pictures", lambda: graphics_protocol(os.environ) or "half-blocks"),
            find("encoding", lambda: getattr(sys.__stdout__, "encoding", None)),
        ],
    )


def show_report(sections: Sequence[Section], screen: Screen) -> None:
    """Print the sections on stdout, then all problems again."""
    width = max(len(fact.name) for section in sections for fact in section.facts)
    for section in sections:
        _show_section(section.title, section.facts or [Fact("none", "")], width, screen)
        screen.line("")
    problems = [fact for section in sections for fact in section.facts if fact.problem]
    _show_section(f"Problems: {len(problems) or 'none found'}", problems, width, screen)


def report_json(sections: Sequence[Section], *, pretty: bool) -> str:
    """Return one JSON object: the facts of each section, and the problems; memory is in bytes."""
    record: dict[str, Any] = {}
    problems = []
    for section in sections:
        title = _key(section.title)
        record[title] = {_key(fact.name): fact.value for fact in section.facts}
        problems += [
            {"section": title, "fact": _key(fact.name), "problem": fact.problem}
            for fact in section.facts
            if fact.problem
        ]
    return json_text(record | {"problems": problems}, pretty=pretty)


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


def _key(name: str) -> str:
    return name.strip(" -").replace(" ", "_")


def _show_section(title: str, facts: Sequence[Fact], width: int, screen: Screen) -> None:
    rows = []
    for fact in facts:
        value = "" if fact.value is None and fact.problem else format_value(fact.value)
        problem = _PROBLEM + fact.problem if fact.problem else ""
        rows.append(tuple(map(sanitize_line, (f"  {fact.name:<{width}}", value, problem))))
    if not screen.stdout_is_terminal:
        screen.line(title)
        for name, *texts in rows:
            screen.line(f"{name}  {' - '.join(filter(None, texts))}".rstrip())
        return
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(width=width + 2, no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    for name, value, problem in rows:
        if value or not problem:
            grid.add_row(name, value)
        if problem:
            grid.add_row("" if value else name, Text(problem, style="red"))
    screen.out.print(title, style="bold")
    screen.out.print(grid)
