"""Multiple choice written as the scoring of data sets reads it, and read by `panda eval`."""

import ast
import csv
import io
import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pandacli.batch.formats import FORMATS, write_results
from pandacli.batch.readers.questions import read_questions
from pandacli.batch.records import BadLine
from pandacli.errors import ClipError, UsageError
from pandacli.evaluation.job import Job, run
from tests.batch.conftest import ask
from tests.batch.question_files import written

TEXTS = ("1", "2", "3", "0", "dog", "a dog", "The dog.", "two; dogs", "été", "yes, it is", "no|yes")
LETTERS = "ABCDE"


@dataclass
class Drawn:
    """A question with choices; `given` is the index of the answer, None where it failed."""

    video: str
    number: int  # within the video
    choices: list[str]
    right: int
    given: int | None

    @property
    def question(self) -> str:
        return f"what is in {self.video} at {self.number}?"

    @property
    def is_right(self) -> bool:
        return self.given == self.right


def drawn(rng: random.Random, choices: int) -> list[Drawn]:
    questions = []
    for video in range(rng.randint(2, 6)):
        for number in range(rng.randint(1, 4)):
            right = rng.randrange(choices)
            given = rng.choice([right, rng.randrange(choices), None])
            texts = rng.sample(TEXTS, choices)
            questions.append(Drawn(f"4000{video}", number, texts, right, given))
    return questions


def nextqa(q: Drawn) -> dict[str, Any]:
    fields = {"video": q.video, "frame_count": 9, "question": q.question, "answer": q.right}
    return fields | {"qid": q.number, "type": "CW"} | {f"a{n}": t for n, t in enumerate(q.choices)}


def egoschema(q: Drawn) -> dict[str, Any]:
    fields = {"q_uid": f"{q.video}-{q.number}", "google_drive_id": "x", "question": q.question}
    return fields | {f"option {n}": text for n, text in enumerate(q.choices)}


def egoschema_by_index(q: Drawn) -> dict[str, Any]:
    """A row of Hugging Face, which has the answers of some as text."""
    option = [f"{letter}. {text}" for letter, text in zip(LETTERS, q.choices, strict=True)]
    return {"question": q.question, "video_idx": f"{q.video}-{q.number}", "option": option}


def tvqa(q: Drawn) -> dict[str, Any]:
    fields = {"vid_name": q.video, "qid": int(f"{q.video}{q.number}"), "q": q.question}
    return fields | {"answer_idx": q.right} | {f"a{n}": text for n, text in enumerate(q.choices)}


def mvbench(q: Drawn) -> dict[str, Any]:
    fields = {"video": f"{q.video}.mp4", "question": q.question, "candidates": q.choices}
    return fields | {"answer": q.choices[q.right], "start": 0.5, "end": 2.0}


def video_mme(q: Drawn) -> dict[str, Any]:
    options = [f"{letter}. {text}" for letter, text in zip(LETTERS, q.choices, strict=False)]
    fields = {"video_id": q.video[-3:], "duration": "short", "domain": "Sports", "videoID": q.video}
    fields |= {"question_id": f"{q.video[-3:]}-{q.number}", "task_type": "OCR Problems"}
    return fields | {"question": q.question, "options": options, "answer": LETTERS[q.right]}


def perception_test(q: Drawn) -> dict[str, Any]:
    fields = {"id": q.number, "question": q.question, "options": q.choices, "answer_id": q.right}
    return fields | {"area": "physics", "reasoning": "descriptive", "tag": ["motion"]}


def by_video(questions: list[Drawn], entry: Callable[[Drawn], Any]) -> dict[str, list[Any]]:
    videos: dict[str, list[Any]] = {}
    for question in questions:
        videos.setdefault(question.video, []).append(entry(question))
    return videos


def nested_video_mme(questions: list[Drawn]) -> list[Any]:
    videos = []
    for name, rows in by_video(questions, video_mme).items():
        url = f"https://www.youtube.com/watch?v={name}&t=1"
        asked = [{k: v for k, v in row.items() if k not in ("videoID", "video_id")} for row in rows]
        videos.append({"video_id": rows[0]["video_id"], "url": url, "questions": asked})
    return videos


def table(questions: list[Drawn]) -> str:
    out = io.StringIO(newline="")
    rows = [nextqa(question) for question in questions]
    writer = csv.DictWriter(out, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


FILES: dict[str, tuple[str, int, str, Callable[[list[Drawn]], Any]]] = {
    "NExT-QA": ("val.csv", 5, "nextqa", table),
    "NExT-QA of Hugging Face": ("q.json", 5, "nextqa", lambda qs: [nextqa(q) for q in qs]),
    "EgoSchema": ("questions.json", 5, "indices", lambda qs: [egoschema(q) for q in qs]),
    "EgoSchema of Hugging Face": (
        *("q.json", 5, "indices"),
        lambda qs: [egoschema_by_index(q) for q in qs],
    ),
    "TVQA": ("v.jsonl", 5, "indices", lambda qs: "\n".join(json.dumps(tvqa(q)) for q in qs)),
    "MVBench": ("fine_grained_pose.json", 3, "letters", lambda qs: [mvbench(q) for q in qs]),
    "Video-MME": ("q.json", 4, "video-mme", lambda qs: [video_mme(q) for q in qs]),
    "Video-MME by video": ("q.json", 4, "video-mme", nested_video_mme),
    "Perception Test": (
        *("v.json", 3, "perception-test"),
        lambda qs: {v: {"mc_question": e} for v, e in by_video(qs, perception_test).items()},
    ),
}


def answered(path: Path, questions: list[Drawn], rng: random.Random) -> tuple[str, str, list[str]]:
    """The format that "same" stands for, the results in it, and the notices."""
    shapes: list[str] = []
    out = io.StringIO(newline="")
    lines: dict[int, Any] = {}
    with read_questions(path, detected=lambda shape, _: shapes.append(shape)) as read:
        for number, (record, question) in enumerate(zip(read.records, questions, strict=True)):
            assert not isinstance(record, BadLine)
            assert (record.question, record.choices) == (question.question, (*question.choices,))
            assert record.video.removesuffix(".mp4").split("-")[0] == question.video
            no_choice = rng.choice([{"error": {"kind": "clip"}}, {"answer": "I cannot say"}])
            given = question.given
            lines[number] = no_choice if given is None else {"answer": record.choices[given]}
        notices = write_results(read, shapes[0], [*lines], lines.get, out)
        assert read.notices == []
    return shapes[0], out.getvalue(), notices


def accuracy(path: Path, *more: Path, references: Path | None = None) -> tuple[float, int]:
    [scored] = run(Job((path,), more, references=references))["files"]
    measure = scored["measures"]["choice accuracy"]
    assert measure["count"] == scored["questions"]
    return measure["mean"], scored["answered"]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("data_set", FILES)
def test_drawn_answers_have_the_same_score_in_the_layout_of_their_data_set(
    tmp_path: Path, data_set: str, seed: int
) -> None:
    rng = random.Random(f"{data_set} {seed}")
    name, choices, wanted, content = FILES[data_set]
    questions = drawn(rng, choices)
    path = written(tmp_path, name, content(questions))
    shape, text, _ = answered(path, questions, rng)
    assert shape == wanted
    assert FORMATS[shape].is_output(io.BytesIO(text.encode()))
    scores = OFFICIAL[shape](text, questions)
    assert scores == [question.is_right for question in questions]

    output = written(tmp_path, f"answers{FORMATS[shape].extension}", text)
    right = written(tmp_path, "r.json", {f"{q.video}-{q.number}": q.right for q in questions})
    references = right if data_set.startswith("EgoSchema") else None
    expected = pytest.approx(sum(scores) / len(scores), abs=1e-6)
    given = sum(question.given is not None for question in questions)
    assert accuracy(output, path, references=references) == (expected, given)
    if shape not in ("indices", "perception-test"):  # which do not have right answers
        assert accuracy(output) == (expected, given)


def of_nextqa(text: str, questions: list[Drawn]) -> list[bool]:
    found = [json.loads(text)[f"{q.video}_{q.number}"] for q in questions]
    assert all(type(each["answer"]) is int for each in found)
    return [each["answer"] == each["prediction"] for each in found]


def of_indices(text: str, questions: list[Drawn]) -> list[bool]:
    found = json.loads(text)
    assert all(type(index) is int for index in found.values())
    ids = (
        next(key for key in (f"{q.video}-{q.number}", f"{q.video}{q.number}") if key in found)
        for q in questions
    )
    return [found[name] == q.right for name, q in zip(ids, questions, strict=True)]


def of_letters(text: str, questions: list[Drawn]) -> list[bool]:
    found = [ast.literal_eval(line) for line in text.splitlines()]
    assert {each["task_type"] for each in found} == {"Fine-grained Pose"}
    assert [each["question"] for each in found] == [q.question for q in questions]
    return [each["pred"] == each["gt"] for each in found]


def of_video_mme(text: str, questions: list[Drawn]) -> list[bool]:
    """As its script, but for questions without a letter, which it leaves out."""
    videos = json.loads(text)
    assert len(videos) == len({q.video for q in questions})
    found = [question for video in videos for question in video["questions"]]
    letters = [re.search("[ABCD]", each["response"]) for each in found]
    for video in videos:
        assert video["missing"] == (not any(each["response"] for each in video["questions"]))
        assert video["video_id"]
    return [bool(m) and m[0] == each["answer"] for m, each in zip(letters, found, strict=True)]


def of_perception_test(text: str, questions: list[Drawn]) -> list[bool]:
    found = {(v, each["id"]): each for v, held in json.loads(text).items() for each in held}
    for q in questions:
        text = "" if q.given is None else q.choices[q.given]
        assert found[q.video, q.number]["answer"] == text
    return [found[q.video, q.number]["answer_id"] == q.right for q in questions]


OFFICIAL = {
    "nextqa": of_nextqa,
    "indices": of_indices,
    "letters": of_letters,
    "video-mme": of_video_mme,
    "perception-test": of_perception_test,
}


def test_predictions_of_others_without_questions_are_scored(tmp_path: Path) -> None:
    rng = random.Random(4)
    questions = drawn(rng, 5)
    path = written(tmp_path, "val.csv", table(questions))
    theirs = {
        f"{q.video}_{q.number}": {
            "prediction": -1 if q.given is None else q.given,
            "answer": q.right,
        }
        for q in questions
    }
    output = written(tmp_path, "HGA-val.json", theirs)
    given = sum(question.given is not None for question in questions)
    expected = pytest.approx(sum(q.is_right for q in questions) / len(questions), abs=1e-6)
    assert accuracy(output) == accuracy(output, path) == (expected, given)
    theirs.popitem()
    fewer = written(tmp_path, "fewer.json", theirs)
    found, _ = accuracy(fewer, path)
    assert found == pytest.approx(
        sum(q.is_right for q in questions[:-1]) / len(questions), abs=1e-6
    )


@pytest.mark.parametrize(
    "content",
    [{"a": 10**20}, {"a": 1, "b": "two"}, {"a": [1, {"id": 2}]}, {"id": 1, "pred": 2}, {}],
)
def test_another_object_is_no_file_of_answers(tmp_path: Path, content: dict[str, Any]) -> None:
    with pytest.raises((ClipError, UsageError)):
        run(Job((written(tmp_path, "a.json", content),)))


def test_refused_lines_and_open_questions_are_counted_and_wrong(tmp_path: Path) -> None:
    entries = [
        {"video": "v", "qid": 0, "type": "CW", "question": "?", "a0": "x", "a1": "y", "answer": 1},
        {"video": "v", "qid": 1, "type": "CW", "question": "?", "a0": "x", "a1": "x", "answer": 1},
        {"video": "v", "qid": 2, "question": "open?"},
        {"qid": 3, "a0": "x", "a1": "y"},
    ]
    out = io.StringIO()
    with read_questions(written(tmp_path, "q.json", entries)) as questions:
        lines = [{"answer": "y"}, {"error": {}}, {"answer": "y"}, {"error": {}}]
        notices = write_results(questions, "nextqa", range(4), lines.__getitem__, out)
    found = json.loads(out.getvalue())
    assert {name: each["prediction"] for name, each in found.items()} == {"v_0": 1, "v_1": -1}
    assert {name: each["answer"] for name, each in found.items()} == {"v_0": 1, "v_1": 1}
    assert notices == [
        "2 lines without choices are left out",
        "1 questions are written without a choice, as wrong",
    ]
    scored = run(Job((written(tmp_path, "out.json", out.getvalue()),)))["files"][0]
    assert (scored["questions"], scored["measures"]["choice accuracy"]["mean"]) == (2, 0.5)


@pytest.mark.parametrize("shape", [name for name, row in FORMATS.items() if row.of_choices])
def test_questions_without_choices_have_no_layout_of_choices(batch, shape: str) -> None:
    with pytest.raises(UsageError, match="has no choices"):
        batch([ask(1)], output_format=shape)


@pytest.mark.parametrize("shape", ["indices", "letters"])
def test_earlier_output_is_replaced_and_nothing_is_asked_again(batch, tmp_path, shape: str) -> None:
    output = tmp_path / "out"
    records = [ask(n, choices=["a dog", "a cat"], question=f"Which {n}?") for n in range(3)]
    batch(records[:1], output_format=shape, output=str(output))
    first = output.read_text()
    assert batch(records, output_format=shape, output=str(output)).counters.earlier == 1
    whole = output.read_text()
    assert len(whole) > len(first)
    ran = batch(records, output_format=shape, output=str(output))
    assert (ran.loads, output.read_text()) == (0, whole)
    (tmp_path / "other").write_text('{\n"a": "b"\n}\n')
    with pytest.raises((UsageError, ClipError), match="not an earlier output"):
        batch(records, output_format=shape, output=str(tmp_path / "other"))


def test_json_suffix_stands_for_the_layout_of_the_data_set(batch, tmp_path) -> None:
    record = {"video": "wide.avi", "qid": 3, "type": "TN", "question": "?", "a0": "x", "a1": "y"}
    batch([record], output=str(tmp_path / "nextqa.json"))
    [(name, entry)] = json.loads((tmp_path / "nextqa.json").read_text()).items()
    assert (name, entry["prediction"]) == ("wide_3", entry["prediction"])
    assert entry["prediction"] in (0, 1)
