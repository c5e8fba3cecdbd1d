"""A line of our answers says what was asked and what came of it, without the question file."""

import json
import pickle
from typing import Any

from pandacli.batch.records import Record, RecordError
from pandacli.batch.results import answer_line, error_line

DIGEST = "0123456789abcdef"


def answered(record: Record) -> dict[str, Any]:
    return answer_line(
        record,
        answer="A cat.",
        model="tiny",
        finish_reason="stop",
        tokens=3,
        seconds=0.123456,
        digest=DIGEST,
    )


def record(**fields: Any) -> Record:
    fields = {"video": "a.mp4", "question": "What?"} | fields
    return Record(3, fields, fields["video"], fields["question"])


def test_the_input_comes_first_and_ours_after_it() -> None:
    assert list(answered(record(id=1, mine=[2])).items()) == [
        ("video", "a.mp4"),
        ("question", "What?"),
        ("id", 1),
        ("mine", [2]),
        ("answer", "A cat."),
        ("model", "tiny"),
        ("finish_reason", "stop"),
        ("tokens", 3),
        ("seconds", 0.123),
        ("digest", DIGEST),
    ]


def test_a_field_of_the_input_with_a_name_of_ours_is_kept_apart() -> None:
    line = answered(record(answer="cat", error=None, given=1))
    assert line["answer"] == "A cat."
    assert line["given"] == {"answer": "cat", "error": None, "given": 1}
    assert "error" not in line


def test_the_right_answer_is_not_taken_for_ours_where_ours_is_missing() -> None:
    asked = record(answer="cat")
    line = error_line(3, asked.fields, "clip", "no file a.mp4", DIGEST, asked)
    assert "answer" not in line
    assert line["given"] == {"answer": "cat"}


def test_a_record_that_failed_is_told_with_its_line() -> None:
    asked = record(id=1)
    assert error_line(3, asked.fields, "clip", "no file a.mp4", DIGEST, asked) == asked.fields | {
        "line": 3,
        "error": {"kind": "clip", "message": "no file a.mp4"},
        "digest": DIGEST,
    }


def test_a_line_that_is_no_record_is_told() -> None:
    line = error_line(3, None, "record", "not JSON", DIGEST)
    assert list(line) == ["line", "error", "digest"]


def test_one_of_two_questions_is_told_with_its_part() -> None:
    fields = {"video_name": "v_a", "Q1": "One?", "Q2": "Two?", "A": "Yes."}
    line = answered(Record(3, fields, "v_a", "Two?", part=1, parts=2))
    assert line.items() >= fields.items()
    assert (line["part"], line["video"], line["question"]) == (1, "v_a", "Two?")


def test_a_line_is_one_line_of_ascii() -> None:
    text = json.dumps(answered(record(mine="é\n\u2028\ud800")))
    assert text.isascii()
    assert "\n" not in text
    assert json.loads(text)["mine"] == "é\n\u2028\ud800"


def test_an_error_keeps_its_fields_between_processes() -> None:
    error = RecordError("no")
    error.fields = {"id": 1}
    assert pickle.loads(pickle.dumps(error)).fields == {"id": 1}
