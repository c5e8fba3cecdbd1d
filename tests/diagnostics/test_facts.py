"""Finding facts never fails."""

from collections.abc import Iterator

import pytest

from pandacli.diagnostics import Fact, find, find_all
from pandacli.errors import ModelError


def test_a_value_is_named() -> None:
    assert find("cores", lambda: 8) == Fact("cores", 8)


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (OSError("libcudart.so:\n  not found"), "OSError: libcudart.so: not found"),
        (ZeroDivisionError(), "ZeroDivisionError"),
        (ModelError("the checkpoint is incomplete"), "the checkpoint is incomplete"),
    ],
)
def test_an_error_becomes_the_problem_in_one_line(error: Exception, problem: str) -> None:
    def read() -> str:
        raise error

    assert find("cores", read) == Fact("cores", None, problem)


def test_what_was_found_before_an_error_is_kept() -> None:
    def read() -> Iterator[Fact]:
        yield Fact("total", 3)
        raise OSError("gone")

    assert find_all("memory", read) == [Fact("total", 3), Fact("memory", None, "OSError: gone")]
