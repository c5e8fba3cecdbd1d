"""Choices are scored the same in all ways that are compared."""

from argparse import Namespace

import pytest

from benchmarks.__main__ import choices_rows
from benchmarks.choices import drawn_clip, measure
from pandacli import Panda

FEW = Namespace(model="tiny", clips=2, questions=3, choices=4, plain=5, repeats=1)


def test_all_ways_give_the_same_scores() -> None:
    found = measure(Panda.load("tiny", device="cpu", quant="none"), FEW)
    assert found["choices"] == 24
    assert found["largest_difference"] < 1e-4
    assert min(found["choices_per_second"].values()) > 0
    together, plain = choices_rows(found)
    assert together.ratio == pytest.approx(found["ratios"]["one_by_one"])
    assert plain.ratio == pytest.approx(found["ratios"]["plain"])


def test_llama_cpp_is_compared_without_plain_passes() -> None:
    pytest.importorskip("xllamacpp")
    found = measure(Panda.load("tiny", device="cpu", quant="8bit", engine="llama"), FEW)
    assert set(found["choices_per_second"]) == {"together", "one_by_one"}
    assert found["largest_difference"] < 0.5


def test_every_question_has_different_choices() -> None:
    _, requests = drawn_clip(0, 25, 5)
    assert len(requests) == 25
    assert all(len(set(request.choices)) == 5 for request in requests)
