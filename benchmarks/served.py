"""What a server saves at the start of an answer: `python -m benchmarks.served`.

    python -m benchmarks.served --repeats 9

Seconds from the start of `panda ask` to the first word of its answer, with `tiny`: with the model
loaded in the process, without and with the clip in the disk cache, and with that of a server, over
its Unix socket and over TCP. The rows take turns, and are medians after a round to warm up; in it
the server reads the clip, so that each question is a later one about it.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks.one_form import CLIP
from benchmarks.startup import to_the_answer

HERE, CACHED = "in the process", "in the process, clip cached"
SERVED = ("a server, Unix socket", "a server, TCP")
GOAL = 0.5  # seconds
_PANDA = (sys.executable, "-m", "pandacli")
_ASK = (*_PANDA, "ask", str(CLIP), "What happens?", "--model", "tiny")


@contextmanager
def server(home: Path) -> Iterator[str]:
    """The address of a server in the background, whose socket is below `home`."""
    variables = os.environ | {"PANDA_HOME": str(home)}
    command = (*_PANDA, "serve", "--model", "tiny", "--background", "--port", "0")
    started = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    found = re.search(r"http://[\d.]+:\d+", started.stderr)
    assert found
    try:
        yield found[0]
    finally:
        subprocess.run((*_PANDA, "stop", "--quiet"), env=variables, check=True)


def measure(repeats: int) -> dict[str, float]:
    """Median seconds to the first word, by what answers."""
    with tempfile.TemporaryDirectory(prefix="panda-") as folder, server(Path(folder)) as address:
        home = {"PANDA_HOME": folder}
        ways = {
            HERE: {"PANDA_SERVER": "none"},
            CACHED: {"PANDA_SERVER": "none", "PANDA_CACHE_SIZE": "4GB"},
            SERVED[0]: {"PANDA_SERVER": "auto"},
            SERVED[1]: {"PANDA_SERVER": address},
        }
        subprocess.run(_ASK, env=os.environ | home | ways[CACHED], capture_output=True, check=True)
        rounds = [
            {name: to_the_answer(_ASK, **home, **how) for name, how in ways.items()}
            for _ in range(repeats + 1)
        ][1:]
    return {name: median(found[name] for found in rounds) for name in ways}


def table_of(found: dict[str, float]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    table.add_column("first word of panda ask")
    for heading in ("seconds", f"beside {HERE}"):
        table.add_column(heading, justify="right")
    for name, seconds in found.items():
        table.add_row(name, f"{seconds:.3f}", f"{seconds / found[HERE]:.3f}")
    return table


def main() -> None:
    """Measure as often as the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    wanted = parser.parse_args()
    found = measure(wanted.repeats)
    if wanted.json:
        print(json.dumps(found, indent=2))
        return
    Console().print(table_of(found))


if __name__ == "__main__":
    main()
