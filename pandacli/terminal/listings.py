"""Models and what is here of them: a table, the facts of one, and both as JSON.

What is kept of clips: a table, and the same as JSON.
"""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from pandacli.checkpoints.description import CheckpointInfo
from pandacli.checkpoints.inventory import ModelState, published_digests
from pandacli.checkpoints.registry import KnownModel
from pandacli.prefix_cache.store import Entry, PrefixStore
from pandacli.terminal.console import Screen
from pandacli.terminal.report import json_text, size
from pandacli.terminal.text import sanitize_line
from pandacli.video.clip import format_time

_HEADINGS = ("MODEL", "QUANT", "SIZE", "LICENCE")
UNKNOWN_COMMIT = {
    True: "unknown to panda, but its weights match the known commit",
    False: "unknown to panda, with different weights; verified against the hub's digests only",
    None: "unknown to panda; files verified against the hub's digests only",
}
"""What is said of a commit, by whether its weights are known ones."""

_STATES = {"here": "here", "incomplete": "incomplete", "absent": "not on this machine"}


class Row(NamedTuple):
    """A form of a model that is here, or a model that can be had."""

    name: str
    quant: str
    size: str
    licence: str
    place: str


def models_rows(models: Sequence[ModelState]) -> list[Row]:
    """Returns a row for each form of each model, or one that says how to get it."""
    return [row for model in models for row in _rows(model)]


def show_models(models: Sequence[ModelState], screen: Screen) -> None:
    """Prints the rows: with the place under each on a terminal, else with tabs between columns."""
    rows = models_rows(models)
    if not screen.stdout_is_terminal:
        for row in rows:
            screen.line("\t".join(sanitize_line(cell) for cell in row))
        return
    from rich.text import Text

    widths = [max(len(row[column]) for row in (_HEADINGS, *rows)) for column in range(3)]
    screen.out.print(Text(_columns(_HEADINGS, widths), style="dim"))
    for row in rows:
        screen.out.print(Text(sanitize_line(_columns(row[:4], widths))), soft_wrap=True)
        place = Text(f"  {sanitize_line(_short(row.place))}", style="dim")
        screen.out.print(place, soft_wrap=True)


def models_json(models: Sequence[ModelState], *, pretty: bool) -> str:
    """Returns one JSON object with all models; sizes are in bytes."""
    return json_text({"models": [_record(m) for m in models]}, pretty=pretty)


def _rows(model: ModelState) -> list[Row]:
    rows = []
    found = model.checkpoint
    if found and model.state == "here":
        rows.append(Row(model.name, "none", size(model.bytes), model.licence, str(found.folder)))
    rows += [
        Row(model.name, copy.quant, size(copy.bytes), model.licence, str(copy.folder))
        for copy in model.artifacts
    ]
    if not rows and model.known:
        command = model.known.download_command
        here = model.partial_bytes + (model.bytes if found else 0)
        place = f"{size(here)} here, get the rest: {command}" if here else f"get it: {command}"
        whole = size(model.known.download_bytes)
        rows.append(Row(model.name, "-", whole, model.licence, place))
    return rows


def _columns(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=False)]
    return "  ".join([*padded, *cells[len(widths) :]])


def _short(path: str) -> str:
    """A path under the home folder as people write it."""
    home = str(Path.home())
    return f"~{path[len(home) :]}" if path.startswith(home + "/") else path


def _record(model: ModelState) -> dict[str, Any]:
    found = model.checkpoint
    return {
        "name": model.name,
        "state": model.state,
        "licence": model.licence,
        "path": str(found.folder) if found else None,
        "kind": found.kind if found else None,
        "repository": model.known.repo if model.known else None,
        "commit": model.commit,
        "commit_known": model.has_known_commit,
        "bytes": model.bytes,
        "partial_bytes": model.partial_bytes,
        "remains_bytes": model.leftover_bytes,
        "copies": [
            {
                "quant": copy.quant,
                "form": copy.form,
                "path": str(copy.folder),
                "bytes": copy.bytes,
                "commit": copy.commit,
                "source_sha256": copy.digest,
            }
            for copy in model.artifacts
        ],
    }


def show_model(model: ModelState, description: CheckpointInfo | None, screen: Screen) -> None:
    """Prints the facts of one model in two columns, and then its files and copies."""
    facts = _facts(model, description)
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        screen.line(f"{name:<{width}}  {sanitize_line(value)}")
    checked = published_digests(model)
    if description:
        screen.line("\nfiles")
        names = max(map(len, description.files))
        for name, count in description.files.items():
            digest = checked.get(name)
            ending = f"  sha256 {digest[:12]}…" if digest else ""
            screen.line(f"  {sanitize_line(name):<{names}}  {size(count):>9}{ending}")
    _show_known(model, screen)
    if model.artifacts:
        screen.line("\ncopies")
    for copy in model.artifacts:
        screen.line(f"  {copy.quant}  {copy.form}  {size(copy.bytes):>9}")
        screen.line(f"    {sanitize_line(_short(str(copy.folder)))}")


def _commit(model: ModelState) -> list[tuple[str, str]]:
    """The commit that is here, and whether panda knows it; else the one it knows."""
    known = model.known.known_commit if model.known else None
    if model.commit is None:
        return [("known", f"commit {known}")] if known else []
    if model.has_known_commit:
        return [("commit", f"{model.commit}, known to panda")]
    if model.known is None or known is None:
        return [("commit", model.commit)]
    digests = published_digests(model)
    weights = model.known.has_known_weights(digests) if digests else None
    words = UNKNOWN_COMMIT[weights]
    return [("commit", f"{model.commit}, {words}"), ("known", f"commit {known}")]


def _show_known(model: ModelState, screen: Screen) -> None:
    """Prints what is known of the published files, whether they are here or not."""
    if model.known is None or not model.known.known_files:
        return
    screen.line(f"\nknown of the files in commit {model.known.known_commit}")
    names = max(len(file.name) for file in model.known.known_files)
    for file in model.known.known_files:
        count = f"{file.bytes:,} bytes" if file.exact else f"about {file.bytes / 1e9:.2f} GB"
        screen.line(f"  {file.name:<{names}}  {count:>13}")
        if file.sha256:
            screen.line(f"    sha256 {file.sha256}")


def model_json(model: ModelState, description: CheckpointInfo | None, *, pretty: bool) -> str:
    """Returns one JSON object with the facts of one model; sizes are in bytes."""
    checked = published_digests(model)
    files = description.files if description else {}
    described = {
        "sizes": description.sizes if description else {},
        "parameters": description.parameters if description else None,
        "parameters_exact": bool(description and description.exact),
        "files": [
            {"name": name, "bytes": count, "sha256": checked.get(name)}
            for name, count in files.items()
        ],
        "known": _known_record(model.known) if model.known else None,
    }
    return json_text(_record(model) | described, pretty=pretty)


def _known_record(model: KnownModel) -> dict[str, Any] | None:
    if model.known_commit is None:
        return None
    return {
        "commit": model.known_commit,
        "files": [
            {
                "name": file.name,
                "bytes": file.bytes,
                "bytes_exact": file.exact,
                "sha256": file.sha256,
            }
            for file in model.known_files
        ],
    }


def _facts(model: ModelState, description: CheckpointInfo | None) -> list[tuple[str, str]]:
    facts = [("model", model.name)]
    if model.known:
        facts.append(("what", model.known.summary))
    facts.append(("licence", model.licence))
    if model.known and model.known.repo:
        facts.append(("from", model.known.published_in))
    facts.append(("state", _STATES[model.state]))
    if model.known and model.state != "here":
        facts.append(("get it", model.known.download_command))
    if model.checkpoint:
        facts.append(("path", _short(str(model.checkpoint.folder))))
    facts += _commit(model)
    facts.append(("size", size(model.bytes)))
    if model.partial_bytes:
        facts.append(("unfinished", size(model.partial_bytes)))
    if model.leftovers:
        facts.append(("left over", f"{size(model.leftover_bytes)} of unfinished or damaged copies"))
    if description:
        facts += [(name, f"{value:,}") for name, value in description.sizes.items()]
        if description.parameters:
            about = "" if description.exact else "about "
            facts.append(("parameters", f"{about}{description.parameters:,}"))
    return facts


_LAST_MOMENT = 250_000_000_000.0  # of the year 9892: file systems know later ones
_MOST_ROWS = 100  # on a terminal
_PREFIX_HEADINGS = ("SIZE", "LAST USED", "MODEL", "RANGE", "CLIP")


class _Row(NamedTuple):
    size: str
    used: str
    model: str
    range: str
    video: str


def show_prefixes(prefixes: PrefixStore, screen: Screen) -> None:
    """Prints a row for each clip, the one used last first; on a terminal in columns, up to 100.

    What they take together, and may take, is said on stderr.
    """
    most = _MOST_ROWS if screen.stdout_is_terminal else None
    rows = [_row(entry) for entry in prefixes.entries(most)]
    count = prefixes.count
    if not screen.stdout_is_terminal:
        for row in rows:
            screen.line("\t".join(map(sanitize_line, row)))
    elif rows:
        _prefix_columns(rows, screen)
    many = f"{count} {'clip' if count == 1 else 'clips'}"
    if count > len(rows):
        many = f"the newest {len(rows)} of {many}"
    limit = f"at most {size(prefixes.budget)}" if prefixes.budget else "switched off"
    screen.notice(f"{many}, {size(prefixes.bytes)} ({limit}) in {prefixes.folder}")


def prefixes_json(prefixes: PrefixStore, *, pretty: bool) -> str:
    """Returns one JSON object with all clips; sizes are in bytes."""
    record = {
        "path": str(prefixes.folder),
        "bytes": prefixes.bytes,
        "budget_bytes": prefixes.budget,
        "clips": [
            asdict(entry.metadata)
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
    label = entry.metadata
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


def _prefix_columns(rows: Sequence[_Row], screen: Screen) -> None:
    from rich.text import Text

    shown = [[sanitize_line(cell) for cell in row] for row in (_PREFIX_HEADINGS, *rows)]
    widths = [max(len(row[column]) for row in shown) for column in range(len(_PREFIX_HEADINGS) - 1)]
    for number, row in enumerate(shown):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        line = Text("  ".join([*cells, row[-1]]), style="" if number else "dim")
        screen.out.print(line, soft_wrap=True)
