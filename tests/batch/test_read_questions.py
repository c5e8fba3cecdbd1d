"""Files of questions in each format; a bad entry fails alone."""

import io
import itertools
import json
import os
import random
import threading
from pathlib import Path

import pytest

from pandacli.batch.formats import (
    FORMATS,
    INPUT_FORMATS,
    OUTPUT_FORMATS,
    Format,
    write_results,
)
from pandacli.batch.readers.entries import MOST_BYTES
from pandacli.batch.readers.fields import named_fields
from pandacli.batch.readers.questions import read_questions
from pandacli.batch.records import SPOOL_BYTES, BadLine, Record
from pandacli.errors import ClipError, PandaError, UsageError
from tests.batch.question_files import OURS, REQUEST, problem, read, records, request, written

QA = [
    {"video_name": "vid1", "question": "who?", "question_id": "vid1_0"},
    {"video_name": "vid2", "question": "what?", "question_id": "vid2_0"},
]
ANSWERS = [
    {"answer": "cat", "type": 5, "question_id": "vid2_0"},
    {"answer": "man", "type": 8, "question_id": "vid1_0"},
]
GENERIC = [{"Q": "What happens?", "A": "A lot.", "video_name": "v_x"}]
PAIRS = [{"Q1": "One?", "Q2": "Two?", "A": "Yes.", "video_name": "v_x"}]


def ours(**fields: object) -> str:
    return json.dumps({"video": "a.mp4", "question": "What?"} | fields)


def test_record_keeps_all_fields(tmp_path: Path) -> None:
    [record] = records(written(tmp_path, "q.jsonl", OURS))
    assert record == Record(1, json.loads(OURS), "a.mp4", "What?", start=62.5)


def test_blank_lines_are_counted(tmp_path: Path) -> None:
    path = written(tmp_path, "q.jsonl", f"\n{OURS}\r\n \r\n{OURS}")
    assert [record.line for record in records(path)] == [2, 4]


def test_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    assert records(written(tmp_path, "q.jsonl", "\ufeff" + OURS))[0].video == "a.mp4"


def test_empty_file_has_no_records(tmp_path: Path) -> None:
    assert records(written(tmp_path, "q.jsonl", "")) == []


def test_long_numbers_are_kept(tmp_path: Path) -> None:
    path = written(tmp_path, "q.jsonl", ours(big=10**300, small=1e-9, text="\ud800 "))
    assert records(path)[0].fields["big"] == 10**300


def test_null_field_counts_as_absent(tmp_path: Path) -> None:
    line = ours(**{"from": None, "to": None, "system": None, "max_tokens": None})
    [record] = records(written(tmp_path, "q.jsonl", line))
    assert (record.start, record.end, record.system, record.max_tokens) == (None,) * 4


def test_name_that_is_not_utf8_keeps_its_bytes(tmp_path: Path) -> None:
    [record] = records(written(tmp_path, "q.jsonl", ours(video="a\udcff.mp4")))
    assert os.fsencode(record.video) == b"a\xff.mp4"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON: expecting property name"),
        ("abc", "not JSON"),
        ("3", "not a JSON object but a number"),
        ("null", "not a JSON object but null"),
        (OURS + OURS, "not JSON: extra data"),
        (b'{"a": "\xff"}', "not UTF-8 at byte 8"),
        (b"\x00\x01\x02", "not JSON"),
        ("{}", "the field 'video' is missing"),
        ('{"video": "a"}', "the field 'question' is missing"),
        (ours(video=3.5), "the field 'video' is a number, not a string"),
        (ours(video=" "), "the name of the video is empty"),
        (ours(video="a\0b"), "NUL"),
        (ours(video="\ud800"), "an unpaired surrogate"),
        (ours(question=["a"]), "the field 'question' is a list, not a string"),
        (ours(question=" \n"), "the field 'question' is empty"),
        (ours(question="\ud800"), "the field 'question' contains an unpaired surrogate"),
        (ours(system="\udfff"), "the field 'system' contains an unpaired surrogate"),
        (ours(system=1), "the field 'system' is a number"),
        (ours(id=[]), "the field 'id' is a list"),
        (ours(max_tokens=True), "the field 'max_tokens' is not a whole number"),
        (ours(max_tokens=0), "the field 'max_tokens' is not a whole number"),
        (ours(max_tokens=1.5), "the field 'max_tokens' is not a whole number"),
        (ours(max_tokens=10**7), "the field 'max_tokens' is not a whole number"),
        (ours(**{"from": "soon"}), "the field 'from' is not a time: 'soon'"),
        (ours(**{"from": "9" * 5000 + ":00"}), "the field 'from' is not a time"),
        (ours(**{"from": True}), "the field 'from' is not a time: True"),
        (ours(**{"to": -1}), "the field 'to' is not a time: -1"),
        (ours(**{"to": 10**400}), "the field 'to' is not a time"),
        (ours(**{"to": 1e300}), "the field 'to' is not a time"),
        (ours(**{"from": "9" * 308}), "the field 'from' is not a time"),
        (ours(**{"to": {}}), "the field 'to' is not a time: an object"),
        (ours(**{"from": 3, "to": 3}), "not after its start"),
        ('{"a": NaN}', "not JSON: NaN is no number"),
        ('{"a": 1e999}', "the number 1e999 is too large"),
        (f'{{"a": {"9" * 5000}}}', "a number has too many digits"),
        ('{"a": {"b": 1, "b": 1}}', "the field 'b' is there twice"),
        ('{"a": ' + "[" * 100 + "]" * 100 + "}", "nested too deeply"),
        ('{"a": ' + "[" * 100_000, "nested too deeply"),
        ("x" * (MOST_BYTES + 1), "longer than 8 MB"),
        (" " * MOST_BYTES + OURS, "longer than 8 MB"),
    ],
    ids=itertools.count(),
)
def test_bad_line_has_its_error(line: str | bytes, message: str) -> None:
    assert message in problem(line)


def test_bad_line_keeps_its_parsed_fields(tmp_path: Path) -> None:
    with read_questions(written(tmp_path, "q.jsonl", '{"id": 3}')) as questions:
        (bad,) = questions.records
    assert isinstance(bad, BadLine)
    assert bad.error.fields == {"id": 3}


def test_lines_after_a_too_long_line_are_read(tmp_path: Path) -> None:
    path = written(tmp_path, "q.jsonl", f"{OURS}\n{'x' * 3 * MOST_BYTES}\n\n{OURS}\n")
    with read_questions(path) as questions:
        found = read(questions)
    assert [line for line, _ in found] == [1, 2, 4]
    assert [isinstance(each, Record) for _, each in found] == [True, False, True]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize(
    ("entries", "kind"),
    [(QA, "qa"), (GENERIC, "generic"), (PAIRS, "consistency"), ([json.loads(OURS)], "jsonl")],
)
def test_array_format_is_recognized(
    tmp_path: Path, entries: list[object], kind: str, indent: int | None
) -> None:
    text = "\ufeff\n " + json.dumps(entries, indent=indent)
    with read_questions(written(tmp_path, "q.json", text)) as questions:
        assert questions.format == kind
        assert {line for line, _ in read(questions)} == set(range(1, len(entries) + 1))


@pytest.mark.parametrize("entries", [QA, GENERIC, PAIRS])
def test_lines_are_read_like_an_array(tmp_path: Path, entries: list[object]) -> None:
    array = records(written(tmp_path, "array.json", entries))
    lines = written(tmp_path, "lines.jsonl", "\n".join(map(json.dumps, entries)))
    assert records(lines) == array


def test_pair_is_two_records(tmp_path: Path) -> None:
    one, two = records(written(tmp_path, "q.json", PAIRS))
    assert (one.question, one.part, one.parts) == ("One?", 0, 2)
    assert (two.question, two.part, two.parts) == ("Two?", 1, 2)
    assert one.fields == two.fields == PAIRS[0]


@pytest.mark.parametrize(
    ("name", "beside"),
    [
        ("test_q.json", "test_a.json"),
        ("val_q_small.json", "val_a_small.json"),
        ("test-Q.json", "test-A.json"),
        ("questions.json", "answers.json"),
        ("my_question_list.json", "my_answer_list.json"),
    ],
)
def test_references_beside_the_questions_are_joined(tmp_path: Path, name: str, beside: str) -> None:
    written(tmp_path, beside, ANSWERS)
    found = records(written(tmp_path, name, QA))
    assert [record.fields["answer"] for record in found] == ["man", "cat"]
    assert found[0].fields == QA[0] | {"answer": "man", "type": 8}


def test_questions_without_references_are_read(tmp_path: Path) -> None:
    assert [r.fields for r in records(written(tmp_path, "test_q.json", QA))] == QA


@pytest.mark.parametrize("mark", ["pred", "digest"])
def test_results_of_a_run_are_not_used_as_references(tmp_path: Path, mark: str) -> None:
    written(tmp_path, "test_a.json", [answer | {mark: "x"} for answer in ANSWERS])
    assert [r.fields for r in records(written(tmp_path, "test_q.json", QA))] == QA


def test_references_without_ids_are_joined_by_position(tmp_path: Path) -> None:
    answers = written(tmp_path, "a", [{"answer": "first"}])
    found = records(written(tmp_path, "b", QA), "qa", answers)
    assert [record.fields.get("answer") for record in found] == ["first", None]


def test_references_are_joined_to_lines(tmp_path: Path) -> None:
    answers = written(tmp_path, "a", ANSWERS)
    lines = written(tmp_path, "b", "\n".join(map(json.dumps, QA)) + "\nbroken")
    with read_questions(lines, "qa", answers) as questions:
        found = [each for _, each in read(questions)]
    assert isinstance(found[0], Record)
    assert found[0].fields["answer"] == "man"
    assert isinstance(found[2], str)


@pytest.mark.parametrize("text", ["{", "[3]", "[", "", "\x00"])
def test_invalid_file_of_references_is_an_error(tmp_path: Path, text: str) -> None:
    answers = written(tmp_path, "a", text)
    questions = written(tmp_path, "b", QA)
    if text:
        with pytest.raises(ClipError):
            read_questions(questions, "qa", answers)
    else:
        assert len(records(questions, "qa", answers)) == 2


def test_references_for_another_format_are_a_usage_error(tmp_path: Path) -> None:
    path = written(tmp_path, "q.jsonl", OURS)
    with pytest.raises(UsageError):
        read_questions(path, "auto", path)


@pytest.mark.parametrize("content", [OURS, json.dumps(QA), "video,question\na,b"])
def test_pipe_is_read_like_a_file(tmp_path: Path, content: str) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(content,))
    writer.start()
    found = records(pipe)
    writer.join()
    with read_questions(io.BytesIO(content.encode())) as questions:
        assert [each for _, each in read(questions)] == found
    assert found == records(written(tmp_path, "file", content))


@pytest.mark.parametrize(
    "content",
    [
        "[1, 2",
        '[{"video": "a"} {"video": "b"}]',
        "[{}] more",
        '[{"a": 1},]',
        "[" * 100_000,
        b'[{"a": "\xff"}]',
        '{\n  "questions": []\n}',
        b"\xff\xfe{\x00}\x00",
        b"\x00\x00\x00\x18ftypmp42",
        "just text",
    ],
    ids=itertools.count(),
)
def test_invalid_file_is_an_error(tmp_path: Path, content: str | bytes) -> None:
    with pytest.raises(ClipError) as error:
        read_questions(written(tmp_path, "q.json", content))
    assert "\n" not in error.value.message


@pytest.mark.parametrize("name", ["none.jsonl", "", "a\0b", "x" * 300])
def test_unreadable_file_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(ClipError):
        read_questions(tmp_path / name)


def test_added_format_is_recognized_before_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = Format(named_fields("clip", "ask"), lambda fields: "ask" in fields)
    monkeypatch.setitem(FORMATS, "mine", row)
    path = written(tmp_path, "q.jsonl", '{"clip": "a.mp4", "ask": "What?"}')
    with read_questions(path) as questions:
        assert questions.format == "mine"
        [(_, record)] = read(questions)
    assert isinstance(record, Record)
    assert (record.video, record.question) == ("a.mp4", "What?")


def test_unknown_format_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        read_questions(tmp_path, "xml")


@pytest.mark.parametrize("first", ["[broken", "[1, 2]", "[", f"[{OURS}]", "\x00", "nonsense"])
def test_lines_after_a_broken_first_line_are_read(tmp_path: Path, first: str) -> None:
    with read_questions(written(tmp_path, "q.jsonl", f"{first}\n{OURS}\n{OURS}")) as questions:
        assert [isinstance(each, Record) for _, each in read(questions)] == [False, True, True]


@pytest.mark.parametrize("between", ["", "\n", "\n\n  "])
@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("name", ["q.json", "q.jsonl"])
def test_array_with_line_breaks_anywhere_is_read(
    tmp_path: Path, between: str, number: int, name: str
) -> None:
    joined = f"{between},{between}".join([OURS] * number)
    assert len(records(written(tmp_path, name, f"[{between}{joined}{between}]"))) == number


@pytest.mark.parametrize("entry", [3, "text", None, [], {}, {"video_name": "a"}])
def test_bad_entry_of_an_array_fails_alone(tmp_path: Path, entry: object) -> None:
    with read_questions(written(tmp_path, "q.json", [QA[0], entry, QA[1]])) as questions:
        found = read(questions)
    assert [isinstance(each, Record) for _, each in found] == [True, False, True]


def test_array_longer_than_a_block_is_read(tmp_path: Path) -> None:
    entries = [
        {"video_name": f"v{number}", "question": "é" * (number % 97) + "?", "n": number}
        for number in range(30_000)
    ]
    text = json.dumps(entries, indent=1, ensure_ascii=False)
    assert [r.fields for r in records(written(tmp_path, "q.json", text))] == entries


@pytest.mark.parametrize("piped", [True, False])
def test_full_disk_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piped: bool
) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no /dev/full here")
    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: full.open("r+b", buffering=0))
    content = "\n".join([ours(text="x" * 1_000_000)] * (SPOOL_BYTES // 1_000_000 + 1))
    path = written(tmp_path, "q.jsonl", content)
    with pytest.raises(PandaError, match=r"no copy of .* can be kept"):
        read_questions(io.BytesIO(content.encode()) if piped else path)


def test_temporary_files_have_no_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    content = "\n".join([ours(text="x" * 1_000_000)] * (SPOOL_BYTES // 1_000_000 + 1))
    with read_questions(io.BytesIO(content.encode())) as questions:
        assert len(read(questions)) == len(content.splitlines())
        assert list(tmp_path.iterdir()) == []


SEEDS = [
    OURS.encode() + b"\n" + ours(system="a", max_tokens=3).encode(),
    json.dumps(QA, indent=1).encode(),
    json.dumps(PAIRS + GENERIC).encode(),
    b'video,question,from\na.mp4,"b, c",1:00\n\nd,e,2',
    json.dumps(REQUEST).encode() + b"\n" + request().encode(),
    b"",
]
PIECES = [b"{", b"}", b"[", b"]", b'"', b"\\", b",", b"\n", b"\r", b"\0", b"\xff", b"\xef\xbb\xbf"]
PIECES += [b"\\ud800", b"NaN", b"1e999", b"9" * 5000, b"[" * 3000, b"null", b": ", b"true", b";"]


@pytest.mark.parametrize("seed", range(6))
def test_random_bytes_give_records_or_panda_errors(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    for turn in range(150):
        content = bytearray(chance.choice(SEEDS))
        for _ in range(chance.randint(1, 8)):
            place = chance.randint(0, len(content))
            piece = chance.choice([*PIECES, chance.randbytes(3)])
            content[place : place + chance.randint(0, 4)] = piece
        suffix = chance.choice([".jsonl", ".json", ".csv", ""])
        path = written(tmp_path, f"{turn}{suffix}", bytes(content))
        answers = path if chance.random() < 0.1 else None
        try:
            with read_questions(
                path, chance.choice(["auto", *INPUT_FORMATS]), answers
            ) as questions:
                for _, found in read(questions):
                    if isinstance(found, Record):
                        json.dumps(found.fields, allow_nan=False)
                        found.question.encode()
                        os.fsencode(found.video)
                shape = "consistency" if questions.in_pairs else chance.choice(OUTPUT_FORMATS[1:4])
                digests = [0] * len(questions.records)
                write_results(questions, shape, digests, lambda _: None, io.StringIO())
        except (ClipError, UsageError) as error:
            assert "\n" not in error.message  # noqa: PT017
