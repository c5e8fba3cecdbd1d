"""Text that is copied to stdout."""

import io
import sys

import pytest

from pandacli.ui.console import Screen

TABLE = 'question,answer\n\x1b[31mwhy?,"so\r\n"\n'


@pytest.mark.parametrize(
    ("people", "shown"),
    [(False, TABLE), (True, 'question,answer\n\\x1b[31mwhy?,"so\\r\n"\n')],
)
def test_a_copy_is_exact_for_programs_and_harmless_for_people(
    monkeypatch: pytest.MonkeyPatch, people: bool, shown: str
) -> None:
    class Stdout(io.StringIO):
        def isatty(self) -> bool:
            return people

    stdout = Stdout(newline="")
    monkeypatch.setattr(sys, "stdout", stdout)
    Screen().copy(TABLE)
    assert stdout.getvalue() == shown
