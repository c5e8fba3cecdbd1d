"""What a user waits for before panda says something: `python -m benchmarks.startup`.

    python -m benchmarks.startup --repeats 15
    python -m benchmarks.startup --python OTHER/bin/python    # another installation of panda
    python -m benchmarks.startup --beside OTHER/bin/python    # both, in turns

Every row is a process from its start: to its end for what only prints, to the first byte in a
terminal (the spinner), or to the first word of an answer. The rows take turns, beside a Python that
does nothing, so the ratios hold on a busy machine too; the times do only on a quiet one.
"""

import argparse
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from statistics import median
from time import perf_counter
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.one_form import CLIP

_ASK = ("ask", str(CLIP), "What happens?", "--model", "tiny")
_BARE = "bare Python"
IMPORTS = "importing torch and transformers"
"""What every start would take, were they imported at the top."""
# each answer anew, whatever was kept of the clip
_VARIABLES = os.environ | {"TERM": "xterm-256color", "PANDA_CACHE_SIZE": "0"}


def to_the_end(command: Sequence[str], code: int = 0) -> float:
    """Seconds until the process is over.

    Raises:
        RuntimeError: It ends with another code, and so does something else.
    """
    started = perf_counter()
    done = subprocess.run(command, env=_VARIABLES, capture_output=True, check=False)
    seconds = perf_counter() - started
    if done.returncode != code:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}, not {code}")
    return seconds


def to_the_first_byte(command: Sequence[str]) -> float:
    """Seconds until something is shown in a terminal; the process is ended there."""
    ours, terminal = pty.openpty()
    started = perf_counter()
    with subprocess.Popen(command, env=_VARIABLES, stdout=terminal, stderr=terminal) as process:
        os.close(terminal)
        first = _read(ours)
        seconds = perf_counter() - started
        process.kill()
        os.close(ours)
    return seconds if first else float("nan")


def to_the_answer(command: Sequence[str], **variables: str) -> float:
    """Seconds until the first word is on a standard output that is no terminal."""
    environment = _VARIABLES | variables
    started = perf_counter()
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout
        first = _read(process.stdout.fileno())
        seconds = perf_counter() - started
        process.kill()
    return seconds if first else float("nan")


def _read(file: int) -> bytes:
    with suppress(OSError):  # as Linux tells the end of a pseudo-terminal
        return os.read(file, 1)
    return b""


def rows(python: str) -> dict[str, Callable[[], float]]:
    """What is measured, by its name in the table.

    Args:
        python: The interpreter of the panda to be measured.
    """
    panda = (python, "-m", "pandacli")
    return {
        _BARE: lambda: to_the_end((python, "-c", "pass")),
        IMPORTS: lambda: to_the_end((python, "-c", "import torch, transformers.modeling_utils")),
        "panda --version": lambda: to_the_end((*panda, "--version")),
        "panda --help": lambda: to_the_end((*panda, "--help")),
        "panda ask --help": lambda: to_the_end((*panda, "ask", "--help")),
        "panda ask (wrong usage)": lambda: to_the_end((*panda, "ask"), code=2),
        "panda ask: spinner": lambda: to_the_first_byte((*panda, *_ASK)),
        "panda ask: first word": lambda: to_the_answer((*panda, *_ASK)),
    }


def measure(wanted: dict[str, Callable[[], float]], repeats: int) -> dict[str, Any]:
    """Seconds, and how many times those of a bare Python: medians, after a round to warm up."""
    rounds = [{name: run() for name, run in wanted.items()} for _ in range(repeats + 1)][1:]
    return {
        name: {
            "seconds": median(found[name] for found in rounds),
            "ratio": median(found[name] / found[_BARE] for found in rounds),
        }
        for name in wanted
    }


def table_of(found: dict[str, Any]) -> Table:
    """One row a thing that is waited for."""
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    table.add_column("")
    for heading in ("seconds", "bare Pythons"):
        table.add_column(heading, justify="right")
    for name, row in found.items():
        table.add_row(name, f"{row['seconds']:.3f}", f"{row['ratio']:.1f}")
    return table


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--beside", help="Python of another panda, for the time to an answer")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    wanted = parser.parse_args()
    measured = rows(wanted.python)
    if wanted.beside:
        other = (wanted.beside, "-P", "-m", "pandacli", *_ASK)  # not the one of this folder
        measured["the other panda: first word"] = lambda: to_the_answer(other, PYTHONPATH="")
    found = measure(measured, wanted.repeats)
    if wanted.json:
        print(json.dumps(found, indent=2))
        return
    Console().print(table_of(found))


if __name__ == "__main__":
    main()
