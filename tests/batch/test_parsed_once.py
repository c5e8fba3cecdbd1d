"""Each record of a batch is parsed once, from reading the questions to writing the results."""

import csv
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pandacli.batch import formats
from pandacli.batch.clip_worker import Settings
from pandacli.batch.job import Batch, Job
from pandacli.batch.readers import entries, tables
from pandacli.inference.spec import RunSpec

ENTRIES = [
    {"video": "wide.avi", "question": f"Why {number}?", "answer": "so", "id": number}
    for number in range(70)  # more than are examined to recognize the format
]


def jsonl(path: Path) -> None:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in ENTRIES))


def array(path: Path) -> None:
    path.write_text(json.dumps(ENTRIES, indent=1))


def table(path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(ENTRIES[0]))
        writer.writeheader()
        writer.writerows(ENTRIES)


def parquet(path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(ENTRIES), path)


class CountingDecoder:
    """A JSON decoder that counts the values it returns."""

    def __init__(self, decoder: json.JSONDecoder, parsed: Counter[str]) -> None:
        self._decoder, self._parsed = decoder, parsed

    def decode(self, text: str) -> Any:
        value = self._decoder.decode(text)
        self._parsed["json"] += 1
        return value

    def raw_decode(self, text: str, place: int) -> tuple[Any, int]:
        found = self._decoder.raw_decode(text, place)
        self._parsed["json"] += 1
        return found


def counting(function: Callable[..., Any], name: str, parsed: Counter[str]) -> Callable[..., Any]:
    def counted(*arguments: Any) -> Any:
        parsed[name] += 1
        return function(*arguments)

    return counted


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often JSON text, rows and entries are parsed."""
    counts: Counter[str] = Counter()
    decoder = CountingDecoder(entries._DECODER, counts)
    monkeypatch.setattr(entries, "_DECODER", decoder)
    monkeypatch.setattr(tables, "checked_fields", counting(tables.checked_fields, "row", counts))
    for name, row in formats.FORMATS.items():
        if row.read:
            read = counting(row.read, "entry", counts)
            monkeypatch.setitem(formats.FORMATS, name, replace(row, read=read))
    return counts


@pytest.mark.parametrize("output_format", ["jsonl", "csv", "qa", "generic-lines"])
@pytest.mark.parametrize(
    ("write", "name", "kind"),
    [
        (jsonl, "q.jsonl", "json"),
        (array, "q.json", "json"),
        (table, "q.csv", "row"),
        (parquet, "q.parquet", "row"),
    ],
)
def test_each_record_is_parsed_once(
    write: Callable[[Path], None],
    name: str,
    kind: str,
    output_format: str,
    parsed: Counter[str],
    tmp_path: Path,
    checkpoint: Path,
) -> None:
    write(tmp_path / name)
    job = Job(str(tmp_path / name), Settings(RunSpec(checkpoint)), output_format=output_format)
    with Batch(job) as batch:
        run = batch.plan()
        assert sum(1 for _ in run.outcomes(pytest.fail)) == len(ENTRIES)  # there is no such video
        batch.finish(print)
    assert parsed == {kind: len(ENTRIES), "entry": len(ENTRIES)}
