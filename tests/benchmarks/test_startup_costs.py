"""The benchmark of what a user waits for at the start."""

import math
import sys

import pytest

from benchmarks.startup import (
    measure,
    rows,
    table_of,
    to_the_answer,
    to_the_end,
    to_the_first_byte,
)


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


def test_the_end_of_a_process_is_waited_for() -> None:
    assert to_the_end(python("import time; time.sleep(0.3)")) > 0.3


def test_what_fails_is_not_taken_for_quick() -> None:
    with pytest.raises(RuntimeError, match="ended with 3, not 0"):
        to_the_end(python("raise SystemExit(3)"))


def test_the_first_byte_in_a_terminal_is_waited_for_and_no_more() -> None:
    code = "import sys, time; assert sys.stderr.isatty(); print('a', flush=True); time.sleep(60)"
    assert to_the_first_byte(python(code)) < 60


def test_a_process_that_shows_nothing_has_no_first_byte() -> None:
    assert math.isnan(to_the_first_byte(python("pass")))


def test_what_is_no_answer_is_not_waited_for() -> None:
    code = "import sys, time; print('a', file=sys.stderr); time.sleep(0.3); print('b')"
    assert to_the_answer(python(code)) > 0.3


def test_every_row_is_measured_beside_a_bare_python() -> None:
    costs = iter([9.0, 9.0, 1.0, 2.0, 1.0, 4.0, 1.0, 3.0])  # the first round warms up
    found = measure(dict.fromkeys(["bare Python", "panda"], lambda: next(costs)), repeats=3)
    assert found["panda"] == {"seconds": 3.0, "ratio": 3.0}


def test_the_table_has_a_line_for_every_row() -> None:
    names = list(rows("python"))
    table = table_of({name: {"seconds": 1.0, "ratio": 1.0} for name in names})
    assert table.row_count == len(names)
