"""Multiple choice: the layouts of data sets, the answers to them, and which one an answer names."""

import json
import random
import string
from pathlib import Path
from typing import Any

import pytest

from pandacli.batch.readers.choices import Choices, find_choices, read_choices, with_letters
from pandacli.batch.readers.questions import read_questions
from pandacli.batch.records import BadLine, Record, RecordError, record_hash

OBJECT = {"A": "dog", "B": "cat"}


@pytest.mark.parametrize(
    ("fields", "texts", "correct"),
    [
        ({"a0": "dog", "a1": "cat", "a2": "cow", "answer": "1"}, "dog cat cow", 1),  # NExT-QA
        ({"candidates": ["dog", "cat"], "answer": "cat"}, "dog cat", 1),  # MVBench
        ({"options": ["A. dog.", "B. cat."], "answer": "B"}, "dog. cat.", 1),  # Video-MME
        ({"options": ["1", "2", "3"], "answer_id": 1}, "1 2 3", 1),  # Perception Test
        ({"option 0": "dog", "option 1": "cat"}, "dog cat", None),  # EgoSchema
        ({"choices": ["dog", "cat"], "answer": "dog"}, "dog cat", 0),
        ({"choices": "dog|cat", "answer": "Cat."}, "dog cat", 1),
        ({"choices": '["dog", "cat"]', "answer": 0}, "dog cat", 0),
        ({"options": OBJECT, "answer": "(B)"}, "dog cat", 1),
        ({"option_1": "dog", "option_2": "cat", "answer": "cat"}, "dog cat", 1),
        ({"choices": ["1", "2", "3"], "answer": "3"}, "1 2 3", 2),  # the text, not an index
        ({"a0": "1", "a1": "2", "a2": "3", "answer": "1"}, "1 2 3", 1),  # the index
        ({"choices": ["dog", "cat"], "answer": "horse"}, "dog cat", None),
        ({"choices": ["dog", "cat"], "answer": 7}, "dog cat", None),
    ],
)
def test_reads_choices_and_the_right_one(
    fields: dict[str, Any], texts: str, correct: int | None
) -> None:
    assert read_choices(fields) == Choices(tuple(texts.split()), correct)


@pytest.mark.parametrize(
    "fields",
    [{}, {"a0": "dog"}, {"a0": "dog", "a2": "cat"}, {"options": "x"}, {"choices": ""}, {"a1b": 1}],
)
def test_entries_without_choices_are_open_questions(fields: dict[str, Any]) -> None:
    assert read_choices(fields) is None


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        (["dog"], "only one"),
        (["dog", "dog "], "given twice"),
        (["dog", ""], "empty"),
        (["dog", None], "null among its choices"),
        (3, "not a list of choices"),
        ("dog", "not a list of choices"),
        ("dog||cat", "empty"),
    ],
)
def test_choices_that_cannot_be_scored_are_refused(choices: Any, said: str) -> None:
    with pytest.raises(RecordError, match=said):
        read_choices({"choices": choices})
    assert find_choices({"choices": choices}) is None


@pytest.mark.parametrize(
    ("answer", "index"),
    [
        ("Red.", 0),
        ("(b) dark red", 1),
        ("The answer is B.", 1),
        ("It is a dark red circle", 1),
        ("C", 2),
        ("option d", 3),
        ("a cat sat there", 3),
        ("a dog and a cat", None),
        ("I do not know", None),
        ("", None),
        ("Z", None),
    ],
)
def test_finds_the_choice_that_an_answer_names(answer: str, index: int | None) -> None:
    assert Choices(("red", "dark red", "a dog", "A cat.")).find(answer) == index


def test_every_choice_is_found_by_its_text_and_its_letter() -> None:
    rng = random.Random(6)
    for _ in range(200):
        words = {
            "".join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 9))) for _ in range(5)
        }
        choices = Choices(tuple(words))
        for number, text in enumerate(choices.texts):
            letter = string.ascii_uppercase[number]
            for said in (text, f"{text.upper()}.", letter, f"({letter})", f"{letter}. {text}"):
                assert choices.find(said) == number


def test_a_question_lists_its_choices_with_letters() -> None:
    assert with_letters("What?", ()) == "What?"
    text = with_letters("What?", ["dog", "cat"])
    assert text.splitlines()[:3] == ["What?", "(A) dog", "(B) cat"]
    many = with_letters("What?", [str(n) for n in range(30)])
    assert "(Z) 25\n(27) 26\n" in many


def test_records_of_all_layouts_have_their_choices(tmp_path: Path) -> None:
    layouts: dict[str, Any] = {
        "mvbench.json": [{"video": "v.mp4", "question": "?", "candidates": ["a", "b"]}],
        "egoschema.json": [{"q_uid": "v", "question": "?", "option 0": "a", "option 1": "b"}],
        "perception.json": {"v": {"mc_question": [{"question": "?", "options": ["a", "b"]}]}},
    }
    for name, content in layouts.items():
        (tmp_path / name).write_text(json.dumps(content))
    (tmp_path / "nextqa.csv").write_text("video,question,qid,a0,a1\nv,?,1,a,b\n")
    for name in (*layouts, "nextqa.csv"):
        with read_questions(tmp_path / name) as questions:
            (record,) = questions.records
            assert isinstance(record, Record)
            assert record.choices == ("a", "b")
            assert questions.notices == []


def test_a_record_with_bad_choices_is_a_bad_line_and_others_are_read(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    entries = [{"video": "v", "question": "?", "choices": c} for c in (["a", "a"], ["a", "b"])]
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    with read_questions(path) as questions:
        bad, good = questions.records
    assert isinstance(bad, BadLine)
    assert isinstance(good, Record)


def test_digest_depends_on_how_choices_are_answered() -> None:
    with_choices = Record(1, {"a": 1}, "v", "q", choices=("a", "b"))
    without = Record(1, {"a": 1}, "v", "q")
    digests = {record_hash({}, how)(with_choices) for how in ("likelihood", "generate")}
    assert len(digests | {record_hash({})(without)}) == 3
    assert record_hash({}, "generate")(without) == record_hash({})(without)
