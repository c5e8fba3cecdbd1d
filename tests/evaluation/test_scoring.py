import json
import random
import re
import warnings
from pathlib import Path
from typing import Any

import pytest

from pandacli.errors import ClipError, UsageError
from pandacli.evaluation.job import Job, guess_benchmark, run
from pandacli.evaluation.judge import JudgeSettings
from pandacli.evaluation.replies import ASPECTS
from pandacli.evaluation.report import NAMES, as_markdown, check_report, notes, write_report
from pandacli.evaluation.scoring import (
    BRIER,
    CHOICE_ACCURACY,
    JUDGE_SCORE,
    JUDGED,
    PUBLISHED,
)
from tests.fake_judge import fake_judge

RIGHT = 29


def msvd(path: Path, right: int = RIGHT, count: int = 50, missing: int = 0) -> Path:
    """Predictions of a made data set: the first are right, the last are not there."""
    path.parent.mkdir(exist_ok=True)
    entries = [
        {
            "id": str(number),
            "video_name": f"vid{number // 5}",
            "question": f"{('what', 'who')[number % 2]} is number {number}?",
            "answer": "dog",
            "pred": "A dog." if number < right else "the big cat",
        }
        for number in range(count - missing)
    ]
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


def means(result: dict[str, Any]) -> dict[str, float]:
    return {name: value["mean"] for name, value in result["measures"].items()}


def test_scores_a_made_set_to_its_known_numbers(tmp_path: Path) -> None:
    (result,) = run(Job((msvd(tmp_path / "msvd" / "merge.jsonl"),)))["files"]
    assert means(result) == {
        "exact match": RIGHT / 50,
        "token F1": RIGHT / 50,
        "contained": RIGHT / 50,
    }
    assert result["by_type"]["what"]["exact match"] == {
        "mean": 0.6,
        "count": 25,
        "interval": result["by_type"]["what"]["exact match"]["interval"],
    }
    assert result["benchmark"] == "MSVD-QA"


def test_missing_questions_stay_in_the_denominator_and_are_named(tmp_path: Path) -> None:
    answers = msvd(tmp_path / "merge.jsonl", missing=10)
    questions, right = tmp_path / "test_q.json", tmp_path / "test_a.json"
    everything = [
        json.loads(line) for line in msvd(tmp_path / "all.jsonl").read_text().split("\n") if line
    ]
    asked = [
        {"video_name": e["video_name"], "question": e["question"], "question_id": e["id"]}
        for e in everything
    ]
    questions.write_text(json.dumps(asked))
    right.write_text(
        json.dumps([{"answer": e["answer"], "question_id": e["id"]} for e in everything])
    )
    (result,) = run(Job((answers,), (questions,)))["files"]
    assert (result["questions"], result["answered"]) == (50, 40)
    assert means(result)["exact match"] == RIGHT / 50
    assert [each["id"] for each in result["unanswered"]] == [str(n) for n in range(40, 50)]


def test_answers_without_right_ones_cannot_be_scored(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": "1", "video": "a.mp4", "question": "q?", "pred": "x"}\n')
    with pytest.raises(UsageError, match="has a right answer beside it"):
        run(Job((path,)))


def test_the_difference_of_two_runs_is_paired(tmp_path: Path) -> None:
    first = msvd(tmp_path / "first.jsonl", right=40)
    second = msvd(tmp_path / "second.jsonl", right=30)
    comparison = run(Job((first,), against=second))["comparison"]
    difference = comparison["differences"]["exact match"]
    assert difference["mean"] == pytest.approx(0.2)
    assert difference["interval"][0] <= 0.2 <= difference["interval"][1]
    assert [q["id"] for q in comparison["questions"]] == [str(n) for n in range(30, 40)]
    assert {q["better"] for q in comparison["questions"]} == {"first"}
    same = run(Job((first,), against=first))["comparison"]
    assert same["differences"]["exact match"] == {"mean": 0, "count": 50, "interval": [0, 0]}


def test_the_gain_over_blind_answers_is_reported(tmp_path: Path) -> None:
    blind = run(Job((msvd(tmp_path / "a.jsonl", 40),), blind=msvd(tmp_path / "b.jsonl", 10)))
    assert blind["blind"]["differences"]["exact match"]["mean"] == pytest.approx(0.6)


def test_choices_have_accuracy_brier_score_and_calibration(tmp_path: Path) -> None:
    rng = random.Random(2)
    entries, right, error = [], 0, 0.0
    for number in range(40):
        share = rng.uniform(0.5, 1)
        correct = rng.random() < share
        scored = [
            {"text": "yes", "logprob": -0.1, "probability": share},
            {"text": "no", "logprob": -3.0, "probability": 1 - share},
        ]
        given = {"choices": ["yes", "no"], "answer": "yes" if correct else "no"}
        entry = {"digest": f"{number:016x}", "video": f"v{number}.mp4", "question": f"q{number}?"}
        entries.append(entry | {"given": given, "choices": scored, "answer": "yes"})
        right += correct
        error += 2 * (1 - share if correct else share) ** 2
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    (result,) = run(Job((path,)))["files"]
    assert means(result)[CHOICE_ACCURACY] == pytest.approx(right / 40)
    assert means(result)[BRIER] == pytest.approx(error / 40, abs=1e-6)
    assert sum(each["count"] for each in result["calibration"]) == 40


def test_a_choice_that_nothing_calls_right_is_not_scored(tmp_path: Path) -> None:
    asked, path = tmp_path / "q.json", msvd(tmp_path / "a.jsonl", count=10)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    asked.write_text(json.dumps(lines[:5]))
    for line in lines:
        line |= {"choices": ["the big dog", "two men"], "pred": "no idea"}
        del line["answer"]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (scored,) = run(Job((path,), (asked,)))["files"]
    assert CHOICE_ACCURACY not in scored["measures"]


def test_judged_scores_count_every_question(tmp_path: Path) -> None:
    pytest.importorskip("openai")
    path = msvd(tmp_path / "merge.jsonl", missing=5)
    lines = path.read_text().splitlines()
    lines[3] = json.dumps(json.loads(lines[3]) | {"pred": "dog"})
    path.write_text("\n".join([*lines, '{"id": "99", "question": "?", "answer": "dog"}']) + "\n")
    with fake_judge() as judge:
        result = run(Job((path,), judge=JudgeSettings("judge", judge.url)))
    (scored,) = result["files"]
    # "A dog." is not "dog" for this judge, and an unanswered question scores 0
    assert means(scored)[JUDGED] == pytest.approx(1 / 46, abs=1e-6)
    assert means(scored)[JUDGE_SCORE] == pytest.approx((5 + 44) / 46, abs=1e-6)
    assert result["judge"]["reported"] == ["judge-1 (fp-1)"]
    assert len(result["judge"]["prompts"]) == 12


def test_the_generative_set_has_five_aspects(tmp_path: Path) -> None:
    pytest.importorskip("openai")
    generic = [{"video_name": f"v{n}", "Q": f"q{n}?", "A": "dog", "pred": "dog"} for n in range(4)]
    pairs = [
        {
            "video_name": f"v{n}",
            "Q1": f"a{n}?",
            "Q2": "b?",
            "A": "dog",
            "pred1": "dog",
            "pred2": "x",
        }
        for n in range(3)
    ]
    paths = []
    for name, entries in (("generic", generic), ("temporal", generic), ("consistency", pairs)):
        paths.append(tmp_path / f"{name}.jsonl")
        paths[-1].write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    with fake_judge() as judge:
        result = run(Job(tuple(paths), judge=JudgeSettings("judge", judge.url)))
        consistency = [r for r in judge.requests if "Second question: b?" in str(r)]
    assert [list(scored["measures"]) for scored in result["files"]] == [
        ["correctness", "detail", "context"],
        ["temporal"],
        ["consistency"],
    ]
    found = {name: mean for scored in result["files"] for name, mean in means(scored).items()}
    assert all(found[aspect] == 5 for aspect in ASPECTS)
    assert len(consistency) == 3
    assert {s["benchmark"] for s in result["files"]} == {"Video-ChatGPT"}


def test_report_names_what_was_published_and_what_was_measured(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = msvd(tmp_path / "msvd" / "merge.jsonl", right=10, missing=2)
    with path.open("a") as file:
        file.write('{"id": "x|y", "video_name": "v", "question": "who?", "answer": "a"}\n')
    results = run(Job((path,)))
    folder = tmp_path / "report"
    write_report(folder, results, json.dumps(results))
    text = (folder / "report.md").read_text()
    assert text == as_markdown(results)
    assert "48 of 49 answered" in text
    assert "x\\|y" in text
    assert json.loads((folder / "results.json").read_text()) == results
    assert (folder / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("folder", "answers", "questions", "is_temporal"),
    [
        ("runs", "merge.jsonl", "temporal_qa.json", True),
        ("temporal", "merge.jsonl", "q.json", True),
        ("temporal", "generic.jsonl", "q.json", False),
        ("runs", "temporal.jsonl", "generic_qa.json", False),
        ("runs", "merge.jsonl", "q.json", False),
    ],
)
def test_temporal_questions_are_known_by_the_names_of_files(
    tmp_path: Path, folder: str, answers: str, questions: str, is_temporal: bool
) -> None:
    pytest.importorskip("openai")
    (tmp_path / folder).mkdir()
    asked = {"video_name": "v", "Q": "q?", "A": "dog"}
    (tmp_path / questions).write_text(json.dumps([asked]))
    path = tmp_path / folder / answers
    path.write_text(json.dumps(asked | {"pred": "dog"}) + "\n")
    with fake_judge() as judge:
        settings = JudgeSettings("judge", judge.url)
        (scored,) = run(Job((path,), (tmp_path / questions,), judge=settings))["files"]
    expected = ["temporal"] if is_temporal else ["correctness", "detail", "context"]
    assert list(scored["measures"]) == expected


def test_shards_are_joined_and_runs_stand_side_by_side(tmp_path: Path) -> None:
    whole = msvd(tmp_path / "whole.jsonl")
    lines = whole.read_text().splitlines(keepends=True)
    paths = []
    for number in range(3):
        paths.append(tmp_path / f"shard{number}.jsonl")
        paths[-1].write_text("".join(lines[number::3]))
    (expected,) = run(Job((whole,)))["files"]
    (joined,) = run(Job(tuple(paths), join=True))["files"]
    assert {**joined, "file": ""} == {**expected, "file": ""}
    apart = run(Job(tuple(paths)))["files"]
    assert [scored["questions"] for scored in apart] == [17, 17, 16]


def test_notes_name_the_file_where_there_are_several(tmp_path: Path) -> None:
    paths, bad = [msvd(tmp_path / name) for name in ("a.jsonl", "b.jsonl")], '"error": "damaged"}'
    for path in paths:
        path.write_text(path.read_text().replace('"pred": "A dog."}', bad, 1))
    (alone,) = notes(run(Job((paths[0],))))
    assert alone == "1 without an answer, which count as wrong: 0"
    assert list(notes(run(Job(tuple(paths))))) == [
        f"1 without an answer in {path}, which count as wrong: 0" for path in paths
    ]


def test_intervals_of_a_file_without_videos_say_so(tmp_path: Path) -> None:
    path = msvd(tmp_path / "merge.jsonl")
    bare = [json.loads(line) for line in path.read_text().splitlines()]
    for entry in bare:
        del entry["video_name"]
    path.write_text("".join(json.dumps(entry) + "\n" for entry in bare))
    results = run(Job((path,)))
    assert results["files"][0]["clustered_by"] == "question"
    assert any("no videos are named" in note for note in notes(results))


def test_the_types_of_a_data_set_go_before_first_words(tmp_path: Path) -> None:
    path = msvd(tmp_path / "merge.jsonl")
    typed = [json.loads(line) for line in path.read_text().splitlines()]
    for entry in typed:
        entry["type"] = 3  # one type says nothing
    path.write_text("".join(json.dumps(entry) + "\n" for entry in typed))
    assert set(run(Job((path,)))["files"][0]["by_type"]) == {"what", "who"}
    for number, entry in enumerate(typed):
        entry["type"] = number % 3
    path.write_text("".join(json.dumps(entry) + "\n" for entry in typed))
    by_type = run(Job((path,)))["files"][0]["by_type"]
    assert {name: row["exact match"]["count"] for name, row in by_type.items()} == {
        "0": 17,
        "1": 17,
        "2": 16,
    }


def test_what_only_one_of_two_runs_has_is_named(tmp_path: Path) -> None:
    first = msvd(tmp_path / "first.jsonl", right=40, missing=3)
    second = msvd(tmp_path / "second.jsonl", right=40)
    lines = second.read_text().splitlines(keepends=True)
    second.write_text("".join(lines[2:]))
    comparison = run(Job((first,), against=second))["comparison"]
    assert comparison["differences"]["exact match"]["count"] == 47
    assert [each["id"] for each in comparison["unanswered"]] == ["0", "1"]
    assert [each["id"] for each in comparison["ignored"]] == ["47", "48", "49"]
    assert [q["id"] for q in comparison["questions"]] == ["0", "1"]


def test_answers_to_other_questions_are_refused(tmp_path: Path) -> None:
    first, other = msvd(tmp_path / "first.jsonl"), tmp_path / "other.jsonl"
    other.write_text('{"id": "z", "video": "z.mp4", "question": "z?", "pred": "x"}\n')
    with pytest.raises(UsageError, match=r"no answer in .*other.* belongs to a question in"):
        run(Job((first,), against=other))


def test_a_file_of_questions_has_no_answers(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text('{"id": "z", "video": "z.mp4", "question": "z?", "answer": "x"}\n')
    with pytest.raises(ClipError, match="has no answers in it"):
        run(Job((path,)))


@pytest.mark.parametrize("name", NAMES)
def test_a_report_replaces_only_a_report(tmp_path: Path, name: str) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / name).write_text("mine")
    with pytest.raises(UsageError, match=f"has another {name}"):
        check_report(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_hostile_texts_are_text_in_a_report(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    hostile = "\x1b[31m<b>|`*![x](http://x)\u202e\ud800"
    paths = []
    for name in ("_$a$\\frac{.jsonl", "猫|b.jsonl"):
        paths.append(msvd(tmp_path / name, right=10 + len(paths)))
        entries = [json.loads(line) for line in paths[-1].read_text().splitlines()]
        for entry in entries:
            entry |= {"question": hostile + entry["question"], "type": hostile * (len(paths))}
            entry["pred"] += hostile * (entry["pred"] == "the big cat")
        paths[-1].write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    results = run(Job((paths[0],), against=paths[1]))
    results["files"] += run(Job((paths[1],)))["files"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_report(tmp_path / "report", results, json.dumps(results))
    text = (tmp_path / "report" / "report.md").read_text()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u202e]|(?<!\\)([<`*!]|\]\()", text)
    table = [line for line in text.splitlines() if line.startswith("| second")]
    assert len(table) == 1
    assert len(re.findall(r"(?<!\\)\|", table[0])) == 6


@pytest.mark.parametrize(
    ("path", "benchmark"),
    [
        ("runs/MSVD/merge.jsonl", "MSVD-QA"),
        ("msrvtt.jsonl", "MSRVTT-QA"),
        ("Activitynet_Zero_Shot_QA.json", "ActivityNet-QA"),
        ("temporal_qa.answers.jsonl", "Video-ChatGPT"),
        ("msvd_and_tgif.jsonl", None),
        ("mine.jsonl", None),
    ],
)
def test_guesses_the_benchmark_by_the_name_of_the_file(path: str, benchmark: str | None) -> None:
    assert guess_benchmark(Path(path)) == benchmark


def test_the_published_results_are_those_of_the_paper() -> None:
    four = {name: tuple(row.values()) for name, row in PUBLISHED.items() if JUDGED in row}
    assert four == {
        "MSVD-QA": (0.647, 3.8),
        "MSRVTT-QA": (0.548, 3.4),
        "TGIF-QA": (0.429, 3.2),
        "ActivityNet-QA": (0.400, 3.3),
    }
    assert tuple(PUBLISHED["Video-ChatGPT"].values()) == (2.74, 2.47, 3.01, 2.26, 2.36)


@pytest.mark.parametrize(
    "job",
    [
        Job((Path("a"), Path("b"), Path("c")), (Path("q"), Path("r"))),
        Job((Path("a"), Path("b")), against=Path("c")),
        Job((Path("a"),), benchmark="nothing"),
    ],
)
def test_options_that_do_not_go_together_are_refused(job: Job) -> None:
    with pytest.raises(UsageError):
        run(job)
