"""Dialogues of training batches."""

import numpy as np

from training.data import join_some
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
