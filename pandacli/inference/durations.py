"""Slow steps of a model, and how long each took last time on this machine.

A file keeps the last duration of each kind of step with its amount, from which that of another
amount is estimated: a prompt of half as many tokens takes half as long. Displays need no more, so
a file that cannot be read or written is as good as none.
"""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING

from pandacli.background import Step, running
from pandacli.file_io import atomic_write_text, read_object
from pandacli.prefix_cache.store import cache_folder

if TYPE_CHECKING:
    from pandacli.inference.planning.planner import Plan

_SHORT = 1.0  # seconds of a step that is not kept: there is hardly time to read how long it takes
_INTERVAL = 60.0  # seconds between two writes of a kind of step, so that a batch does not wait
_MOST = 200  # kinds that are kept
_MAX_BYTES = 1 << 20

_lock = Lock()
_written: dict[tuple[Path, str], float] = {}  # when, by file and kind


@contextmanager
def timed(words: str, total: int, unit: str, kind: str) -> Iterator[Step]:
    """Make a step the current one for the block, and keep how long it takes, unless it fails.

    `kind` is the step with `kind_of` its plan.
    """
    step = Step(words, total, unit, partial(last_seconds, kind, total))
    with running(step):
        yield step
    seconds = monotonic() - step.began
    if seconds >= _SHORT and total > 0:
        _keep(kind, total, seconds)


def kind_of(plan: "Plan") -> str:
    """What a duration depends on besides the step: the model, its form, engine and devices."""
    devices = ",".join(map(str, plan.placement.devices))
    return f"{plan.model.name} {plan.quant} {plan.backend} {devices}"


def last_seconds(kind: str, total: int) -> float | None:
    """How long a step of this kind took last time, scaled to its amount; None if unknown."""
    if (kept := _read(_path()).get(kind)) is None:
        return None
    seconds, amount = kept
    return seconds * total / amount


def _path() -> Path:
    return cache_folder() / "durations.json"


def _keep(kind: str, total: int, seconds: float) -> None:
    path, now = _path(), monotonic()
    with _lock, suppress(OSError):
        if now - _written.get((path, kind), -math.inf) < _INTERVAL:
            return
        _written[path, kind] = now
        kept = _read(path)
        kept.pop(kind, None)
        kept[kind] = round(seconds, 2), total  # the newest is last
        newest = dict([*kept.items()][-_MOST:])
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_text(path, json.dumps(newest, indent=1))


def _read(path: Path) -> dict[str, tuple[float, int]]:
    """Seconds and amount by kind, without what is damaged."""
    try:
        entries = read_object(path, _MAX_BYTES)
    except (OSError, ValueError):
        return {}
    return {kind: (entry[0], entry[1]) for kind, entry in entries.items() if _is_valid(entry)}


def _is_valid(entry: object) -> bool:
    is_pair = isinstance(entry, list) and len(entry) == 2
    return is_pair and all(
        type(n) in (int, float) and 0 < n < 1e15
        for n in entry  # type: ignore[attr-defined]
    )
