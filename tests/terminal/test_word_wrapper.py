"""Word wrapping of streamed text."""

import pytest
from rich.cells import cell_len

from pandacli.terminal.text import WordWrapper

TEXT = "A red circle moves right, and after a while a very small yellow star appears beside it."


def wrapped(text: str, width: int, piece: int = 3) -> str:
    pieces = [text[start : start + piece] for start in range(0, len(text), piece)]
    return "".join(WordWrapper(lambda: width).lines(pieces))


@pytest.mark.parametrize("width", [8, 20, 33, 80, 200])
@pytest.mark.parametrize("piece", [1, 3, 1000])
def test_lines_fit_and_break_at_spaces(width: int, piece: int) -> None:
    shown = wrapped(TEXT, width, piece)
    assert all(len(line) <= width for line in shown.split("\n"))
    assert shown.replace("\n", " ") == TEXT


def test_short_text_is_unchanged() -> None:
    text = "One line.\n\n  - and   a list\n"
    assert wrapped(text, 80) == text.rstrip("\n") + "\n"


def test_long_word_is_not_broken() -> None:
    assert wrapped("a " + "b" * 30 + " c", 10) == "a\n" + "b" * 30 + "\nc"


def test_wide_characters_count_twice_and_break_anywhere() -> None:
    shown = wrapped("東京は日本の首都です", 10)
    assert [cell_len(line) for line in shown.split("\n")] == [10, 10]


def test_resized_window_is_followed() -> None:
    widths = iter([80, 80, 5, 5, 5, 5])
    shown = "".join(WordWrapper(lambda: next(widths)).lines(["aaa bbb ccc ddd"]))
    assert shown == "aaa bbb\nccc\nddd"


def test_words_are_returned_when_complete() -> None:
    lines = WordWrapper(lambda: 80).lines(["A re", "d circ", "le"])
    assert next(lines) == "A"
    assert next(lines) == " red"
    assert next(lines) == " circle"


def test_continuation_lines_are_indented_and_fit() -> None:
    shown = "".join(WordWrapper(lambda: 20, 7).lines([f"panda: {TEXT}"])).split("\n")
    assert all(len(line) <= 20 for line in shown)
    assert all(line.startswith(" " * 7) for line in shown[1:])
    assert " ".join(" ".join(shown).split()) == f"panda: {TEXT}"


def test_long_word_starts_at_the_margin() -> None:
    assert "".join(WordWrapper(lambda: 12, 4).lines(["see /a/long/path now"])) == (
        "see\n/a/long/path\n    now"
    )
