"""Checks never fail."""

from collections.abc import Iterator

import pytest

from pandacli.diagnostics import Fact, find, find_all
from pandacli.errors import ModelError


def test_value_becomes_fact() -> None:
    assert find("cores", lambda: 8) == Fact("cores", 8)


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (OSError("libcudart.so:\n  not found"), "OSError: libcudart.so: not found"),
        (ZeroDivisionError(), "ZeroDivisionError"),
        (ModelError("the checkpoint is incomplete"), "the checkpoint is incomplete"),
    ],
)
def test_exception_becomes_one_line_problem(error: Exception, problem: str) -> None:
    def read() -> str:
        raise error

    assert find("cores", read) == Fact("cores", None, problem)


def test_facts_before_exception_are_kept() -> None:
    def read() -> Iterator[Fact]:
        yield Fact("total", 3)
        raise OSError("gone")

    assert find_all("memory", read) == [Fact("total", 3), Fact("memory", None, "OSError: gone")]
