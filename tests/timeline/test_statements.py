"""Statements as questions."""

import pytest

from pandacli.errors import UsageError
from pandacli.timeline.looking import as_question


@pytest.mark.parametrize("text", ["Is there a star?", " Is it red? ", "有星星吗\uff1f"])
def test_a_question_stays(text: str) -> None:
    assert as_question(text) == text.strip()


@pytest.mark.parametrize("text", ["a star appears", "a star appears.", " a star appears . "])
def test_a_statement_becomes_a_question(text: str) -> None:
    assert as_question(text) == "Does the video show this: a star appears?"


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_text_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="empty"):
        as_question(text)
