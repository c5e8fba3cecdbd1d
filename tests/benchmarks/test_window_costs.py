"""Windows have the same answers in all ways that are compared."""

import pytest

from benchmarks.__main__ import windows_rows
from benchmarks.windows import measure
from pandacli import Panda


@pytest.mark.slow
def test_all_ways_give_the_same_answers() -> None:
    found = measure(Panda.load("tiny", device="cpu", quant="none"), windows=3, repeats=1)
    asked, *_, scored = (way["difference"] for way in found["ways"].values())
    assert asked == 0
    assert scored < 1e-4
    for row, way in zip(
        windows_rows(found | {"model": "tiny"}), found["ways"].values(), strict=True
    ):
        assert row.ratio == pytest.approx(way["ratio"])
