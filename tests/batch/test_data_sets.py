"""Data sets as they are published: known names of fields, conversations, Parquet."""

import builtins
import io
import json
import random
import string
from pathlib import Path
from typing import Any

import pytest

from pandacli.batch.formats import write_results
from pandacli.batch.readers.conversations import read_conversation
from pandacli.batch.readers.questions import find_references, read_questions
from pandacli.batch.records import Record
from pandacli.errors import ClipError, UsageError
from tests.batch.question_files import problem, read, records, written

HUMAN = {"from": "human", "value": "<video>\nWhat moves?"}
USER = {"role": "user", "content": "<video>What moves?"}
PARTS = [{"type": "video", "video": "file:///videos/a%20b.mp4"}, {"type": "text", "text": "What?"}]

ENTRIES: dict[str, tuple[dict[str, Any], str, str]] = {
    "Video-MME": ({"video_id": "001", "videoID": "xY", "question": "What?"}, "xY", "What?"),
    "MSRVTT-QA": ({"video_id": 6513, "question": "What?", "id": 1}, "video6513", "What?"),
    "EgoSchema": ({"q_uid": "u", "question": "What?", "option 0": "a"}, "u", "What?"),
    "TVQA": ({"vid_name": "s1", "q": "What?", "a0": "x", "qid": 3}, "s1", "What?"),
    "paths": ({"video_path": "b/a.mp4", "prompt": "What?"}, "b/a.mp4", "What?"),
    "capitals": ({"VIDEO": "a.mp4", "Question": "What?"}, "a.mp4", "What?"),
    "a video of datasets": ({"video": {"path": "a.mp4"}, "question": "What?"}, "a.mp4", "What?"),
    "LLaVA": ({"video": "a.mp4", "conversations": [HUMAN]}, "a.mp4", "What moves?"),
    "ShareGPT": ({"videos": ["a.mp4"], "conversations": [HUMAN]}, "a.mp4", "What moves?"),
    "LLaMA-Factory": ({"messages": [USER], "videos": ["a.mp4"]}, "a.mp4", "What moves?"),
    "Qwen": ({"messages": [{"role": "user", "content": PARTS}]}, "/videos/a b.mp4", "What?"),
}


@pytest.mark.parametrize(("entry", "video", "question"), ENTRIES.values(), ids=ENTRIES)
@pytest.mark.parametrize("name", ["q.json", "q.jsonl"])
def test_published_layout_is_read(
    tmp_path: Path, entry: dict[str, Any], video: str, question: str, name: str
) -> None:
    text = json.dumps([entry]) if name.endswith(".json") else json.dumps(entry)
    [record] = records(written(tmp_path, name, text))
    assert (record.video, record.question, record.fields) == (video, question, entry)


def test_tab_separated_tgif_qa_is_read(tmp_path: Path) -> None:
    text = "gif_name\tquestion\tanswer\ttype\tvid_id\ntumblr_1\tis it, or not ?\tyes\t0\tF7\n"
    [record] = records(written(tmp_path, "Test_q.csv", text))
    assert (record.video, record.question) == ("tumblr_1", "is it, or not ?")


def test_object_keyed_by_video_is_read(tmp_path: Path) -> None:
    question = {"id": 0, "question": "How many?", "options": ["1", "2"]}
    boxes = {"grounded_question": [{"question": "Where?"}], "mc_question": [question, question]}
    videos = {"v1": boxes, "v2": [question], "v3": {"metadata": {"a": 1}}}
    for indent in (None, 2):
        found = records(written(tmp_path, "valid.json", json.dumps(videos, indent=indent)))
        assert [record.video for record in found] == ["v1", "v1", "v2"]
        assert {record.question for record in found} == {"How many?"}


def test_only_first_turn_is_asked_with_a_notice(
    tmp_path: Path,
) -> None:
    turns = [{"from": "system", "value": "Be brief."}, HUMAN, {"from": "gpt", "value": "A ball."}]
    turns += [{"from": "human", "value": "And then?"}, {"from": "gpt", "value": "No."}]
    path = written(tmp_path, "q.json", [{"video": "a.mp4", "conversations": turns, "id": "7"}])
    [record] = records(path)
    assert (record.question, record.system) == ("What moves?", "Be brief.")
    out = io.StringIO()
    with read_questions(path) as questions:
        assert questions.notices == ["only the first question of each conversation is asked"]
        line = {"answer": "A star."}
        assert write_results(questions, "qa-lines", [0], lambda _: line, out) == []
    entry = json.loads(out.getvalue())
    assert (entry["id"], entry["question"], entry["A"]) == ("7", "What moves?", "A ball.")
    assert (entry["answer"], entry["pred"]) == ("A ball.", "A star.")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"conversations": [HUMAN], "vidoe": "a"}, "'video' is missing; the nearest is 'vidoe'"),
        ({"id": "7", "messages": [USER]}, "have no video, and the field 'video' is missing"),
        ({"videos": ["a", "b"], "messages": [USER]}, "have 2 videos, not one"),
        ({"videos": [3], "messages": [USER]}, "not a list of files"),
        ({"video": "a", "messages": []}, "have no turn of a user"),
        ({"video": "a", "messages": [3]}, "a message is a number"),
        ({"video": "a", "messages": [{"role": "tool", "content": "x"}]}, "has the role 'tool'"),
        ({"video": "a", "messages": [{"role": "user"}]}, "the field 'content' is missing"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "the type 'image'"),
        ({"messages": [{"role": "user", "content": [{"video": 3}]}]}, "is not a file"),
        ({"video": "a", "messages": [{"role": "user", "content": "<video>\n"}]}, "is empty"),
        ({"video": "https://a/b.mp4", "messages": [USER]}, "is not a file on this machine"),
    ],
)
def test_conversation_without_one_question_and_one_video_is_an_error(
    entry: dict[str, Any], message: str
) -> None:
    assert message in problem(json.dumps(entry))


def test_start_and_end_stand_in_for_from_and_to(tmp_path: Path) -> None:
    entries = [{"start": 0.5, "end": "0:02"}, {"from": 1, "end": 3}, {"to": 2, "start": None}]
    entries = [{"video": "a", "question": "?"} | entry for entry in entries]
    found = records(written(tmp_path, "q.json", entries))
    ranges = [(record.start, record.end) for record in found]
    assert ranges == [(0.5, 2.0), (1.0, 3.0), (None, 2.0)]
    message = problem(json.dumps(entries[0] | {"start": "soon"}))
    assert message == "the field 'start' is not a time: 'soon'"


def fields_like(rng: random.Random) -> dict[str, dict[str, Any]]:
    """Drawn fields that look like choices or times and are not used, and others."""
    word = "".join(rng.choices(string.ascii_lowercase, k=5))
    texts = [f"{word} {n}" for n in range(rng.randint(2, 5))]
    choices: dict[str, Any] = {
        "distractor_options": texts,
        f"{word}_choices": texts,
        "a7": word,
        "option_2": word,
        "candidate": word,
        "optionTexts": "|".join(texts),
    }
    seconds = round(rng.uniform(0, 90), 2)
    times: dict[str, Any] = {
        "ts": f"{seconds}-{seconds + 1}",
        "accurate_start": seconds,
        "accurate_end": f"1:{rng.randint(10, 59)}",
        "startTime": str(seconds),
        f"{word}_timestamps": [[0, seconds], [1, 2.5]],
        "END": seconds,
    }
    others: dict[str, Any] = {
        **{"from": seconds, "to": seconds + 1, "candidates": texts, "id": 4},
        **{"answer": texts[0], "category": word, "A": word, "time": word, "how_to": word},
        **{"end_time": None, "option 0": "", "duration": "short", "correct_choice": 1},
    }

    def some(fields: dict[str, Any]) -> dict[str, Any]:
        names = rng.sample(sorted(fields), rng.randint(0, len(fields)))
        return {name: fields[name] for name in fields if name in names}

    return {"choices": some(choices), "times": some(times), "neither": some(others)}


@pytest.mark.parametrize("seed", range(40))
def test_fields_like_choices_or_times_that_are_not_used_are_named_once(
    tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    plain = {"video": "a", "question": "?"}
    entries = [plain for _ in range(rng.randint(0, 100))]
    named: dict[str, list[str]] = {"choices": [], "times": []}
    for _ in range(2):  # the second has the same fields and more
        like = fields_like(rng)
        entries += [plain | like["neither"] | like["choices"] | like["times"]] * 2
        for kind, names in named.items():
            names += [name for name in like[kind] if name not in names]
    with read_questions(written(tmp_path, "q.json", entries)) as questions:
        said = questions.notices
    verb = {"choices": "can be", "times": "are"}
    wanted = [
        f"no {kind} {verb[kind]} read from "
        + ", ".join(map(repr, names[:10]))
        + ", ..." * (len(names) > 10)
        + ": "
        for kind, names in named.items()
        if names
    ]
    assert [sentence[: len(start)] for sentence, start in zip(said, wanted, strict=True)] == wanted


def test_a_field_that_is_named_is_used_once_it_has_its_name(tmp_path: Path) -> None:
    entry = {"video": "a", "question": "?", "ts": 3, "choice_texts": ["x", "y"]}
    renamed = {"video": "a", "question": "?", "from": 3, "choices": ["x", "y"]}
    first, second = records(written(tmp_path, "q.json", [entry, renamed]))
    assert (first.start, first.choices) == (None, ())
    assert (second.start, second.choices) == (3.0, ("x", "y"))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"vidoe": "a", "question": "?"}, "the field 'video' is missing; the nearest is 'vidoe'"),
        ({"clip": "a", "question": "?"}, "the field 'video' is missing; there are 'clip', 'quest"),
        ({"video": "a", "Qestion": "?"}, "'question' is missing; the nearest is 'Qestion'"),
        ({}, "the field 'video' is missing"),
    ],
)
def test_missing_field_error_names_the_most_similar(entry: dict[str, str], message: str) -> None:
    assert message in problem(json.dumps(entry))


@pytest.mark.parametrize("seed", range(30))
def test_misspelled_field_is_named_beside_the_one_that_was_looked_for(seed: int) -> None:
    rng = random.Random(seed)
    wanted = rng.choice(["video", "question"])
    place = rng.randrange(1, len(wanted) - 1)
    near = rng.choice(
        [
            wanted[:place] + wanted[place + 1 :],
            wanted[:place] + rng.choice("xyz") + wanted[place:],
            f"{wanted}_{rng.choice(['file', 'text'])}",
            wanted.capitalize() + "s",
        ]
    )
    entry = {"video": "a.mp4", "question": "What?", "other": 1}
    entry[near] = entry.pop(wanted)
    found = f"the field {wanted!r} is missing; the nearest is {near!r}"
    assert found in problem(json.dumps(dict(rng.sample([*entry.items()], len(entry)))))


def test_table_error_names_its_columns(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match=r"its columns are clip, ask$"):
        read_questions(written(tmp_path, "q.csv", "clip,ask\na,b\n"))


def parquet_file(folder: Path, rows: list[dict[str, Any]]) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "q.parquet")
    return folder / "q.parquet"


def test_parquet_is_read_like_lines(tmp_path: Path) -> None:
    row = {"videoID": "xY", "question": "What?", "options": ["a", "b"], "score": float("nan")}
    path = parquet_file(tmp_path, [row | {"picture": b"\xff", "question": f"{n}?"} for n in (1, 2)])
    found = records(path)
    assert [(r.line, r.video, r.question) for r in found] == [(1, "xY", "1?"), (2, "xY", "2?")]
    assert found[0].fields["options"] == ["a", "b"]
    with read_questions(io.BytesIO(path.read_bytes())) as questions:
        assert [each for _, each in read(questions) if isinstance(each, Record)] == found


def test_damaged_parquet_is_an_error(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    for content in (b"PAR1", b"PAR1" + b"\0" * 400 + b"PAR1"):
        with pytest.raises(ClipError, match="cannot be read as Parquet") as caught:
            read_questions(written(tmp_path, "q.parquet", content))
        assert "\n" not in caught.value.message


def test_parquet_without_pyarrow_says_how_to_install_it(tmp_path: Path, monkeypatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **more: Any) -> Any:
        if name.partition(".")[0] == "pyarrow":
            raise ImportError(name)
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError) as caught:
        read_questions(written(tmp_path, "q.parquet", b"PAR1" + b"\0" * 40))
    assert caught.value.hint == "install it with: pip install 'pandacli[eval]'"


@pytest.mark.parametrize(
    "beside",
    [
        {"video": {"path": "a.mp4"}},
        {"videos": [{"path": "a.mp4"}]},
        {"videos": [], "video": "a.mp4"},
    ],
)
def test_video_beside_a_conversation_is_found(beside) -> None:
    assert read_conversation({**beside, "messages": [USER]}, 1)[0].video == "a.mp4"


def test_parquet_files_have_no_references(tmp_path) -> None:
    (tmp_path / "answers.parquet").write_bytes(b"PAR1")
    assert find_references(tmp_path / "questions.parquet") is None
    (tmp_path / "answers.json").write_text("[]")
    assert find_references(tmp_path / "questions.json") == tmp_path / "answers.json"
