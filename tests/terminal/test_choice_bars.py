"""Bars of choices: one line each, aligned, whatever the texts and the width."""

import random

import pytest
from rich.cells import cell_len

from pandacli.inference.spec import Choice, Scores
from pandacli.terminal.console import Screen
from pandacli.terminal.text import fit

TEXTS = [
    "yes",
    "視頻中有一隻熊貓" * 5,
    "🎉🐼" * 9,
    "نعم هناك",
    "a\x1b[31m\r\nb\t\u202ec",
    "x" * 300,
]


def scores(texts: list[str], coverage: float = 0.9) -> Scores:
    shares = [0.001, *[0.999 / (len(texts) - 1)] * (len(texts) - 1)]
    choices = (Choice(text, -1.0, share) for text, share in zip(texts, shares, strict=True))
    return Scores("?", tuple(choices), coverage)


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
@pytest.mark.parametrize("texts", [TEXTS, TEXTS[:2], ["a", "b"]])
def test_a_choice_takes_one_line(tty, columns: int, texts: list[str]) -> None:  # type: ignore[no-untyped-def]
    terminal = tty(COLUMNS=str(columns))
    Screen().choice_bars(scores(texts))
    lines = terminal.getvalue().splitlines()
    assert len(lines) == len(texts)
    assert not {"\x1b", "\r", "\t", "\u202e"} & set(terminal.getvalue())
    assert max(map(cell_len, lines)) < columns
    ends = {cell_len(line[: line.index("%")]) for line in lines}
    assert len(ends) == 1, "the probabilities stand below one another"


def test_bars_are_as_long_as_their_probability(tty) -> None:  # type: ignore[no-untyped-def]
    terminal = tty()
    choices = (Choice("yes", -0.1, 0.75), Choice("no", -1.2, 0.25))
    Screen().choice_bars(Scores("?", choices, 1.0))
    yes, no = (line.count("█") for line in terminal.getvalue().splitlines())
    assert yes == pytest.approx(3 * no, abs=2)
    assert no > 10


def test_a_question_that_does_not_fit_its_choices_is_noted(tty) -> None:  # type: ignore[no-untyped-def]
    terminal = tty()
    Screen().choice_bars(scores(["a", "b"], coverage=2e-7))
    assert "the probability of all choices together is 2e-07" in terminal.getvalue()


def test_nothing_is_drawn_in_a_pipe_or_where_it_is_quiet(
    tty,  # type: ignore[no-untyped-def]
    capsys: pytest.CaptureFixture[str],
) -> None:
    Screen().choice_bars(scores(["a", "b"], coverage=0))
    assert capsys.readouterr().err == ""
    terminal = tty()
    Screen(quiet=True).choice_bars(scores(["a", "b"], coverage=0))
    assert terminal.getvalue() == ""


def test_fitted_text_has_the_width_asked_for() -> None:
    rng = random.Random(3)
    for _ in range(300):
        text = "".join(rng.choices("ab 視熊🎉é", k=rng.randint(0, 12)))
        width = rng.randint(0, 14)
        assert cell_len(fit(text, width)) == width
