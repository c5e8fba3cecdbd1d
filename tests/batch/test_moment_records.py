"""Records with windows, times and segments; Charades-STA and QVHighlights read and written."""

import io
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pandacli.batch.formats import FORMATS, write_results
from pandacli.batch.moment_writers import saliency
from pandacli.batch.readers.questions import read_questions
from pandacli.batch.records import Record, clip_digest, record_hash
from pandacli.errors import UsageError
from pandacli.evaluation.job import Job, run
from tests.batch.question_files import problem, read, records, written

HIGHLIGHT = {
    **{"qid": 8737, "query": "A family is playing basketball.", "duration": 126},
    **{"vid": "bP5KfdFJzC4_660.0_810.0", "relevant_windows": [[0, 16]]},
    **{"relevant_clip_ids": [0, 1], "saliency_scores": [[4, 1, 1], [4, 2, 1]]},
}
RECORD = Record(1, {"video": "a.mp4", "question": "Is it?"}, "a.mp4", "Is it?")


def own(**more: Any) -> str:
    return json.dumps({"video": "a.mp4", "question": "Is it?"} | more)


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"every": 10}, {"every": 10.0}),
        ({"every": "1:30", "from": 2}, {"every": 90.0, "start": 2.0}),
        ({"every": "2.5s"}, {"every": 2.5}),
        ({"at": "3,7.5,0:12"}, {"at": (3.0, 7.5, 12.0)}),
        ({"at": [3, "0:07.5"]}, {"at": (3.0, 7.5)}),
        ({"at": 0}, {"at": (0.0,)}),
        ({"when": True, "to": 9}, {"when": True, "end": 9.0}),
        ({"when": False, "every": None, "at": []}, {}),
        ({"when": "", "every": "", "at": ""}, {}),
    ],
)
def test_times_of_a_record_are_read(tmp_path: Path, fields: Any, wanted: Any) -> None:
    [record] = records(written(tmp_path, "q.jsonl", own(**fields)))
    plain = {"every": None, "at": (), "when": False, "start": None, "end": None}
    assert record == replace(record, **(plain | wanted))


def test_times_in_a_table_are_read(tmp_path: Path) -> None:
    table = 'video,question,every,at,when\na.mp4,q?,10s,,\na.mp4,q?,,"3,7.5",\na.mp4,q?,,,yes\n'
    found = records(written(tmp_path, "q.csv", table))
    looks = [record.looks for record in found]
    assert looks == [{"every": 10.0}, {"at": (3.0, 7.5)}, {"when": True}]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"every": "10m"}, "the field 'every': '10m' is not a length of time"),
        ({"every": 0.01}, "the field 'every': '0.01' is too short: windows last 0.1 s or more"),
        ({"every": -3}, "the field 'every': '-3' is not a length of time"),
        ({"every": [10]}, "the field 'every' is not a length of time: a list"),
        ({"every": True}, "the field 'every' is not a length of time: True"),
        ({"at": "3;4"}, "the field 'at': '3;4' is not a time"),
        ({"at": [3, None]}, "the field 'at' is not a time: None"),
        ({"at": {"a": 1}}, "the field 'at' is not a time: an object"),
        ({"at": [1], "from": 2}, "a clip has a range or single times to look at, not both"),
        ({"at": [1], "every": 2}, "the fields 'every' and 'at' do not go together"),
        ({"when": True, "every": 2}, "the fields 'every' and 'when' do not go together"),
        ({"when": "perhaps"}, "the field 'when' is not true or false: 'perhaps'"),
        ({"when": 2}, "the field 'when' is not true or false: 2"),
        (
            {"when": True, "choices": ["a", "b"]},
            "a record with 'when' is answered with segments, not with choices",
        ),
    ],
)
def test_wrong_times_are_the_error_of_their_line(fields: dict[str, Any], message: str) -> None:
    assert problem(own(**fields)) == message


@pytest.mark.parametrize("change", [{"every": 10.0}, {"at": (1.0,)}, {"when": True}])
def test_how_a_clip_is_looked_at_is_part_of_the_digests(change: dict[str, Any]) -> None:
    changed, digest_of = replace(RECORD, **change), record_hash({})
    assert digest_of(changed) != digest_of(RECORD)
    assert clip_digest(changed) != clip_digest(RECORD)
    assert clip_digest(changed) == clip_digest(replace(changed, question="Or not?"))


def test_charades_sta_is_recognized_and_a_damaged_line_costs_itself_only(tmp_path: Path) -> None:
    lines = [
        "# of no data set",
        "3MSZA 24.3 30.4##person turn a light on.",
        "3MSZA 24.3##person turn a light on.",
        "",
        "my clip 0 6.25##is it dark?",
        "3MSZA 1.0 2.0##",
    ]
    path = written(tmp_path, "charades_sta_test.txt", "\r\n".join(lines) + "\n")
    with read_questions(path) as questions:
        assert (questions.format, questions.has_moments) == ("charades-sta", True)
        found = read(questions)
    wrong = "not a line of Charades-STA, which is like VIDEO 1.5 6.0##sentence"
    assert [each for each in found if isinstance(each[1], str)] == [
        (1, wrong),
        (3, wrong),
        (6, "the field 'question' is empty"),
    ]
    first, second = (each for _, each in found if isinstance(each, Record))
    assert (first.video, first.question, first.when) == ("3MSZA", "person turn a light on.", True)
    assert first.fields["relevant_windows"] == [[24.3, 30.4]]
    assert (first.start, first.end) == (None, None)  # the answer, not a range to look at
    assert (second.video, second.question) == ("my clip", "is it dark?")


@pytest.mark.parametrize("split", ["val", "test"])
def test_qvhighlights_is_recognized_with_and_without_right_windows(
    tmp_path: Path, split: str
) -> None:
    right = ("relevant_windows", "relevant_clip_ids", "saliency_scores")
    entry = {n: value for n, value in HIGHLIGHT.items() if split == "val" or n not in right}
    path = written(tmp_path, f"highlight_{split}_release.jsonl", json.dumps(entry))
    with read_questions(path) as questions:
        assert questions.format == "qvhighlights"
        [(_, record)] = read(questions)
    assert isinstance(record, Record)
    assert (record.video, record.question) == (entry["vid"], entry["query"])
    assert (record.when, record.fields) == (True, entry)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"qid": 1, "query": "", "vid": "a"}, "the field 'query' is empty"),
        ({"qid": 1, "query": 3, "vid": "a"}, "the field 'query' is a number, not a string"),
        ({"qid": 1, "query": "x"}, "the field 'vid' is missing; the nearest is 'qid'"),
        ({"qid": 1, "query": "x", "vid": "a", "at": 1}, "'at' and 'when' do not go together"),
    ],
)
def test_wrong_entry_of_qvhighlights_is_the_error_of_its_line(entry: Any, message: str) -> None:
    assert problem(json.dumps(entry), "qvhighlights").endswith(message)


def drawn_queries(rng: random.Random) -> list[dict[str, Any]]:
    """Entries of QVHighlights, of which some have several right windows."""
    entries = []
    for number in range(rng.randint(8, 20)):
        starts = sorted(rng.sample(range(0, 140, 2), rng.randint(1, 3)))
        windows = [[start, start + rng.randrange(2, 9)] for start in starts]
        entry = {
            "qid": number,
            "query": f"Dog {number}.",
            "duration": 150,
            "vid": f"v{number % 4}_0.0",
        }
        entries.append(entry | {"relevant_windows": windows})
    return entries


def given_results(rng: random.Random, right: list[list[float]]) -> dict[str, Any]:
    """A result with segments, near the right ones or not; or none; or an error."""
    if rng.random() < 0.2:
        return {"error": {"kind": "clip", "message": "it is damaged"}}
    near = [[max(0, s + rng.uniform(-3, 3)), e + rng.uniform(0, 3)] for s, e in right]
    found = rng.sample(near, rng.randint(0, len(near)))
    scores = sorted((rng.random() for _ in found), reverse=True)
    segments = [
        {"start": s, "end": max(s, e), "probability": p}
        for (s, e), p in zip(found, scores, strict=True)
    ]
    windows = [{"start": n, "end": n + 4.0, "probability": rng.random()} for n in range(0, 148, 2)]
    return {"answer": "", "segments": segments, "windows": windows}


def converted(path: Path, name: str, results: list[dict[str, Any]]) -> tuple[str, list[str]]:
    """Results in a format, and notices."""
    with read_questions(path) as questions, io.StringIO() as out:
        numbers = list(range(len(questions.records)))
        notices = write_results(questions, name, numbers, dict(enumerate(results)).get, out)
        return out.getvalue(), notices


@pytest.mark.parametrize("seed", range(4))
def test_a_submission_has_the_scores_of_the_results(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    entries = drawn_queries(rng)
    results = [given_results(rng, entry["relevant_windows"]) for entry in entries]
    asked = written(tmp_path, "val.jsonl", "".join(json.dumps(e) + "\n" for e in entries))
    text, notices = converted(asked, "qvhighlights", results)
    failed = sum("error" in result for result in results)
    assert notices == [f"{failed:,} questions that failed are written without a segment"] * bool(
        failed
    )
    lines = [json.loads(line) for line in text.splitlines()]
    for entry, line, result in zip(entries, lines, results, strict=True):
        assert [*line] == ["qid", "query", "vid", "pred_relevant_windows", "pred_saliency_scores"]
        assert {name: line[name] for name in ("qid", "query", "vid")} == {
            name: entry[name] for name in ("qid", "query", "vid")
        }
        assert len(line["pred_saliency_scores"]) == 75
        assert line["pred_relevant_windows"]  # the official script takes the first of each
        assert len(line["pred_relevant_windows"]) == max(1, len(result.get("segments", ())))
    own_lines = [
        entry | {"digest": f"{n:016x}", "question": entry["query"], "line": n} | result
        for n, (entry, result) in enumerate(zip(entries, results, strict=True))
    ]
    ours = written(tmp_path, "a.jsonl", "".join(json.dumps(line) + "\n" for line in own_lines))
    submission = written(tmp_path, "submission.jsonl", text)
    [first] = run(Job((ours,)))["files"]
    [second] = run(Job((submission,), (asked,)))["files"]
    for measure, value in first["measures"].items():
        assert second["measures"][measure]["mean"] == pytest.approx(value["mean"], abs=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_written_charades_sta_is_read_and_scored_again(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    entries = drawn_queries(rng)
    first_right = [entry["relevant_windows"][:1] for entry in entries]
    lines = [
        f"{e['vid']} {s} {t}##{e['query']}\n"
        for e, [[s, t]] in zip(entries, first_right, strict=True)
    ]
    asked = written(tmp_path, "charades_sta_test.txt", "".join(lines))
    results = [given_results(rng, right) for right in first_right]
    text, _ = converted(asked, "charades-sta", results)
    answers = written(tmp_path, "answers.txt", text)
    assert len(text.splitlines()) == len(lines)
    [scored] = run(Job((answers,), (asked,)))["files"]
    hits = 0
    for [[start, end]], result in zip(first_right, results, strict=True):
        for found in result.get("segments", [])[:1]:
            shared = max(0, min(end, found["end"]) - max(start, found["start"]))
            hits += shared / (end - start + found["end"] - found["start"] - shared) >= 0.5
    assert scored["measures"]["R1@0.5"] == scored["measures"]["R1@0.5"] | {
        "mean": pytest.approx(hits / len(lines), abs=1e-6),
        "count": len(lines),
    }
    assert FORMATS["charades-sta"].is_output(io.BytesIO(text.encode()))
    assert not FORMATS["charades-sta"].is_output(io.BytesIO("".join(lines).encode()))


def test_saliency_is_the_mean_of_the_windows_over_each_clip() -> None:
    rng = random.Random(7)
    windows = []
    for _ in range(30):
        start = rng.randrange(0, 100) / 10
        windows.append(
            {"start": start, "end": start + rng.randrange(1, 40) / 10, "probability": rng.random()}
        )
    for clip, value in enumerate(saliency(windows, 8)):
        ticks = [
            w["probability"]
            for w in windows
            for tick in range(round(w["start"] * 10), round(w["end"] * 10))
            if clip * 20 <= tick < clip * 20 + 20
        ]
        assert value == pytest.approx(sum(ticks) / len(ticks) if ticks else 0.0, abs=1e-4)


@pytest.mark.parametrize("name", ["charades-sta", "qvhighlights"])
def test_layouts_of_segments_are_refused_for_other_questions(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="has no questions that ask for segments"):
        converted(written(tmp_path, "q.jsonl", own()), name, [])


def test_records_that_ask_for_no_segments_are_counted_and_left_out(tmp_path: Path) -> None:
    path = written(tmp_path, "q.jsonl", own(when=True) + "\n" + own() + "\n{}\n")
    text, notices = converted(
        path, "qvhighlights", [{"segments": []}, {"answer": "x"}, {"error": {}}]
    )
    assert json.loads(text)["pred_relevant_windows"] == [[0.0, 0.0, 0.0]]
    assert notices == ["2 lines that ask for no segments are left out"]
