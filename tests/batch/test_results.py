"""Lines of the results file: the fields of the record, then the result."""

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


def test_fields_of_the_record_come_first() -> None:
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


def test_field_with_a_result_name_moves_into_given() -> None:
    line = answered(record(answer="cat", error=None, given=1))
    assert line["answer"] == "A cat."
    assert line["given"] == {"answer": "cat", "error": None, "given": 1}
    assert "error" not in line


def test_error_line_has_no_answer_but_keeps_the_reference() -> None:
    asked = record(answer="cat")
    line = error_line(3, asked.fields, "clip", "no file a.mp4", DIGEST, asked)
    assert "answer" not in line
    assert line["given"] == {"answer": "cat"}


def test_error_line_has_the_line_and_the_error() -> None:
    asked = record(id=1)
    assert error_line(3, asked.fields, "clip", "no file a.mp4", DIGEST, asked) == asked.fields | {
        "line": 3,
        "error": {"kind": "clip", "message": "no file a.mp4"},
        "digest": DIGEST,
    }


def test_error_line_of_a_bad_line_has_no_fields() -> None:
    line = error_line(3, None, "record", "not JSON", DIGEST)
    assert list(line) == ["line", "error", "digest"]


def test_question_of_a_pair_has_its_part() -> None:
    fields = {"video_name": "v_a", "Q1": "One?", "Q2": "Two?", "A": "Yes."}
    line = answered(Record(3, fields, "v_a", "Two?", part=1, parts=2))
    assert line.items() >= fields.items()
    assert (line["part"], line["video"], line["question"]) == (1, "v_a", "Two?")


def test_line_is_one_line_of_ascii() -> None:
    text = json.dumps(answered(record(mine="é\n\u2028\ud800")))
    assert text.isascii()
    assert "\n" not in text
    assert json.loads(text)["mine"] == "é\n\u2028\ud800"


def test_pickled_error_keeps_its_fields() -> None:
    error = RecordError("no")
    error.fields = {"id": 1}
    assert pickle.loads(pickle.dumps(error)).fields == {"id": 1}
