"""The table of forms: what is measured, and what is made of it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.forms import Bench, Form, measure, table_of

ROOT = Path(__file__).parents[2]


def run(decode: float, load: float = 1.0) -> dict[str, float]:
    return {
        "load_seconds": load,
        "load_peak_bytes": 3e9,
        "prefill_tokens_per_second": 100.0,
        "decode_tokens_per_second": decode,
        "first_token_seconds": 0.5,
        "ask_peak_bytes": 4e9,
    }


def rows(forms: list[Form]) -> list[list[str]]:
    console = Console(width=120)
    with console.capture() as shown:
        console.print(table_of(forms))
    return [line.split() for line in shown.get().splitlines()[-len(forms) :]]


def test_medians_are_shown_with_ratios_to_the_first_row() -> None:
    first = Form("none", "torch", {}, 2_000_000_000, [run(4), run(5), run(90)])
    second = Form("8bit", "torch", {"load_seconds": 60, "load_peak_bytes": 4e9}, 1_000_000_000)
    second.runs = [run(10)]
    assert rows([first, second]) == [
        ["none", "torch", "2", "-", "-", "1", "3", "1.5", "100", "x1.00", "5", "x1.00", "0.5", "4"],
        ["8bit", "torch", "1", "60", "4", "1", "3", "3", "100", "x1.00", "10", "x2.00", "0.5", "4"],
    ]


def test_a_form_that_fails_is_left_out_of_the_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def convert(_: Bench, form: Form) -> None:
        form.problem = "no such engine" if form.engine == "llama" else None

    monkeypatch.setattr(Bench, "convert", convert)
    monkeypatch.setattr(Bench, "load_and_ask", lambda _, form: form.runs.append(run(1)))
    forms = [Form("8bit", "torch", {}, 1_000_000_000), Form("8bit", "llama")]
    measure(forms, Bench(Path(), "cpu", Path(), 1), 2, Console(quiet=True))
    assert [len(form.runs) for form in forms] == [2, 0]
    assert rows(forms)[1] == ["8bit", "llama", *"----------"]


@pytest.mark.slow
def test_tiny_is_measured_from_end_to_end(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.forms", "tiny", "--forms", "none", "--json"]
    command += ["--engines", "torch", "--repeats", "1", "--tokens", "3"]
    command += ["--device", "cpu", "--store", str(tmp_path)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=True
    )
    record = json.loads(done.stdout)
    (form,) = record["forms"]
    assert record["machine"]["Memory"]["total"] > 0
    assert form["problem"] is None
    assert form["runs"][0]["decode_tokens_per_second"] > 0
    assert form["runs"][0]["load_peak_bytes"] >= form["runs"][0]["imports_peak_bytes"]
