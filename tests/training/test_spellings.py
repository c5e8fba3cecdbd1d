"""Other spellings of the answers of the training data."""

import numpy as np
import pytest

from training.spellings import other_spelling


def spellings(answer: str, count: int = 500) -> set[str]:
    rng = np.random.default_rng(0)
    return {other_spelling(answer, rng) for _ in range(count)}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Yes.", {"yes", "yes.", "Yes", "YES"}),
        ("Two.", {"two", "Two", "2", "2."}),
        ("A circle.", {"a circle", "circle", "Circle."}),
        ("It moves left.", {"it moves left", "moves left", "moving left", "left", "Left."}),
        ("It grows.", {"grows", "growing", "Grows."}),
        ("It does not move.", {"it does not move"}),
        ("The orange star.", {"the orange star", "orange star", "an orange star"}),
        ("A red star grows. A blue circle appears.", {"a red star grows. a blue circle appears"}),
    ],
)
def test_usual_spellings_of_choices_are_drawn(answer: str, expected: set[str]) -> None:
    assert expected <= spellings(answer)


@pytest.mark.parametrize("answer", ["Yes.", "Two.", "A star.", "It appears.", "The red circle."])
def test_answer_itself_is_not_drawn(answer: str) -> None:
    assert answer not in spellings(answer)
