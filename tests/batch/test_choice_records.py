"""Multiple choice: the layouts of data sets, the answers to them, and which one an answer names."""

import json
import random
import string
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest

from pandacli import Panda
from pandacli.batch.clip_worker import ClipWorker
from pandacli.batch.readers.choices import Choices, find_choices, read_choices, with_letters
from pandacli.batch.readers.questions import read_questions
from pandacli.batch.records import BadLine, Question, Record, RecordError, record_hash
from pandacli.evaluation.job import Job, run
from pandacli.inference.session import VideoSession
from pandacli.video import Clip, sample_frames
from tests.batch.conftest import settings_of

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
        ({"A": "dog", "B": "cat", "C": "cow", "answer": "C"}, "dog cat cow", 2),
        ({"option_a": "dog", "option_b": "cat", "answer": "a"}, "dog cat", 0),
        ({"option": ["A. dog", "B. cat"], "answer": "1"}, "dog cat", 1),
        ({"choices": ["1", "2", "3"], "answer": "0"}, "1 2 3", None),
        ({"candidates": "['dog', 'cat']", "answer": "dog"}, "dog cat", 0),  # pandas
        ({"choices": [{"choice_id": 0, "choice": "dog"}, {"choice": "cat"}]}, "dog cat", None),
        (
            {"a1": "dog", "a2": "cat", "answer": 1},
            "dog cat",
            1,
        ),  # TGIF-QA counts from 0 all the same
        ({"Q": "?", "A": "dog", "candidates": ["dog", "cat"]}, "dog cat", 0),
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
    [
        *({}, {"a0": "dog"}, {"a0": "dog", "a2": "cat"}, {"options": "x"}, {"choices": ""}),
        *({"a1b": 1}, {"Q": "who?", "A": "dog"}, {"A": "dog", "C": "cat"}, {"a2": "x", "a3": "y"}),
    ],
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


def test_choices_that_cannot_be_scored_still_have_a_right_one() -> None:
    fields = {"a0": "dog", "a1": "dog", "a2": "", "a3": "cat", "answer": 3}
    assert find_choices(fields) == Choices(("dog", "dog", "", "cat"), 3)
    assert find_choices({"choices": ["dog", None]}) is None


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
        ("The answer is a dog.", 2),
        ("Answer: A cat.", 3),
        ("The answer is A because of it", 0),
        ("I see a cat.", 3),
        ("**B**", 1),
        ("[c]", 2),
        ("The correct option is: (D) a dog", 3),
        ("Answer: c", 2),
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


def replies(choices: tuple[str, ...], rng: random.Random) -> Iterator[tuple[str, int | None]]:
    """Drawn replies, and the index of the choice that each names."""
    for number, text in enumerate(choices):
        letter = string.ascii_uppercase[number]
        form = rng.choice(
            ["{}", "({})", "{}.", "{}: x", "**{}**", "Answer: {}", "The answer is {}."]
        )
        yield form.format(rng.choice([letter, letter.lower()])), number
        yield rng.choice(["{}", "It is {}.", "I think that it is {}!"]).format(text), number
    yield (
        rng.choice(["I cannot tell.", "", "neither", "a or b", "Y", "The answer is an owl."]),
        None,
    )


@pytest.mark.parametrize("seed", range(5))
def test_generated_replies_are_kept_and_those_without_a_choice_are_wrong(
    monkeypatch, panda: Panda, clips: Path, tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    choices = (*rng.sample(["red", "dark blue", "green", "a dog", "12"], 4),)
    said = list(replies(choices, rng))
    right = [rng.randrange(len(choices)) for _ in said]

    def generate(_: Any, requests: Any, **__: Any) -> Any:
        asked = [request.question for request in requests]
        assert all(f"(B) {choices[1]}" in question for question in asked)
        stats = SimpleNamespace(answer_tokens=1)
        answers = [
            SimpleNamespace(text=text, finish_reason="stop", stats=stats, logprobs=None)
            for text, _ in said
        ]
        seconds = SimpleNamespace(prefill=0.0, decode=0.0, rerun=0.0)
        return SimpleNamespace(results=lambda: enumerate(answers), seconds=seconds)

    monkeypatch.setattr(VideoSession, "generate", generate)
    group = [
        Question(Record(n, {"answer": r, "choices": [*choices]}, "v", f"{n}?", choices=choices), n)
        for n, r in enumerate(right)
    ]
    settings = settings_of(choose="generate")
    frames = sample_frames(Clip(clips / "wide.avi"), 8)
    lines = [line for _, line in ClipWorker(panda, settings, group, Event()).results(frames)]
    for line, (text, index) in zip(lines, said, strict=True):
        assert (line["reply"], line["answer"]) == (text, text if index is None else choices[index])
    results = tmp_path / "r.jsonl"
    results.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = run(Job((results,)))["files"][0]["measures"]["choice accuracy"]
    hits = sum(index == r for (_, index), r in zip(said, right, strict=True))
    assert found["count"] == len(said)
    assert found["mean"] == pytest.approx(hits / len(said), abs=1e-6)


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
