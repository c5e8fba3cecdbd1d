"""What a card does, in one command and at most four minutes: `python -m benchmarks.cuda`.

    python -m benchmarks.cuda --json card.json
    TMPDIR=/data python -m benchmarks.cuda --layers 8 --seconds 120    # 26 GB with all 32 layers
    python -m benchmarks.cuda --device cpu --model tiny                # a rehearsal without a card

Nothing is downloaded. The limits of the card are measured first; then a checkpoint of the 7B's size
with random weights is written. The tests that need a card run while it is quantised, which takes
processors and not the card. Each form is then loaded by a process of its own and asked about the
demo's clip: alone, through CUDA graphs and without them, and 25 questions at once. A step that
fails is named with its reason, and the others go on; so are those that are left when the time is
up. Ends with 1 where a step failed, and with 5 without a card.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.console import Console

from benchmarks.__main__ import described
from benchmarks.forms import Form
from benchmarks.limits import Limits
from benchmarks.report import Row, table_of
from benchmarks.shares import forms_shares
from pandacli.diagnostics.machine import machine_facts
from pandacli.errors import DeviceError

ROOT = Path(__file__).parents[1]
QUANTS = ("none", "8bit", "4bit")
_QUESTIONS = 25
_WIDTH = 130  # of the table, whatever the terminal has
_REPEATS = "3"  # of the limits
_QUANTISED_BY = 0.6  # of the time: what takes longer would leave none to measure the forms
_COUNT = re.compile(r"(\d+) (passed|failed|errors?|skipped)")


class Steps:
    """Runs modules one after the other, each in a process, until the time is up.

    Args:
        seconds: For all of them.
        home: Where quantised copies are put.
    """

    def __init__(self, seconds: float, home: Path) -> None:
        self.problems: dict[str, str] = {}
        self._started, self._seconds = perf_counter(), seconds
        self._environment = os.environ | {"PANDA_HOME": str(home)}

    @property
    def taken(self) -> float:
        """Seconds since the start."""
        return perf_counter() - self._started

    def run(self, name: str, words: Sequence[str], share: float = 1.0) -> str:
        """The standard output of a module; the step is a problem if it fails.

        Args:
            name: What the step is called.
            words: The module and its arguments.
            share: Of the time, at which it has to have ended.
        """
        left = self._seconds * share - self.taken
        if left <= 0:
            self.problems[name] = "left out: the time was up"
            return ""
        command = [sys.executable, "-m", *words]
        try:
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=left,
                check=False,
            )
        except subprocess.TimeoutExpired:
            self.problems[name] = "stopped: the time was up"
            return ""
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip()).splitlines()
            self.problems[name] = said[-1] if said else f"ended with {done.returncode}"
        return done.stdout

    def measure(self, name: str, words: Sequence[str]) -> Any:
        """What the last line of a module's output says in JSON; None if the step fails."""
        text = self.run(name, words)
        return None if name in self.problems else json.loads(text.splitlines()[-1])


def bench(wanted: argparse.Namespace, folder: Path, screen: Console) -> dict[str, Any]:
    """Run all steps.

    Args:
        wanted: The command line.
        folder: Empty, for the checkpoint and its quantised copies.
        screen: Where each step is named when it begins.

    Returns:
        The limits, the tests, the forms, the problems by step, and the seconds that it took.
    """
    steps = Steps(wanted.seconds, folder / "home")
    checkpoint = wanted.model or str(folder / "checkpoint")
    forms = [Form(quant, "") for quant in QUANTS]

    def say(name: str) -> None:
        screen.print(f"{steps.taken:4.0f} s  {name}", markup=False, highlight=False)

    say("the card's limits")
    limits = _limits(steps, wanted.device)
    if not wanted.model:
        say("writing a checkpoint")
        steps.run(
            "checkpoint", ["benchmarks.big_checkpoint", checkpoint, f"--layers={wanted.layers}"]
        )
    with ThreadPoolExecutor(1) as pool:
        say("tests, and quantising")
        for form in forms[1:]:
            words = ["benchmarks.form_on_card", checkpoint, form.quant, wanted.device]
            pool.submit(steps.run, f"quantising to {form.quant}", words, _QUANTISED_BY)
        tests = _tests(steps)
    for form in forms:
        if f"quantising to {form.quant}" in steps.problems:
            continue  # the reason is given already
        say(form.quant)
        words = [checkpoint, form.quant, wanted.device, str(wanted.tokens), str(_QUESTIONS)]
        if found := steps.measure(form.quant, ["benchmarks.form_on_card", *words]):
            form.engine = found["engine"]
            form.runs.append(found)
    return {
        "limits": limits,
        "tests": tests,
        "forms": [asdict(form) for form in forms],
        "problems": steps.problems,
        "seconds": steps.taken,
    }


def _limits(steps: Steps, device: str) -> dict[str, Any] | None:
    kind, _, _ = device.partition(":")
    words = ["benchmarks.limits", "--device", kind, "--repeats", _REPEATS, "--json"]
    text = steps.run("limits", words)
    found: dict[str, Any] | None = None if "limits" in steps.problems else json.loads(text)
    return found


def _tests(steps: Steps) -> dict[str, Any]:
    """How many of the tests that need a card passed, failed and were skipped, and which failed."""
    marked = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if "pytest.mark.cuda" in path.read_text()
    ]
    # a warning of a library for CUDA is no failure here
    options = ["-m", "cuda", "-q", "-W", "default", "-p", "no:cacheprovider"]
    lines = steps.run("tests", ["pytest", *options, *marked]).splitlines()
    counts = {what: int(count) for count, what in _COUNT.findall(lines[-1] if lines else "")}
    failed = [line.removeprefix("FAILED ") for line in lines if line.startswith("FAILED ")]
    return {"counts": counts, "failed": failed}


def rows_of(found: dict[str, Any]) -> Iterator[Row]:
    """The limits, and what each form did, beside them where they were measured."""
    limits = Limits(**found["limits"]) if found["limits"] else None
    if limits:
        yield from limits.rows()
    for form in found["forms"]:
        for run in form["runs"]:
            name = f"{form['quant']} {form['engine']}"
            shares = forms_shares({"forms": [form]}, limits) if limits else ()
            beside = {row.group: replace(row, group=name, name=row.group) for row in shares}
            for what in ("prefill", "decode"):
                plain = Row(name, what, run[f"{what}_tokens_per_second"], "tokens/s")
                yield beside.get(what, plain)
            yield from _other_rows(name, run)


def _other_rows(name: str, run: dict[str, Any]) -> Iterator[Row]:
    if eager := run.get("eager_decode_tokens_per_second"):
        how = "without" if run["graphs_problem"] is None else run["graphs_problem"]
        graphed = run["decode_tokens_per_second"]
        yield Row(name, "decode through graphs", graphed, "tokens/s", how, eager)
    batch = f"{run['batch_questions']} questions at once"
    yield Row(name, batch, run["batch_answers_per_second"], "answers/s")
    yield Row(name, "loading", run["load_seconds"], "s")
    yield Row(name, "peak memory", run["peak_bytes"] / 1e9, "GB")


def main() -> None:
    """Measure what the command line names."""
    import torch

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="cuda", help="what --device of panda takes")
    parser.add_argument("--model", help="instead of a checkpoint that is written for it")
    parser.add_argument("--layers", type=int, default=32, help="of that checkpoint")
    parser.add_argument("--tokens", type=int, default=32, help="of an answer")
    parser.add_argument("--seconds", type=float, default=240.0, help="for all of it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write what was found")
    wanted = parser.parse_args()
    screen = Console(stderr=True)
    if wanted.device.startswith("cuda") and not torch.cuda.is_available():
        screen.print("no CUDA device found; --device cpu --model tiny rehearses the steps")
        sys.exit(DeviceError.exit_code)
    with tempfile.TemporaryDirectory() as folder:
        found = bench(wanted, Path(folder), screen)
    facts = {s.title: {fact.name: fact.value for fact in s.facts} for s in machine_facts()}
    if wanted.json:
        wanted.json.write_text(json.dumps({"machine": facts} | found, indent=2) + "\n")
    console = Console(width=max(_WIDTH, Console().width))
    console.print(described(facts), markup=False)
    console.print(table_of([*rows_of(found)]))
    counts = ", ".join(f"{count} {what}" for what, count in found["tests"]["counts"].items())
    console.print(f"tests: {counts or 'none'}; {found['seconds']:.0f} s for all", markup=False)
    for name, reason in found["problems"].items():
        screen.print(f"{name}: {reason}", markup=False)
    sys.exit(bool(found["problems"]))


if __name__ == "__main__":
    main()
