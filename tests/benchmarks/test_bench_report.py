"""What the benchmarks found, as one table of ratios."""

from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import __main__ as bench
from benchmarks.report import Row, draw, table_of

ROWS = [
    Row("frames", "a.mp4", 0.5, "s", "decord", 1.0, 1.0),
    Row("batch", "tiny", 30.0, "answers/s", "one by one", 10.0, 8.0),
]


def test_a_ratio_above_one_is_better_whichever_way_the_unit_counts() -> None:
    assert [row.ratio for row in ROWS] == [2.0, 3.0]


def test_the_table_has_both_sides_and_the_goal() -> None:
    console = Console(width=110)
    with console.capture() as shown:
        console.print(table_of(ROWS))
    lines = [line.split() for line in shown.get().splitlines()]
    assert ["tiny", "30", "answers/s", "one", "by", "one", "10", "answers/s", "x3.00", "x8"] in [
        line[:10] for line in lines
    ]


def test_the_picture_is_a_png(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    limit = Row("limits", "reading memory", 40.0, "GB/s")
    draw([limit, *ROWS], tmp_path / "bench.png", "a machine")
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    draw([limit], tmp_path / "none.png", "a machine")
    assert not (tmp_path / "none.png").exists()


def form(quant: str, engine: str, speed: float) -> dict[str, object]:
    run = {"prefill_tokens_per_second": speed, "decode_tokens_per_second": speed / 10}
    return {"quant": quant, "engine": engine, "runs": [run], "problem": None}


def test_each_form_stands_beside_llama_cpp_in_as_many_bits() -> None:
    forms = [form("8bit", "torch", 20.0), form("4bit", "torch", 1.0), form("8bit", "llama", 10.0)]
    rows = list(bench.forms_rows({"forms": forms}))
    assert [(row.group, row.name, row.beside, row.ratio) for row in rows] == [
        ("prefill", "8bit torch", "llama.cpp", 2.0),
        ("decode", "8bit torch", "llama.cpp", 2.0),
    ]


def test_a_form_without_its_like_stands_beside_the_unquantised_one() -> None:
    forms = [form("none", "torch", 4.0), form("8bit", "llama", 8.0), form("4bit", "torch", 2.0)]
    rows = [row for row in bench.forms_rows({"forms": forms}) if row.group == "decode"]
    assert [(row.name, row.beside, row.ratio) for row in rows] == [
        ("8bit llama", "none torch", 2.0),
        ("4bit torch", "none torch", 0.5),
    ]


def test_an_interruption_keeps_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(part: bench.Part, *_: object) -> list[Row]:
        if part.module == "stab":
            raise KeyboardInterrupt
        return ROWS

    monkeypatch.setattr(bench, "run", run)
    parts = [bench.Part(module, (), iter) for module in ("frames", "stab", "batch")]
    assert bench.measure(parts, Console(quiet=True)) == (ROWS, False)


def test_a_form_that_fails_is_named_and_costs_no_other_row() -> None:
    broken = {"quant": "4bit", "engine": "llama", "runs": [], "problem": "out of memory"}
    found = {"forms": [form("8bit", "torch", 2.0), form("8bit", "llama", 1.0), broken]}
    assert [row.name for row in bench.forms_rows(found)] == ["8bit torch", "8bit torch"]
    assert list(bench.failures(found)) == ["4bit llama: out of memory"]


def test_rows_of_a_card_say_so() -> None:
    part = bench.Part("turns", (), lambda _: iter(ROWS[:1]), "CUDA")
    assert [row.group for row in bench.rows_of(part, [])] == ["frames, CUDA"]


def test_a_reader_that_takes_wrong_frames_is_told_from_one_that_is_right() -> None:
    seconds = {"ours": [1.0], "decord": [2.0], "pyav": [0.5]}
    exact = {"ours": 8, "decord": 8, "pyav": 1}
    file = {"file": "a.ts", "frames": 8, "seconds": seconds, "exact": exact}
    unread = {"file": "b.ts", "frames": 8, "seconds": {"pyav": [1.0]}, "exact": {"pyav": 8}}
    rows = bench.frames_rows({"files": [file, unread]})
    assert [row.beside for row in rows] == ["decord", "pyav, 1 of 8 right"]


def test_a_benchmark_that_fails_says_why(tmp_path: Path) -> None:
    part = bench.Part("turns", ("no/such/model",), bench.turns_rows)
    with pytest.raises(RuntimeError, match="no/such/model"):
        bench.run(part, Path, tmp_path)
