"""Results in each output format, as scoring scripts read them."""

import ast
import csv
import io
import json
from pathlib import Path
from typing import Any, TextIO

import pytest

from pandacli.batch.formats import FORMATS, OUTPUT_FORMATS, write_results
from pandacli.batch.readers.questions import Questions, read_questions
from pandacli.batch.records import BadLine, Question, Record, record_hash
from pandacli.batch.results import error_line, result_line
from pandacli.errors import ClipError, UsageError

OURS = [
    {"video": "sub/a.mp4", "question": "One?", "id": "x", "answer": "right"},
    {"video": "b.mp4", "question": "fails?"},
    {"video": "c.mp4", "question": "missing?"},
    {"video": "d.mp4"},
    {"video": "e.mp4", "question": "Last?", "mine": {"a": None}, "seen": True, "nothing": None},
]
QA = [
    {"video_name": "v1", "question": "One?", "question_id": "v1_0"},
    {"video_name": "v1", "question": "fails?", "question_id": "v1_1"},
    {"video_name": "v2", "question": "Last?", "question_id": "v2_0"},
]
RIGHT = [{"question_id": entry["question_id"], "answer": "cat", "type": 5} for entry in QA]
GENERIC = [{"Q": "One?", "A": "right", "video_name": "v_a"}]
PAIRS = [
    {"Q1": "One?", "Q2": "Two?", "A": "right", "video_name": "v_a"},
    {"Q1": "One?", "Q2": "fails?", "A": "right", "video_name": "v_b"},
    {"Q1": "One?", "Q2": "missing?", "A": "right", "video_name": "v_c"},
]
REQUESTS = [
    {
        "custom_id": f"r-{question}",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "video_url", "video_url": {"url": "a.mp4"}},
                        {"type": "text", "text": question},
                    ],
                }
            ]
        },
    }
    for question in ("One?", "fails?", "missing?")
]


digest_of = record_hash({})


def digest(each: Record | BadLine) -> int:
    return each.digest if isinstance(each, BadLine) else digest_of(each)


def write(questions: Questions, name: str, out: TextIO) -> list[str]:
    """Write results; the question of a record says whether it is answered."""
    digests = list(map(digest, questions.records))
    return write_results(questions, name, digests, journal(questions).get, out)


def journal(questions: Questions) -> dict[int, dict[str, Any]]:
    """The result of each record by its digest; bad lines have failed."""
    lines: dict[int, dict[str, Any]] = {}
    for each in questions.records:
        if isinstance(each, BadLine):
            lines[each.digest] = error_line(each, each.error)
        elif each.question != "missing?":
            lines[digest_of(each)] = outcome(each)
    return lines


def outcome(record: Record) -> dict[str, Any]:
    question = Question(record, digest_of(record))
    if record.question == "fails?":
        return error_line(question, ClipError("no file"))
    result = {"answer": f"To {record.question}", "model": "tiny", "finish_reason": "length"}
    return result_line(question, result | {"tokens": 3, "seconds": 0.5})


def written_as(folder: Path, entries: list[Any], shape: str, name: str = "q.json") -> str:
    path = folder / name
    if name.endswith(".jsonl"):
        path.write_text("\n".join(map(json.dumps, entries)))
    else:
        path.write_text(json.dumps(entries))
    return answered(path, shape)


def answered(path: Path, shape: str) -> str:
    out = io.StringIO(newline="")
    with read_questions(path) as questions:
        write(questions, shape, out)
    return out.getvalue()


def table(text: str, delimiter: str = ",") -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))


def test_qa_has_the_keys_of_both_scoring_scripts(tmp_path: Path) -> None:
    (tmp_path / "test_a.json").write_text(json.dumps(RIGHT))
    text = written_as(tmp_path, QA, "qa", "test_q.json")
    first, last = json.loads(text)
    assert first == QA[0] | {
        "id": "v1_0",
        "answer": "cat",
        "type": 5,
        "Q": "One?",
        "A": "cat",
        "pred": "To One?",
    }
    assert last["pred"] == "To Last?"


def test_qa_lines_have_no_null_or_true(tmp_path: Path) -> None:
    text = written_as(tmp_path, OURS, "qa-lines", "q.jsonl")
    assert "null" not in text
    assert "true" not in text
    first, last = map(json.loads, text.splitlines())
    assert {"id", "question", "answer", "pred"} <= first.keys()
    assert last["id"] == "5"


@pytest.mark.parametrize("text", ["a 🐼 é", "lone \ud83d", "two\u2028lines"])
def test_literal_evaluates_to_the_original_text(tmp_path: Path, text: str) -> None:
    entries = [{"video": "a.mp4", "question": "One?", "answer": text}]
    (line,) = written_as(tmp_path, entries, "qa-lines", "q.jsonl").splitlines()
    assert ast.literal_eval(line)["answer"] == text
    assert json.loads(line)["answer"] == text
    line.encode()


LINES = [("qa-lines", QA), ("generic-lines", GENERIC), ("consistency-lines", PAIRS)]


@pytest.mark.parametrize(("shape", "entries"), [*LINES, ("qa-lines", PAIRS)])
def test_literals_are_the_array_entries_without_null_and_booleans(
    tmp_path: Path, shape: str, entries: list[dict[str, Any]]
) -> None:
    of_pairs = entries is PAIRS
    entries = [entry | {"seen": True, "nothing": None, "number": 2} for entry in entries]
    lines = [ast.literal_eval(line) for line in written_as(tmp_path, entries, shape).splitlines()]
    array = json.loads(written_as(tmp_path, entries, "consistency" if of_pairs else shape[:-6]))
    assert array
    assert lines == [
        {name: value for name, value in entry.items() if name not in ("seen", "nothing")}
        for entry in array
    ]
    wanted = {"Q1", "Q2", "A", "pred1", "pred2"} if of_pairs else {"pred"}
    assert all(wanted <= line.keys() for line in lines)


@pytest.mark.parametrize("shape", ["qa", "qa-lines"])
def test_ids_are_strings_under_any_case(tmp_path: Path, shape: str) -> None:
    entries = [{"video": "a", "question": "One?", "Id": 44815}]
    entries += [{"video": "a", "question": "Two?", "Id": "v/2"}]
    text = written_as(tmp_path, entries, shape)
    found = json.loads(text) if shape == "qa" else [*map(json.loads, text.splitlines())]
    assert [entry["id"] for entry in found] == ["44815", "v_2"]


def test_repeated_ids_become_unique_with_a_notice(tmp_path: Path) -> None:
    videos = ["a.mp4", "b.mp4", "b.mp4", "c/b.mp4"]
    path = tmp_path / "q.jsonl"
    entries = [{"video": v, "question": f"{n}?", "qid": 6} for n, v in enumerate(videos)]
    entries[1]["question"] = "missing?"  # of another shard: that must not change the ids
    path.write_text("\n".join(map(json.dumps, entries)))
    out = io.StringIO()
    with read_questions(path) as questions:
        notices = write(questions, "qa-lines", out)
    ids = [json.loads(line)["id"] for line in out.getvalue().splitlines()]
    assert ids == ["a_6", "b_6_2", "b_6_3"]
    assert any("the ids of the questions repeat" in notice for notice in notices)


@pytest.mark.parametrize("answer", ["", "yes"])
def test_answers_without_references_give_a_notice(tmp_path: Path, answer: str) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(json.dumps({"video": "a", "question": "One?", "answer": answer}))
    with read_questions(path) as questions:
        notices = write(questions, "qa", io.StringIO())
    assert [sentence.startswith("1 answers have no right answer") for sentence in notices] == (
        [] if answer else [True]
    )


WRITTEN = [(shape, OURS) for shape in ("qa", "generic", "qa-lines", "generic-lines", "csv")]
WRITTEN += [("consistency", PAIRS), ("consistency-lines", PAIRS), ("qa-lines", PAIRS)]


@pytest.mark.parametrize(("shape", "entries"), [*WRITTEN, ("openai", REQUESTS), ("qa", [])])
def test_own_output_is_recognized(tmp_path: Path, shape: str, entries: list[Any]) -> None:
    text = written_as(tmp_path, entries, shape, "q.jsonl").encode()
    assert FORMATS[shape].is_output(io.BytesIO(text))
    others = {"qa": "csv", "csv": "qa-lines", "openai": "generic-lines"}
    other = others.get(shape.removesuffix("-lines"), "openai")
    assert not FORMATS[other].is_output(io.BytesIO(text))


FOREIGN = {
    "clip": b"\0\0\0 ftypisom",
    "table": b"video,question,answer\na,b,c\n",
    "array": b'[{"id": 1, "pred": "x"}]',
    "pretty array": b'[\n  {\n "id": 1\n}]',
    "line": b'{"id": "1", "question": "?", "answer": "a", "pred": "x"}\n',
    "text": b"my notes\n",
    "half": b"[\n",
    "nested": b"[" * 100_000,
    "latin": b"vid\xe9o,error\n",
}


@pytest.mark.parametrize("shape", [shape for shape in OUTPUT_FORMATS if shape != "jsonl"])
@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_foreign_file_is_not_recognized_as_output(shape: str, content: bytes) -> None:
    assert not FORMATS[shape].is_output(io.BytesIO(content))


def test_generic_keeps_its_entries_and_adds_the_prediction(tmp_path: Path) -> None:
    text = written_as(tmp_path, GENERIC, "generic")
    assert json.loads(text) == [GENERIC[0] | {"pred": "To One?"}]


def test_pair_is_written_if_both_are_answered(tmp_path: Path) -> None:
    text = written_as(tmp_path, PAIRS, "consistency")
    assert json.loads(text) == [PAIRS[0] | {"pred1": "To One?", "pred2": "To Two?"}]


def test_video_name_defaults_to_the_stem(tmp_path: Path) -> None:
    text = written_as(tmp_path, OURS, "generic", "q.jsonl")
    first, last = json.loads(text)
    assert (first["video_name"], first["A"]) == ("a", "right")
    assert (last["video_name"], "A" in last) == ("e", False)


def test_qa_splits_pairs(tmp_path: Path) -> None:
    text = written_as(tmp_path, PAIRS[:1], "qa")
    assert [entry["id"] for entry in json.loads(text)] == ["1_1", "1_2"]


def test_responses_include_errors(tmp_path: Path) -> None:
    text = written_as(tmp_path, [*REQUESTS, {"custom_id": "bad"}], "openai", "q.jsonl")
    done, failed, bad = map(json.loads, text.splitlines())
    assert done["custom_id"] == "r-One?"
    assert done["error"] is None
    assert done["response"]["status_code"] == 200
    completion = done["response"]["body"]
    assert completion["object"] == "chat.completion"
    assert completion["choices"][0]["message"]["content"] == "To One?"
    assert completion["choices"][0]["finish_reason"] == "length"
    assert completion["usage"]["completion_tokens"] == 3
    assert (failed["response"], failed["error"]["code"]) == (None, "clip")
    assert (bad["custom_id"], bad["error"]["code"]) == ("bad", "record")


def test_response_ids_are_strings(tmp_path: Path) -> None:
    text = written_as(tmp_path, OURS, "openai", "q.jsonl")
    assert [json.loads(line)["custom_id"] for line in text.splitlines()] == [
        "x",
        "2",
        "line-4",
        "5",
    ]


def test_table_keeps_its_columns_and_adds_result_columns(tmp_path: Path) -> None:
    path = tmp_path / "q.csv"
    path.write_text('video;question;answer;model\na;"On;e?";right;m\nb;fails?;;\n;no video;;\n')
    done, failed, bad = table(answered(path, "csv"), ";")
    ours = ["pred", "panda_model", "finish_reason", "tokens", "seconds", "error"]
    assert list(done) == ["video", "question", "answer", "model", *ours]
    assert (done["question"], done["answer"], done["pred"]) == ("On;e?", "right", "To On;e?")
    assert (done["tokens"], done["error"]) == ("3", "")
    assert (failed["pred"], failed["error"]) == ("", "clip: no file")
    assert bad["error"].startswith("record: ")


def test_table_has_a_column_for_every_field(tmp_path: Path) -> None:
    text = written_as(tmp_path, OURS, "csv", "q.jsonl")
    rows = table(text)
    assert list(rows[0])[:8] == [
        *("video", "question", "id", "answer", "mine", "seen", "nothing"),
        "pred",
    ]
    assert rows[-1]["mine"] == '{"a": null}'
    assert rows[0]["answer"] == "right"
    assert rows[2]["video"] == "d.mp4"


def test_table_has_a_row_for_each_question_of_a_pair(tmp_path: Path) -> None:
    text = written_as(tmp_path, PAIRS[:1], "csv")
    assert [(row["part"], row["answer"]) for row in table(text)] == [
        ("0", "To One?"),
        ("1", "To Two?"),
    ]


@pytest.mark.parametrize("cell", ["a\rb", "a\nb", 'a"b', "a,b", "é\u2028", "=1+1", " a "])
def test_cells_survive_a_round_trip(tmp_path: Path, cell: str) -> None:
    text = written_as(tmp_path, [{"video": "a", "question": cell}], "csv", "q.jsonl")
    [row] = table(text)
    assert row["question"] == cell


def test_unpaired_surrogate_is_escaped_in_a_table(tmp_path: Path) -> None:
    entry = {"video": "a", "question": "?", "mine": "\ud800"}
    text = written_as(tmp_path, [entry], "csv", "q.jsonl")
    assert table(text)[0]["mine"] == "\\ud800"


@pytest.mark.parametrize("shape", ["csv", "openai"])
def test_bad_line_of_another_shard_is_not_written(tmp_path: Path, shape: str) -> None:
    path = tmp_path / "q.csv"
    path.write_text("video,question\n,no video\n")
    out = io.StringIO(newline="")
    with read_questions(path) as questions:
        write_results(questions, shape, [0], lambda _: None, out)
    assert "no video" not in out.getvalue()
    assert "error" not in out.getvalue().partition("\n")[2]


@pytest.mark.parametrize("shape", [shape for shape in OUTPUT_FORMATS if shape != "jsonl"])
@pytest.mark.parametrize("entries", [OURS, QA, GENERIC, PAIRS, REQUESTS])
def test_every_input_format_is_written_in_every_output_format(
    tmp_path: Path, entries: list[Any], shape: str
) -> None:
    row = FORMATS[shape]
    if row.of_choices or row.of_moments or (row.in_pairs and entries is not PAIRS):
        with pytest.raises(UsageError):
            written_as(tmp_path, entries, shape)
    else:
        assert "To One?" in written_as(tmp_path, entries, shape)


def test_no_results_are_an_empty_array(tmp_path: Path) -> None:
    assert json.loads(written_as(tmp_path, [], "qa")) == []
