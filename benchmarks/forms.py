"""What each form of a checkpoint costs, side by side: `python -m benchmarks.forms CHECKPOINT`.

    python -m benchmarks.big_checkpoint /tmp/big
    python -m benchmarks.forms /tmp/big --forms 8bit,4bit --engines torch,llama --repeats 3

Every form is first converted into a store of its own that is empty, then loaded and asked about
the demo's clip, each time in a fresh process. The forms take turns in every repeat, so that a busy
machine is unfair to all of them alike; the table shows medians, and ratios to its first row. With
`--cold` each is also loaded without an answer before that, from the disk instead of the page cache.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.limits import drop_from_page_cache
from pandacli.checkpoints import resolve
from pandacli.diagnostics.machine import machine_facts

_WIDTH = 104  # of the table, whatever the terminal has
NOT_COLD = "the page cache cannot be dropped"
_WEIGHTS = (".bin", ".safetensors", ".gguf")

ENGINES_OF = {"none": ("torch",), "8bit": ("torch", "bitsandbytes", "llama")}
ENGINES_OF["4bit"] = ENGINES_OF["8bit"]


@dataclass
class Form:
    """A form and what was measured of it.

    Attributes:
        quant: What `--quant` takes.
        engine: What `--engine` takes.
        conversion: The first load, into an empty store.
        file_bytes: What there is on the disk to load afterwards.
        runs: The later loads, each with an answer.
        cold: Loads from files that are not in the page cache, without an answer.
        problem: Why there is nothing more; None where nothing went wrong.
    """

    quant: str
    engine: str
    conversion: dict[str, Any] = field(default_factory=dict)
    file_bytes: int = 0
    runs: list[dict[str, Any]] = field(default_factory=list)
    cold: list[dict[str, Any]] = field(default_factory=list)
    problem: str | None = None

    @property
    def name(self) -> str:
        """What the table calls it."""
        return f"{self.quant} {self.engine}"

    def middle(self, measure: str) -> float | None:
        """The median of a measure over the runs; None where there is none."""
        values = [run[measure] for run in self.runs if measure in run]
        return median(values) if values else None


class Bench:
    """Measures the forms of one checkpoint, one process after the other.

    Args:
        checkpoint: The folder.
        device: What `--device` takes.
        store: An empty folder, for the stored forms.
        tokens: The length of an answer.
    """

    def __init__(self, checkpoint: Path, device: str, store: Path, tokens: int) -> None:
        self.checkpoint, self.device, self.store, self.tokens = checkpoint, device, store, tokens

    def convert(self, form: Form) -> None:
        """Make the form, in a store of its own."""
        form.conversion = self._run(form, tokens=0)
        form.file_bytes = sum(path.stat().st_size for path in self._weight_files(form))

    def load_and_ask(self, form: Form) -> None:
        """Load the stored form and ask once."""
        if measured := self._run(form, tokens=self.tokens):
            form.runs.append(measured)

    def load_cold(self, form: Form) -> dict[str, Any]:
        """Load the stored form from the disk, if the page cache can be dropped."""
        if not drop_from_page_cache(self._weight_files(form)):
            return {}
        if measured := self._run(form, tokens=0):
            form.cold.append(measured)
        return measured

    def _weight_files(self, form: Form) -> list[Path]:
        """The files that are loaded: those of the store, or of the checkpoint if it has none."""
        folders = self.store / form.name, self.checkpoint
        found = ([p for p in f.rglob("*") if p.suffix in _WEIGHTS] for f in folders)
        return next(filter(None, found), [])

    def _run(self, form: Form, tokens: int) -> dict[str, Any]:
        words = [str(self.checkpoint), form.quant, form.engine, self.device, str(tokens)]
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.one_form", *words],
            env=os.environ | {"PANDA_HOME": str(self.store / form.name)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            said = done.stderr.strip().splitlines()
            form.problem = said[-1] if said else f"ended with {done.returncode}"
            return {}
        measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return measured


def measure(
    forms: Sequence[Form], bench: Bench, repeats: int, screen: Console, *, cold: bool = False
) -> None:
    """Convert every form, then load and ask in turns; a form that fails is left out from there.

    Ctrl-C ends it; what has been measured until then stays.
    """
    with suppress(KeyboardInterrupt):
        for form in forms:
            with screen.status(f"converting: {form.name}"):
                bench.convert(form)
            _tell(screen, form, form.conversion)
        for repeat in range(repeats):
            for form in forms:
                if cold and form.problem is None:
                    with screen.status(f"cold load {repeat + 1} of {repeats}: {form.name}"):
                        measured = bench.load_cold(form)
                    _tell(screen, form, measured)
                if form.problem is None:
                    with screen.status(f"run {repeat + 1} of {repeats}: {form.name}"):
                        bench.load_and_ask(form)
                    _tell(screen, form, form.runs[-1] if form.problem is None else {})


def _tell(screen: Console, form: Form, measured: dict[str, Any]) -> None:
    """One run in a line, as the whole may take an hour."""
    facts = (f"{name} {_number(v)}" for name, v in measured.items() if isinstance(v, float))
    screen.print(
        f"{form.name}: {', '.join(facts) or form.problem or NOT_COLD}", markup=False, soft_wrap=True
    )


def table_of(forms: Sequence[Form]) -> Table:
    """One row a form; the ratios are to the first."""
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    table.add_column("form", no_wrap=True)
    for heading in ("file\nGB", "convert\ns", "peak\nGB", "load\ns", "peak\nGB", "x\nfile"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("prefill\ntok/s", "", "decode\ntok/s", "", "first\ns", "peak\nGB"):
        table.add_column(heading, justify="right", no_wrap=True)
    for form in forms:
        table.add_row(form.name, *_cells(form, forms[0]))
    return table


def _cells(form: Form, first: Form) -> Iterable[str]:
    peak = form.middle("load_peak_bytes")
    yield _number(form.file_bytes / 1e9)
    yield _number(form.conversion.get("load_seconds"))
    yield _number(form.conversion.get("load_peak_bytes", 0) / 1e9)
    yield _number(form.middle("load_seconds"))
    yield _number(peak and peak / 1e9)
    yield _number(peak and peak / form.file_bytes)
    for measure in ("prefill_tokens_per_second", "decode_tokens_per_second"):
        value, compared = form.middle(measure), first.middle(measure)
        yield _number(value)
        yield f"x{value / compared:.2f}" if value and compared else ""
    yield _number(form.middle("first_token_seconds"))
    peak = form.middle("ask_peak_bytes")
    yield _number(peak and peak / 1e9)


def _number(value: float | None) -> str:
    if not value:
        return "-"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _forms(quants: str, engines: str) -> list[Form]:
    wanted = engines.split(",")
    return [
        Form(quant, engine)
        for quant in quants.split(",")
        for engine in wanted
        if engine == "auto" or engine in ENGINES_OF[quant]
    ]


def main() -> None:
    """Measure the forms that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("checkpoint", help="a checkpoint folder, or a model's name")
    parser.add_argument("--forms", default="none,8bit,4bit")
    parser.add_argument("--engines", default="torch,bitsandbytes,llama", help="or auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--tokens", type=int, default=16, help="of an answer")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cold", action="store_true", help="also load from the disk itself")
    parser.add_argument("--store", type=Path, help="where the forms are put meanwhile")
    parser.add_argument("--json", action="store_true")
    wanted = parser.parse_args()
    forms = _forms(wanted.forms, wanted.engines)
    screen = Console(stderr=True)
    with tempfile.TemporaryDirectory(dir=wanted.store) as store:
        folder = resolve(wanted.checkpoint).folder  # each form has a PANDA_HOME of its own
        bench = Bench(folder, wanted.device, Path(store), wanted.tokens)
        measure(forms, bench, wanted.repeats, screen, cold=wanted.cold)
    if wanted.json:
        facts = {s.title: {fact.name: fact.value for fact in s.facts} for s in machine_facts()}
        print(json.dumps({"machine": facts, "forms": [asdict(form) for form in forms]}, indent=2))
    else:
        Console(width=max(_WIDTH, Console().width)).print(table_of(forms))
    for form in forms:
        if form.problem:
            screen.print(f"{form.name}: {form.problem}", markup=False)


if __name__ == "__main__":
    main()
