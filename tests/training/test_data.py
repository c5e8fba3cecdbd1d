"""Dialogues of training batches."""

import numpy as np
import pytest

from pandacli.modeling.tokenization_videopanda import VideoPandaTokenizer
from training import data
from training.data import IGNORED, TrainingData, join_some
from training.questions import Dialogue

DIALOGUES = [Dialogue("shape", ((f"question {n}", f"answer {n}"),)) for n in range(12)]


def joined(count: int) -> list[list[Dialogue]]:
    rng = np.random.default_rng(3)
    return [join_some(DIALOGUES, rng) for _ in range(count)]


def test_joining_keeps_every_turn_in_order() -> None:
    turns = [turn for dialogue in DIALOGUES for turn in dialogue.turns]
    for dialogues in joined(50):
        assert [turn for dialogue in dialogues for turn in dialogue.turns] == turns


def test_dialogues_are_joined_for_about_half_of_clips() -> None:
    lengths = [max(len(dialogue.turns) for dialogue in dialogues) for dialogues in joined(300)]
    assert 0.3 < np.mean(np.array(lengths) == 1) < 0.55
    assert np.mean(np.array(lengths) > 6) > 0.1


@pytest.mark.parametrize(
    ("answer", "spelled", "before", "expected"),
    [
        ("Yes.", "yes", "", "Yes"),
        ("Yes.", "Yes", "Yes", "."),
        ("A red star moves left.", "A red star moves up.", "A red star moves", "left"),
        ("Two.", "Two.", None, None),
    ],
)
def test_first_token_of_another_spelling_is_marked_with_the_usual_one(
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    spelled: str,
    before: str | None,
    expected: str | None,
) -> None:
    monkeypatch.setattr(data, "_OTHER_SPELLINGS", 1.0)
    monkeypatch.setattr(data, "other_spelling", lambda _answer, _rng: spelled)
    tokenizer = VideoPandaTokenizer("pandacli/assets/tiny/tokenizer.model", legacy=True)
    drawn = TrainingData(tokenizer, image_size=56, batch_size=1, dialogues=1, seed=0)
    dialogue = Dialogue("motion", (("What happens?", answer), ("And then?", "Yes.")))
    _, target, usual, deviates = drawn._tokenise_one(dialogue, np.random.default_rng(0))
    start = next(n for n, token in enumerate(target) if token != IGNORED)
    end = target.index(tokenizer.eos_id)
    assert tokenizer.decode(target[start:end]) == spelled
    marked = [n for n in range(end + 1) if usual[n] != IGNORED]
    in_answer = [int(target[n] != IGNORED and answer != spelled) for n in range(end + 1)]
    assert deviates[: end + 1] == in_answer
    if before is None:
        assert not marked
    else:
        (place,) = marked
        assert tokenizer.decode(target[start:place]) == before
        assert tokenizer.decode([usual[place]]) == expected
