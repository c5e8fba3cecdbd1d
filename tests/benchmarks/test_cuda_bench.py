"""The benchmark of a card: its steps, its table, and a rehearsal of it on the CPU."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import cuda, form_on_card, one_form
from benchmarks.cuda import ROOT, Steps, rows_of
from benchmarks.limits import Limits
from benchmarks.report import THE_LIMIT
from pandacli import Panda
from pandacli.inference.backends.cuda_graphs import StaticDecoder
from pandacli.inference.backends.torch import TorchBackend
from pandacli.modeling.configuration import ModelConfig

RUN: dict[str, Any] = {
    "engine": "torch",
    "dtype": "bfloat16",
    "config": asdict(ModelConfig()),
    "frames": 8,
    "cells": 144,
    "prefill_tokens": 1200,
    "prefill_tokens_per_second": 9000.0,
    "decode_tokens_per_second": 120.0,
    "eager_decode_tokens_per_second": 60.0,
    "graphs_problem": None,
    "batch_questions": 25,
    "batch_answers_per_second": 20.0,
    "load_seconds": 9.0,
    "peak_bytes": 15e9,
}
LIMITS = Limits("cuda", 3000.0, {"bfloat16": 800_000.0}, 2.0, True, 20.0)


def form(quant: str, **changed: Any) -> dict[str, Any]:
    return {"quant": quant, "engine": "torch", "runs": [RUN | changed], "cold": []}


def test_without_a_card_it_ends_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["cuda"])
    with pytest.raises(SystemExit) as ended:
        cuda.main()
    assert ended.value.code == 5
    assert capsys.readouterr().err.startswith("no CUDA device found")


def test_a_step_that_fails_is_named_with_its_reason(tmp_path: Path) -> None:
    steps = Steps(60, tmp_path)
    assert steps.measure("strange", ["json.tool", "--strange"]) is None
    assert "unrecognized arguments: --strange" in steps.problems["strange"]
    assert "usage" in steps.run("help", ["json.tool", "--help"])
    assert list(steps.problems) == ["strange"]


def test_what_is_left_when_the_time_is_up_is_named(tmp_path: Path) -> None:
    steps = Steps(1.0, tmp_path)
    steps.run("long", ["timeit", "-n1", "-r1", "import time; time.sleep(60)"])
    steps.run("next", ["json.tool", "--help"])
    assert steps.problems == {
        "long": "stopped: the time was up",
        "next": "left out: the time was up",
    }


def test_forms_stand_beside_the_limits_and_graphs_beside_ordinary_passes() -> None:
    found = {"limits": asdict(LIMITS), "forms": [form("none"), form("4bit") | {"runs": []}]}
    rows = {row.name: row for row in rows_of(found) if row.group == "none torch"}
    assert rows["prefill"].beside == rows["decode"].beside == THE_LIMIT
    # 13 GB of weights for each token
    assert rows["decode"].ratio == pytest.approx(120 * 13.2 / 3000, rel=0.02)
    assert rows["decode through graphs"].ratio == 2.0
    assert rows["25 questions at once"].ours == 20.0
    assert {row.group for row in rows_of(found)} == {"limits", "none torch"}


def test_forms_are_shown_where_the_limits_are_missing() -> None:
    run = {name: value for name, value in RUN.items() if not name.startswith("eager")}
    found = {"limits": None, "forms": [form("8bit") | {"runs": [run]}]}
    rows = [*rows_of(found)]
    assert [row.name for row in rows if row.ratio is None] == [row.name for row in rows]
    assert {"prefill", "decode", "loading"} < {row.name for row in rows}


def test_why_there_are_no_graphs_stands_in_the_table() -> None:
    found = {"limits": None, "forms": [form("none", graphs_problem="no such operation")]}
    assert "no such operation" in {row.beside for row in rows_of(found)}


def test_a_form_is_measured_with_graphs_and_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*words: str) -> tuple[Panda, dict[str, Any]]:
        panda, measured = one_form.load(*words)
        assert isinstance(panda.backend, TorchBackend)
        panda.backend.decoder = StaticDecoder(panda.model, capture=False)
        return panda, measured

    monkeypatch.setattr(form_on_card, "load", load)
    found = form_on_card.measure("tiny", "none", "cpu", tokens=3, questions=2)
    assert found["graphs_problem"] is None
    rates = {name for name in found if name.endswith("_per_second")}
    assert len(rates) == 4
    assert all(found[name] > 0 for name in rates)


@pytest.mark.slow
def test_every_step_is_rehearsed_on_the_cpu(tmp_path: Path) -> None:
    words = ["--device", "cpu", "--model", "tiny", "--tokens", "3", "--seconds", "900"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.cuda", *words, "--json", str(tmp_path / "found.json")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1000,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["problems"] == {}
    assert [each["quant"] for each in found["forms"]] == ["none", "8bit", "4bit"]
    assert all(len(each["runs"]) == 1 for each in found["forms"])
    assert found["limits"]["memory"] > 0
    assert sum(found["tests"]["counts"].values()) > 10
    assert found["machine"]["Memory"]["total"] > 0
