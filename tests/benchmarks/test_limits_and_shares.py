"""The machine's limits, and the arithmetic of the shares of them."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import __main__ as bench
from benchmarks import forms, limits, shares
from benchmarks.forms import Bench, Form
from benchmarks.limits import Limits, drop_from_page_cache
from benchmarks.one_form import read_bytes
from benchmarks.report import THE_LIMIT, Row, table_of
from benchmarks.stab import clip
from pandacli.inference.backends.kv_cache import KVCache
from pandacli.modeling.configuration import ModelConfig
from pandacli.modeling.video_panda import VideoPanda, empty_model
from pandacli.quantization import gguf

LIMITS = Limits("cpu", 40.0, {"float32": 100.0, "bfloat16": 300.0, "int8": 700.0}, 2.0, True)
SMALL = ModelConfig(
    hidden_size=96,
    intermediate_size=160,
    num_hidden_layers=2,
    num_attention_heads=4,
    vocab_size=8,
    video_hidden_size=143,  # of which the fused block pads the inner width least
    video_num_heads=1,
    image_size=224,
)


@pytest.fixture(scope="module")
def model() -> VideoPanda:
    torch.manual_seed(0)
    return VideoPanda(SMALL).eval()


@pytest.mark.parametrize("height", [1.0, 0.5])
def test_the_products_of_stab_are_those_that_torch_counts(model: VideoPanda, height: float) -> None:
    pixels = clip(224, 14, height)
    with torch.no_grad():
        model.model.encode_frames(pixels)  # folds the weights, which is not counted
        with FlopCounterMode(display=False) as counter:
            model.model.encode_frames(pixels)
    ours = 2 * shares.stab_multiply_adds(SMALL, round(64 * height))
    # not counted: what is computed once a frame, and the bars
    assert 0.96 <= ours / counter.get_total_flops() <= 1


def test_the_products_of_a_prefill_are_those_that_torch_counts(model: VideoPanda) -> None:
    tokens, cache = 24, KVCache(SMALL.num_hidden_layers)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, tokens, dtype=torch.long), cache)
    pairs = tokens * (tokens + 1) // 2  # of positions; torch does not count attention on a CPU
    attention = 2 * SMALL.num_hidden_layers * SMALL.hidden_size * pairs
    counted = counter.get_total_flops() // 2
    assert shares.prefill_multiply_adds(SMALL, tokens) == counted + attention


@pytest.mark.parametrize(("quant", "form"), [("8bit", "q8_0"), ("4bit", "q4_k_m")])
def test_a_token_reads_what_a_gguf_file_holds_but_embeddings(quant: str, form: Any) -> None:
    pytest.importorskip("gguf")
    for layers in (4, 32):
        config = ModelConfig(num_hidden_layers=layers)
        stored = gguf._llama_tensors(config, empty_model(config).state_dict(), form)
        held = sum(t.nbytes for name, t in stored if "embed" not in name and "norm" not in name)
        assert shares.decode_bytes(config, quant, "llama", "float32") == pytest.approx(held, 0.01)


def test_what_is_not_quantised_is_read_in_the_type_of_the_model() -> None:
    linears = 2 * (4 * 96 * 96 + 3 * 96 * 160)
    whole = [shares.decode_bytes(SMALL, "none", "torch", t) for t in ("float32", "bfloat16")]
    assert whole == [4 * (linears + 8 * 96), 2 * (linears + 8 * 96)]
    assert shares.decode_bytes(SMALL, "8bit", "torch", "float32") == linears + 4 * 8 * 96


def stab_row(group: str, name: str, seconds: float) -> dict[str, Any]:
    return {"group": group, "name": name, "ours": seconds}


def test_stab_is_compared_on_all_threads() -> None:
    needed = 2e-9 * shares.stab_multiply_adds(ModelConfig(), shares.CELLS["1:1"])
    found = [
        stab_row("STAB, 1 thread", "1:1 projected", 9.0),
        stab_row("STAB, 12 threads", "1:1 projected", needed / 50),
        stab_row("STAB, 12 threads", "1:1 STAB", 9.0),
        stab_row("STAB, a card", "1:1 projected", 0.1),
    ]
    (row,) = shares.stab_shares(found, LIMITS)
    assert (row.group, row.beside, row.goal) == ("STAB, 12 threads", THE_LIMIT, 0.6)
    assert row.ratio == pytest.approx(0.5)


def form(quant: str, engine: str, rate: float, **cold: float) -> dict[str, Any]:
    run = {
        "config": asdict(SMALL),
        "dtype": "float32",
        "prefill_tokens": 100,
        "cells": 64,
        "frames": 8,
        "prefill_tokens_per_second": rate,
        "decode_tokens_per_second": rate,
    }
    which = {"quant": quant, "engine": engine, "file_bytes": 10**9}
    return which | {"runs": [run], "cold": [cold] if cold else []}


def test_each_form_is_compared_in_its_own_type_and_bytes() -> None:
    found = {"forms": [form("none", "torch", 1.0), form("8bit", "torch", 1.0)]}
    rows = {(row.group, row.name): row for row in shares.forms_shares(found, LIMITS)}
    stab = 2e-9 * shares.stab_multiply_adds(SMALL, 64) / 100
    llama = 2e-9 * shares.prefill_multiply_adds(SMALL, 100)
    whole, int8 = rows["prefill", "none torch"], rows["prefill", "8bit torch"]
    assert whole.theirs == pytest.approx(100 / (llama / 100 + stab))
    assert int8.theirs == pytest.approx(100 / (llama / 700 + stab))
    decode = rows["decode", "8bit torch"]
    read = shares.decode_bytes(SMALL, "8bit", "torch", "float32")
    assert decode.theirs == pytest.approx(40e9 / read)
    assert [row.goal for row in (whole, int8, decode)] == [0.6, 0.6, 0.6]


@pytest.mark.parametrize(
    ("size", "read", "name", "goal"),
    [
        (4e9, 4e9, "8bit torch", 0.5),
        (4e9, 4e8, "8bit torch, 10% of it read", None),
        (4e8, 4e8, "8bit torch", None),
    ],
    ids=["a large file", "a file that is mapped", "a small file"],
)
def test_a_cold_load_is_compared_without_its_imports(
    size: float, read: float, name: str, goal: float | None
) -> None:
    cold = {"load_seconds": 2.0 + size / 1e9, "import_seconds": 2.0, "load_read_bytes": read}
    found = {"forms": [form("8bit", "torch", 1.0, **cold) | {"file_bytes": size}]}
    (row,) = (row for row in shares.forms_shares(found, LIMITS) if row.group == "loading")
    assert (row.ratio, row.name, row.goal) == (pytest.approx(0.5), name, goal)


def test_loads_are_not_compared_where_the_disk_was_not_measured() -> None:
    warm = Limits("cpu", 40.0, LIMITS.products, 9.0, disk_is_cold=False)
    cold = {"load_seconds": 3.0, "import_seconds": 2.0, "load_read_bytes": 10**9}
    found = {"forms": [form("none", "torch", 1.0, **cold)]}
    groups = [row.group for row in shares.forms_shares(found, warm)]
    assert groups == ["prefill", "decode"]


def test_a_part_has_shares_only_behind_the_limits() -> None:
    seconds = 2e-9 * shares.stab_multiply_adds(ModelConfig(), shares.CELLS["1:1"])
    found = [stab_row("STAB, 2 threads", "1:1 projected", seconds)]
    part = bench.Part("stab", (), lambda _: iter(()), shares=shares.stab_shares)
    assert list(bench.rows_of(part, found)) == []
    assert [row.ratio for row in bench.rows_of(part, found, LIMITS)] == [pytest.approx(0.01)]


def test_a_limit_has_a_row_with_nothing_beside_it() -> None:
    console = Console(width=110)
    with console.capture() as shown:
        console.print(table_of([*LIMITS.rows(), Row("a", "b", 3.0, "s", THE_LIMIT, 1.5, 0.6)]))
    lines = [line.split() for line in shown.get().splitlines()]
    assert ["reading", "memory", "40", "GB/s"] in lines
    assert ["matrix", "product,", "int8", "700", "GOP/s"] in lines
    assert ["b", "3", "s", "the", "machine's", "limit", "1.5", "s", "x0.50", "x0.6"] in [
        line[:10] for line in lines
    ]


def test_everything_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"HIDDEN": 64, "INTERMEDIATE": 96, "_READ_BYTES": 1 << 20, "_FILE_BYTES": 16 << 20}
    for name, value in small.items():
        monkeypatch.setattr(limits, name, value)
    found = limits.measure("cpu", 1)
    assert found.products.keys() >= {"float32", "bfloat16"}
    assert min(found.memory, found.disk, *found.products.values()) > 0
    assert found.copy is None


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not say what is cached")
def test_dropped_files_are_read_from_the_disk_again(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(bytes(1 << 20))
    if not drop_from_page_cache([tmp_path / "a.bin"]):
        pytest.skip("a file system in memory")
    before = read_bytes()
    (tmp_path / "a.bin").read_bytes()
    assert read_bytes() - before > 1 << 19


def test_a_cold_load_comes_before_each_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    (tmp_path / "a.bin").write_bytes(b"weights")

    def run(_: Bench, _form: Form, tokens: int) -> dict[str, Any]:
        calls.append(tokens)
        return {"load_seconds": 1.0}

    monkeypatch.setattr(Bench, "_run", run)
    monkeypatch.setattr(forms, "drop_from_page_cache", lambda paths: bool(list(paths)))
    form = Form("none", "torch")
    subject = Bench(tmp_path, "cpu", tmp_path / "store", 5)
    forms.measure([form], subject, 2, Console(quiet=True), cold=True)
    assert calls == [0, 0, 5, 0, 5]
    assert [len(form.cold), form.file_bytes] == [2, 7]
