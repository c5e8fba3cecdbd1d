"""Lines of the results file: the fields of the record, then the result."""

import json
import pickle
from typing import Any

from pandacli.batch.records import BadLine, Question, Record, RecordError
from pandacli.batch.results import error_line, result_line
from pandacli.errors import ClipError, PandaError

RESULT = {
    "answer": "A cat.",
    "model": "tiny",
    "finish_reason": "stop",
    "tokens": 3,
    "seconds": 0.123,
}
DIGEST = "0123456789abcdef"
NO_FILE = ClipError("no file a.mp4", "check the path")


def question(**fields: Any) -> Question:
    fields = {"video": "a.mp4", "question": "What?"} | fields
    return Question(Record(3, fields, fields["video"], fields["question"]), int(DIGEST, 16))


def test_fields_of_the_record_come_first() -> None:
    line = result_line(question(id=1, mine=[2]), RESULT)
    own = {"video": "a.mp4", "question": "What?", "id": 1, "mine": [2]}
    assert list(line.items()) == [*own.items(), *RESULT.items(), ("digest", DIGEST)]


def test_field_with_a_result_name_moves_into_given() -> None:
    line = result_line(question(answer="cat", error=None, given=1), RESULT)
    assert line["answer"] == "A cat."
    assert line["given"] == {"answer": "cat", "error": None, "given": 1}
    assert "error" not in line


def test_error_line_has_no_answer_but_keeps_the_reference() -> None:
    line = error_line(question(answer="cat"), NO_FILE)
    assert "answer" not in line
    assert line["given"] == {"answer": "cat"}


def test_error_line_has_the_line_and_the_error() -> None:
    asked = question(id=1)
    assert error_line(asked, NO_FILE) == asked.record.fields | {
        "line": 3,
        "error": {"kind": "clip", "message": "no file a.mp4; check the path"},
        "digest": DIGEST,
    }


def test_error_of_an_unknown_kind_is_other() -> None:
    assert error_line(question(), PandaError("odd"))["error"]["kind"] == "other"


def test_error_line_of_a_bad_line_has_no_fields() -> None:
    bad = BadLine(3, RecordError("not JSON"))
    line = error_line(bad, bad.error)
    assert list(line) == ["line", "error", "digest"]
    assert line["error"] == {"kind": "record", "message": "not JSON"}


def test_question_of_a_pair_has_its_part() -> None:
    fields = {"video_name": "v_a", "Q1": "One?", "Q2": "Two?", "A": "Yes."}
    record = Record(3, fields, "v_a", "Two?", part=1, parts=2)
    line = result_line(Question(record, 1), RESULT)
    assert line.items() >= fields.items()
    assert (line["part"], line["video"], line["question"]) == (1, "v_a", "Two?")


def test_line_is_one_line_of_ascii() -> None:
    text = json.dumps(result_line(question(mine="é\n\u2028\ud800"), RESULT))
    assert text.isascii()
    assert "\n" not in text
    assert json.loads(text)["mine"] == "é\n\u2028\ud800"


def test_pickled_error_keeps_its_fields() -> None:
    error = RecordError("no")
    error.fields = {"id": 1}
    assert pickle.loads(pickle.dumps(error)).fields == {"id": 1}
