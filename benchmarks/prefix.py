"""What a prefix that is there already spares: `python -m benchmarks.prefix CHECKPOINT`.

    python -m benchmarks.big_checkpoint /tmp/wide4 --layers 4
    python -m benchmarks.prefix /tmp/wide4 --quant 8bit --engine torch

The same question about the same clip, from the moment that the model is loaded to the first token
of the answer: cold (frames are read, encoded and prefilled), warm (the prefix is in the memory of
the same process) and from the disk, in a process of its own. Medians over pairs of processes, which
each begin with an empty cache. What was written may still be in the page cache of the system.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.one_form import CLIP
from pandacli import Panda
from pandacli.prefix_cache.clip_cache import ClipCache
from pandacli.video.clip import Clip

QUESTION = "What happens in this video?"
_FRAMES = 8
_ROOM = 1 << 40  # bytes; nothing is removed


def look(checkpoint: str, how_run: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Load a model, ask twice and keep the prefix; returns what was measured.

    Whether the first answer is cold or from the disk depends on what is in the folder.
    """
    panda = Panda.load(checkpoint, **how_run)
    started = perf_counter()
    kept = ClipCache(Clip(CLIP), _FRAMES, budget=_ROOM, folder=folder)
    opened = panda.open(CLIP, num_frames=_FRAMES, cache=kept)
    stats = opened.ask(QUESTION, max_tokens=1).stats
    first = perf_counter() - started
    started = perf_counter()
    opened.ask(QUESTION, max_tokens=1)
    warm = perf_counter() - started
    started = perf_counter()
    opened.keep()
    (entry,) = kept.store.entries()
    return {
        "quant": panda.quant,
        "engine": panda.engine,
        "prefix_tokens": stats.prefix_tokens,
        "computed_tokens": stats.prefilled_tokens,
        "first": first,
        "warm": warm,
        "keep": perf_counter() - started,
        "bytes": entry.bytes,
    }


def measure(checkpoint: str, how_run: dict[str, Any], repeats: int) -> dict[str, Any]:
    """The seconds of each way to a first token, medians over pairs of processes."""
    pairs = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            pairs.append([_in_a_process(checkpoint, how_run, folder) for _ in range(2)])
    cold, from_disk = zip(*pairs, strict=True)
    assert all(run["computed_tokens"] < run["prefix_tokens"] for run in from_disk)
    return {
        **{name: cold[0][name] for name in ("quant", "engine", "prefix_tokens", "bytes")},
        "cold_seconds": median(run["first"] for run in cold),
        "warm_seconds": median(run["warm"] for run in (*cold, *from_disk)),
        "disk_seconds": median(run["first"] for run in from_disk),
        "keep_seconds": median(run["keep"] for run in cold),
    }


def _in_a_process(checkpoint: str, how_run: dict[str, Any], folder: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.prefix", checkpoint, "--look", folder]
    for name, value in how_run.items():
        command += [f"--{name}", value]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


def table_of(measured: dict[str, Any]) -> Table:
    """One row a way; the last column is how many times sooner than cold."""
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    for heading in ("prefix", "first token, s", "sooner"):
        table.add_column(heading, justify="right")
    cold = measured["cold_seconds"]
    for name in ("cold", "disk", "warm"):
        seconds = measured[f"{name}_seconds"]
        table.add_row(name, f"{seconds:.3g}", f"{cold / seconds:.1f}x")
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("checkpoint", help="a checkpoint folder, or a model's name")
    parser.add_argument("--quant", default="auto")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--look", type=Path, help=argparse.SUPPRESS)  # a process of its own
    wanted = parser.parse_args(arguments)
    how_run = {name: getattr(wanted, name) for name in ("quant", "engine", "device")}
    if wanted.look:
        print(json.dumps(look(wanted.checkpoint, how_run, wanted.look)))
        return
    Panda.load(wanted.checkpoint, **how_run)  # quantised once, and not in what is measured
    measured = measure(wanted.checkpoint, how_run, wanted.repeats)
    if wanted.json:
        print(json.dumps(measured, indent=2))
        return
    Console().print(table_of(measured))
    print(
        f"{measured['prefix_tokens']} tokens, {measured['bytes'] / 1e6:.1f} MB,"
        f" kept in {measured['keep_seconds']:.2f} s after the answer"
        f" ({measured['quant']}, {measured['engine']})"
    )


if __name__ == "__main__":
    main()
