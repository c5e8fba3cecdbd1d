import json
from pathlib import Path
from typing import Any

import pytest

from pandacli.errors import ClipError
from pandacli.evaluation.answers import NO_ANSWER, Item, read_items
from pandacli.evaluation.matching import match


def lines(path: Path, *entries: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


def ours(number: int, **fields: Any) -> dict[str, Any]:
    return {"digest": f"{number:016x}", **fields}


def test_reads_the_answer_of_our_results_and_the_right_one_that_was_given(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "a.jsonl",
        ours(1, video="x/clip.mp4", question="What?", given={"answer": "dog"}, answer="A dog."),
        ours(2, video="b.mp4", question="Who?", A="cat", answer="Dog."),
        ours(3, video="c.mp4", question="How?", A="so", error={"kind": "clip", "message": "bad"}),
    )
    first, second, failed = read_items(path)
    assert (first.video, first.prediction, first.references) == ("x/clip", "A dog.", ("dog",))
    assert (second.prediction, second.references) == ("Dog.", ("cat",))
    assert (failed.prediction, failed.error) == (None, "bad")


def test_reads_merged_predictions_that_name_no_video(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "merge.jsonl",
        {"id": "v1_0", "question": "what?", "answer": "dog", "pred": "A dog."},
        {"id": "v1_1", "question": "who?", "answer": "cat"},
    )
    first, second = read_items(path)
    assert (first.id, first.video, first.prediction) == ("v1_0", "", "A dog.")
    assert (second.prediction, second.error) == (None, NO_ANSWER)


@pytest.mark.parametrize("as_array", [True, False])
def test_reads_generic_and_consistency_predictions(tmp_path: Path, as_array: bool) -> None:
    entries = [
        {"video_name": "v", "Q1": "What?", "Q2": "Which?", "A": "x", "pred1": "1", "pred2": "2"},
        {"video_name": "w", "Q1": "What?", "Q2": "Which?", "A": "x", "pred1": "1"},
    ]
    path = tmp_path / "consistency.json"
    path.write_text(json.dumps(entries)) if as_array else lines(path, *entries)
    both, half = read_items(path)
    assert (both.layout, both.prediction, both.second) == ("consistency", "1", ("Which?", "2"))
    assert (half.prediction, half.error) == (None, NO_ANSWER)
    path = lines(tmp_path / "g.jsonl", {"video_name": "v", "Q": "What?", "A": "x", "pred": "y"})
    (generic,) = read_items(path)
    assert (generic.layout, generic.question, generic.references) == ("generic", "What?", ("x",))


def test_the_two_results_of_a_consistency_question_are_one_item(tmp_path: Path) -> None:
    pair = {"video": "v.mp4", "video_name": "v", "Q1": "What?", "Q2": "Which?", "A": "x"}
    path = lines(
        tmp_path / "r.jsonl",
        ours(2, **pair, part=1, question="Which?", answer="second"),
        ours(1, **pair, part=0, question="What?", answer="first"),
    )
    (item,) = read_items(path)
    assert (item.prediction, item.second) == ("first", ("Which?", "second"))


def test_equal_consistency_questions_are_an_item_each(tmp_path: Path) -> None:
    pair = {"video": "v.mp4", "video_name": "v", "Q1": "What?", "Q2": "Which?", "A": "x"}
    halves = [ours(part, **pair, part=part, answer=str(part)) for part in (0, 1)]
    items = read_items(lines(tmp_path / "r.jsonl", *halves, *halves))
    assert [(item.prediction, item.second) for item in items] == [("0", ("Which?", "1"))] * 2


def test_choices_keep_their_probabilities_and_the_right_one(tmp_path: Path) -> None:
    scored = [
        {"text": "cat", "logprob": -2.0, "probability": 0.2},
        {"text": "dog", "logprob": -0.6, "probability": 0.8},
    ]
    given = {"choices": ["cat", "dog"], "answer": "dog"}
    path = lines(
        tmp_path / "r.jsonl",
        ours(1, video="v.mp4", question="What?", given=given, choices=scored, answer="dog"),
    )
    (item,) = read_items(path)
    assert item.choices is not None
    assert (item.choices.correct, item.chosen, item.probabilities) == (1, 1, (0.2, 0.8))


def test_every_question_has_an_item_and_missing_ones_say_so() -> None:
    questions = [
        Item(str(n), f"v{n // 2}", f"what {n}?", ("dog",), None, type="a") for n in range(6)
    ]
    answers = [
        Item("x", "v2", "what 4?", (), "dog"),  # found by video and question
        Item("1", "", "what 1?", (), "cat"),  # by id and question
        Item("3", "", "", (), "bird"),  # by id
    ]
    found, _ignored = match(answers, questions)
    assert [item.prediction for item in found] == [None, "cat", None, "bird", "dog", None]
    assert [item.error for item in found if item.prediction is None] == [NO_ANSWER] * 3
    assert all(item.references == ("dog",) and item.type == "a" for item in found)


def test_equal_questions_on_one_video_have_an_answer_each() -> None:
    questions = [Item(str(n), "v", "what?", ("dog",), None) for n in range(3)]
    answers = [Item(str(n), "v", "what?", (), text) for n, text in enumerate("ab")]
    found, _ignored = match(answers, questions)
    assert [item.prediction for item in found] == ["a", "b", None]


def test_a_file_without_answers_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "e.jsonl"
    empty.write_text("")
    with pytest.raises(ClipError, match="no answers"):
        read_items(empty)
