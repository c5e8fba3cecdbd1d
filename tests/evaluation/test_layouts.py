"""Answers in every layout that `panda batch` writes are found again by `panda eval`."""

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

from pandacli.batch.formats import FORMATS, OUTPUT_FORMATS, write_results
from pandacli.batch.log import encode_line
from pandacli.batch.readers.questions import Questions, read_questions
from pandacli.batch.records import BadLine, Question, record_hash
from pandacli.batch.results import error_line, result_line
from pandacli.errors import ClipError
from pandacli.evaluation.answers import Item, read_items
from pandacli.evaluation.matching import match, without_repeats

WORDS = ("dog", "cat", "Yes.", "a, b", 'say "no"', "zwölf", "猫", "two\nlines", "{x}", "3", "0")
LAYOUTS = ("jsonl", "without ids", "clips", "qa", "generic", "consistency")
digest_of = record_hash({})


def drawn_questions(layout: str, rng: random.Random, count: int = 30) -> list[dict[str, Any]]:
    """Questions in a layout: on the same video in several folders, some of them the same twice."""
    entries: list[dict[str, Any]] = []
    for number in range(count):
        video, name = f"{rng.choice('xy')}/v{number // 6}.mp4", f"v{number // 4}"
        question, right = f"what {rng.randrange(8)}?", rng.choice(WORDS)
        entries.append(
            {
                "jsonl": {"video": video, "question": question, "answer": right, "id": number},
                "without ids": {"video": video, "question": f"{question} {number}", "answer": "x"},
                "clips": {
                    **{"video": "film.mp4", "question": "what?", "answer": right},
                    **{"from": number, "to": number + 1},
                },
                "qa": {
                    **{"video_name": name, "question": question, "answer": right},
                    "question_id": f"q{number}",
                },
                "generic": {"video_name": name, "Q": f"{question} {number}", "A": right},
                "consistency": {
                    **{"video_name": name, "Q1": f"one {number}?", "Q2": f"two {number}?"},
                    "A": right,
                },
            }[layout]
        )
    return entries


def write(questions: Questions, name: str, path: Path, rng: random.Random) -> dict[Any, str | None]:
    """Write answers, some of them errors, in another order; returns them by line and part."""
    lines, given = {}, {}
    for record in questions.records:
        assert not isinstance(record, BadLine)
        question = Question(record, digest_of(record))
        answer = rng.choice(WORDS) if rng.random() < 0.8 else None
        given[record.line, record.part] = answer
        made = {"answer": answer, "model": "tiny", "finish_reason": "stop", "tokens": 2}
        if answer is None:
            lines[question.digest] = error_line(question, ClipError("it is damaged"))
        else:
            lines[question.digest] = result_line(question, made | {"seconds": 0.5})
    if FORMATS[name].write is None:
        shuffled = rng.sample(list(lines.values()), len(lines))
        path.write_bytes(b"".join(map(encode_line, shuffled)))
    else:
        with path.open("w", newline="") as out:
            digests = [digest_of(r) for r in questions.records if not isinstance(r, BadLine)]
            write_results(questions, name, digests, lines.get, out)
    return given


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        (layout, name)
        for layout in LAYOUTS
        for name in OUTPUT_FORMATS
        if not (FORMATS[name].of_choices or FORMATS[name].of_moments)
        and (
            FORMATS[name].in_pairs == (layout == "consistency")
            or name in ("jsonl", "csv", "openai")
        )
    ],
)
def test_every_answer_that_batch_writes_is_found(layout: str, name: str, tmp_path: Path) -> None:
    in_pairs = layout == "consistency"
    rng = random.Random(f"{layout} {name}")
    asked, answered = tmp_path / "q.jsonl", tmp_path / "out"
    entries = drawn_questions(layout, rng)
    asked.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    with read_questions(asked) as questions:
        given = write(questions, name, answered, rng)
    items, _ = without_repeats(read_items(answered))
    found, ignored = match(items, read_items(asked))
    assert not ignored
    for number, (item, entry) in enumerate(zip(found, entries, strict=True), 1):
        answers = [given[number, part] for part in range(1 + in_pairs)]
        if None in answers:
            assert item.prediction is None
            assert item.error
        else:
            assert item.prediction == answers[0]
            assert item.second == ((entry["Q2"], answers[1]) if in_pairs else None)
        assert item.references == (entry.get("answer", entry.get("A")),)
        assert item.layout == {"generic": "generic", "consistency": "consistency"}.get(layout, "qa")


def test_a_table_without_right_answers_is_not_scored_against_itself(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "video,question,answer,model,finish_reason,tokens,seconds,error\n"
        "a.mp4,what?,Dog.,tiny,stop,2,0.1,\n"
    )
    (item,) = read_items(path)
    assert (item.prediction, item.references) == ("Dog.", ())


@pytest.mark.parametrize("right", range(3))
def test_choices_in_numbered_fields_keep_the_right_one(tmp_path: Path, right: int) -> None:
    texts = ["left", "right", "up"]
    fields = {"video": "v.mp4", "question": "where?", **{f"a{n}": t for n, t in enumerate(texts)}}
    scored = [{"text": t, "logprob": -1.0, "probability": 1 / 3} for t in texts]
    line = fields | {"digest": "0" * 16, "given": {"answer": str(right)}, "choices": scored}
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(line | {"answer": "up", "coverage": 0.5}) + "\n")
    (item,) = read_items(path)
    assert item.choices is not None
    assert (item.choices.texts, item.choices.correct) == (tuple(texts), right)
    assert (item.chosen, item.probabilities, item.coverage) == (2, (1 / 3,) * 3, 0.5)


def test_answers_of_the_same_question_on_a_video_belong_to_their_ids() -> None:
    rng = random.Random(4)
    questions = [Item(f"q{n}", f"v{n // 9}", "what?", (str(n),), None) for n in range(45)]
    answers = [Item(q.id, q.video, q.question, (), q.id) for q in questions if rng.random() < 0.7]
    rng.shuffle(answers)
    found, ignored = match(answers, questions)
    assert not ignored
    assert {item.prediction for item in found} - {None} == {item.id for item in answers}
    assert all(item.prediction in (None, item.id) for item in found)


def test_ids_that_are_line_numbers_join_nothing_between_videos() -> None:
    questions = [Item(str(n), f"v{n}", "what?", ("x",), None, has_id=False) for n in range(9)]
    answers = [Item(str(9 - n), f"v{n}", "what?", (), f"v{n}", has_id=False) for n in range(5)]
    found, _ = match(answers, questions)
    assert [item.prediction for item in found] == [f"v{n}" for n in range(5)] + [None] * 4


def test_the_last_answer_to_a_question_counts_and_answers_to_no_question_are_named() -> None:
    def answer(name: str, text: str | None) -> Item:
        return Item(name, "v", f"{name}?", ("x",), text)

    items = [answer("a", "1"), answer("b", "1"), answer("a", "2"), answer("a", None)]
    kept, repeated = without_repeats(items)
    assert [(item.id, item.prediction) for item in kept] == [("b", "1"), ("a", "2")]
    assert [each.item.prediction for each in repeated] == ["1", None]
    _, ignored = match(kept, [answer("a", None)])
    assert [each.item.id for each in ignored] == ["b"]


@pytest.mark.parametrize("bad", [1.5, -0.1, True, "0.5", None, math.inf])
def test_what_is_no_probability_is_not_scored(tmp_path: Path, bad: object) -> None:
    scored = [{"text": t, "logprob": -1.0, "probability": p} for t, p in (("a", 0.5), ("b", bad))]
    line = {"digest": "0" * 16, "video": "v.mp4", "question": "?", "answer": "a", "coverage": bad}
    line |= {"given": {"choices": ["a", "b"], "answer": "a"}, "choices": scored}
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(line) + "\n")
    (item,) = read_items(path)
    if bad != math.inf:  # which is not JSON
        assert item.choices is not None
        assert item.chosen == item.choices.correct == 0
    assert (item.probabilities, item.coverage) == ((), None)


def test_a_damaged_line_says_why_and_is_the_answer_to_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    good = {"id": "x", "video": "v.mp4", "question": "what?", "answer": "a", "pred": "b"}
    path.write_text(json.dumps(good) + '\n{"id": "2", "vid\n')
    read = read_items(path)
    assert "JSON" in str(read[1].error)
    questions = [Item("x", "v", "what?", ("a",), None), Item("2", "v", "who?", ("a",), None)]
    found, ignored = match(read, questions)
    assert [item.prediction for item in found] == ["b", None]
    assert len(ignored) == 1
