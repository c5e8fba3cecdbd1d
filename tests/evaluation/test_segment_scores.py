"""Time segments against an independent count of their IoU, in every layout."""

import json
import random
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from pandacli.batch.readers.moments import Retrieved
from pandacli.errors import UsageError
from pandacli.evaluation.answers import MOMENTS, read_items
from pandacli.evaluation.job import Job, run
from pandacli.evaluation.segments import average_precision, best_overlap, overlap
from pandacli.video.windows import Span

TENTHS = 10  # drawn segments begin and end at tenths of a second


def ticks(segment: tuple[float, ...]) -> set[int]:
    """The tenths of a second in a segment."""
    return set(range(round(segment[0] * TENTHS), round(segment[1] * TENTHS)))


def counted(first: tuple[float, ...], second: tuple[float, ...]) -> float:
    """The IoU of two segments, by counting."""
    one, two = ticks(first), ticks(second)
    return len(one & two) / len(one | two) if one | two else 0.0


def drawn(rng: random.Random, empty: float = 0.1) -> tuple[float, float]:
    start = rng.randrange(0, 300)
    length = 0 if rng.random() < empty else rng.randrange(1, 200)
    return start / TENTHS, (start + length) / TENTHS


def test_overlap_equals_the_count_of_shared_tenths() -> None:
    rng = random.Random(1)
    for _ in range(2000):
        first, second = drawn(rng), drawn(rng)
        assert overlap(first, second) == pytest.approx(counted(first, second))
        assert overlap(first, second) == overlap(second, first)


def test_the_first_segment_counts_with_the_right_one_it_overlaps_most() -> None:
    rng = random.Random(2)
    for _ in range(300):
        found = [Retrieved(*drawn(rng), rng.random()) for _ in range(rng.randrange(0, 4))]
        right = [Span(*drawn(rng, 0)) for _ in range(rng.randrange(1, 4))]
        wanted = max(counted(found[0][:2], each) for each in right) if found else 0.0
        assert best_overlap(found, right) == pytest.approx(wanted)


def test_average_precision_equals_the_area_under_the_interpolated_curve() -> None:
    rng = random.Random(3)
    for _ in range(300):
        found = [Retrieved(*drawn(rng), rng.random()) for _ in range(rng.randrange(0, 6))]
        right = [Span(*drawn(rng, 0)) for _ in range(rng.randrange(1, 4))]
        for number in range(rng.randrange(0, 3)):  # or few would be found
            found.insert(number, Retrieved(*right[number % len(right)], rng.random()))
        areas = [area(found, right, percent / 100) for percent in range(50, 100, 5)]
        assert average_precision(found, right) == pytest.approx(sum(areas) / len(areas))


def area(found: list[Retrieved], right: list[Span], threshold: float) -> float:
    """The mean over all recalls 1/n, 2/n, ... of the best precision at that recall or more."""
    ranked, taken, points = sorted(found, key=lambda each: each.score)[::-1], set(), []
    for rank, segment in enumerate(ranked, 1):
        shared = {n: counted(segment[:2], r) for n, r in enumerate(right) if n not in taken}
        best = max(shared, key=shared.__getitem__, default=None)
        if best is not None and shared[best] >= threshold:
            taken.add(best)
        points.append((len(taken) / len(right), len(taken) / rank))
    recalls = [n / len(right) for n in range(1, len(right) + 1)]
    best_at = [max((p for r, p in points if r >= recall), default=0.0) for recall in recalls]
    return sum(best_at) / len(right)


def test_only_ten_segments_count_for_the_average_precision() -> None:
    wrong = [Retrieved(50.0, 60.0, 1.0 - n / 100) for n in range(10)]
    right = Retrieved(0.0, 5.0, 0.5)
    assert average_precision([*wrong, right], [Span(0.0, 5.0)]) == 0
    assert average_precision([*wrong[:9], right], [Span(0.0, 5.0)]) == pytest.approx(0.1)


@pytest.mark.parametrize("order", [*permutations(range(3))])
def test_the_order_of_right_segments_does_not_matter(order: tuple[int, ...]) -> None:
    right = [Span(0, 10), Span(20, 30), Span(5, 12)]
    found = [Retrieved(19, 30, 0.9), Retrieved(4, 12, 0.8), Retrieved(0, 9, 0.1)]
    turned = [right[n] for n in order]
    assert average_precision(found, turned) == average_precision(found, right)
    assert best_overlap(found, turned) == best_overlap(found, right) == pytest.approx(10 / 11)


# (video, right segments, answered segments): the IoUs of the first are 0.5, 0.8, 0, 0, and 0
QUERIES: list[tuple[str, list[list[float]], list[list[float]] | None]] = [
    ("a_0.0_150.0", [[0, 10]], [[0, 5, 0.9], [0, 10, 0.1]]),
    ("a_0.0_150.0", [[40, 50], [10, 20]], [[10, 18, 0.7]]),
    ("b_0.0_150.0", [[0, 10]], [[10, 20, 0.7]]),
    ("c_0.0_150.0", [[0, 10]], []),
    ("d_0.0_150.0", [[0, 10]], None),
]
EXPECTED = {"R1@0.3": 0.4, "R1@0.5": 0.4, "R1@0.7": 0.2, "mIoU": 0.26}


def lines(path: Path, entries: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


def asked(number: int, *, right: bool = True) -> dict[str, Any]:
    video, windows, _ = QUERIES[number]
    entry = {"qid": number, "query": f"A dog {number}.", "duration": 150, "vid": video}
    return entry | ({"relevant_windows": windows} if right else {})


def annotations(path: Path) -> Path:
    return lines(path, [asked(number) for number in range(len(QUERIES))])


def submission(path: Path) -> Path:
    given = enumerate(found for _, _, found in QUERIES)
    entries = [
        asked(n, right=False) | {"pred_relevant_windows": f} for n, f in given if f is not None
    ]
    return lines(path, entries)


def own_results(path: Path) -> Path:
    entries = []
    for number, (video, windows, found) in enumerate(QUERIES):
        entry = {"digest": f"{number:016x}", "video": f"{video}.mp4", "question": f"Dog {number}?"}
        entry |= {"when": True, "relevant_windows": windows, "id": number}
        named = [dict(zip(("start", "end", "probability"), s, strict=True)) for s in found or ()]
        result = {"answer": "", "segments": named, "windows": [], "model": "tiny"}
        if found is None:
            result = {"line": number, "error": {"kind": "clip", "message": "it is damaged"}}
        entries.append(entry | result)
    return lines(path, entries)


def charades(path: Path, segments: list[list[float] | None]) -> Path:
    rows = zip(QUERIES, segments, strict=True)
    path.write_text("".join(f"{q[0]} {s[0]} {s[1]}##a dog.\n" for q, s in rows if s))
    return path


def scores(result: dict[str, Any]) -> dict[str, float]:
    return {name: value["mean"] for name, value in result["measures"].items()}


@pytest.mark.parametrize("option", ["questions", "references"])
def test_a_submission_is_scored_with_the_annotations(tmp_path: Path, option: str) -> None:
    right, answers = annotations(tmp_path / "val.jsonl"), submission(tmp_path / "pred.jsonl")
    named: Any = {"questions": (right,)} if option == "questions" else {"references": right}
    (result,) = run(Job((answers,), **named))["files"]
    # at an IoU of 0.5 the first is right, above it its second one; one of two right up to 0.8
    found = scores(result)
    assert found.pop("mAP") == pytest.approx((0.1 + 0.9 * 0.5 + 0.7 * 0.5) / 5)
    assert found == pytest.approx(EXPECTED)
    assert (result["questions"], result["answered"]) == (5, 4)
    assert [each["id"] for each in result["unanswered"]] == ["4"]
    assert result["clustered_by"] == "video"
    low, high = result["measures"]["mIoU"]["interval"]
    assert low < 0.26 < high


def test_results_with_right_segments_are_scored_alone(tmp_path: Path) -> None:
    (result,) = run(Job((own_results(tmp_path / "a.answers.jsonl"),)))["files"]
    found = scores(result)
    del found["mAP"]
    assert found == pytest.approx(EXPECTED)
    assert [each["reason"] for each in result["unanswered"]] == ["it is damaged"]


def test_charades_sta_is_scored_line_by_line_without_map(tmp_path: Path) -> None:
    first_right = [windows[-1] for _, windows, _ in QUERIES]
    first_found = [found[0][:2] if found else [0.0, 0.0] for _, _, found in QUERIES]
    right = charades(tmp_path / "charades_sta_test.txt", first_right)
    answers = charades(tmp_path / "answers.txt", first_found)
    (result,) = run(Job((answers,), (right,)))["files"]
    assert scores(result) == pytest.approx(EXPECTED)
    assert (result["answered"], result["ignored"]) == (5, [])


def test_charades_sta_is_not_scored_against_itself(tmp_path: Path) -> None:
    path = charades(tmp_path / "a.txt", [[0, 1]] * len(QUERIES))
    with pytest.raises(UsageError, match="has a right answer beside it"):
        run(Job((path,)))


def test_two_runs_are_compared_by_their_segments(tmp_path: Path) -> None:
    right, first = annotations(tmp_path / "val.jsonl"), submission(tmp_path / "a.jsonl")
    second = [asked(n, right=False) | {"pred_relevant_windows": []} for n in range(len(QUERIES))]
    other = lines(tmp_path / "b.jsonl", second)
    compared = run(Job((first,), references=right, against=other))["comparison"]
    assert compared["differences"]["R1@0.5"]["mean"] == pytest.approx(0.4)
    assert [(q["id"], q["first"], q["second"]) for q in compared["questions"]] == [
        ("0", "0:00 - 0:05", ""),
        ("1", "0:10 - 0:18", ""),
    ]


def test_a_split_without_right_segments_takes_those_of_another_file(tmp_path: Path) -> None:
    entries = [asked(number, right=False) for number in range(len(QUERIES))]
    questions = lines(tmp_path / "test.jsonl", entries[:2])
    right, answers = annotations(tmp_path / "val.jsonl"), submission(tmp_path / "pred.jsonl")
    (result,) = run(Job((answers,), (questions,), references=right))["files"]
    assert scores(result)["mIoU"] == pytest.approx(0.65)
    assert (result["questions"], len(result["ignored"])) == (2, 2)


@pytest.mark.parametrize(
    "bad",
    [[[3, 1, 0.5]], [[0, "1", 0.5]], [[0]], [5], [[0, True, 1]], [[-1, 2, 0.5]], "0 - 5", {"a": 1}],
)
def test_segments_that_cannot_be_read_are_no_answer(tmp_path: Path, bad: Any) -> None:
    path = lines(tmp_path / "p.jsonl", [asked(0) | {"pred_relevant_windows": bad}])
    (item,) = read_items(path)
    assert (item.layout, item.prediction, item.segments) == (MOMENTS, None, ())
    assert item.error
    assert item.moments == (Span(0, 10),)


def test_segments_are_no_text_to_be_matched(tmp_path: Path) -> None:
    (result,) = run(Job((own_results(tmp_path / "a.jsonl"),)))["files"]
    assert not {"exact match", "token F1", "contained"} & result["measures"].keys()


def test_segments_in_the_answers_of_a_table_are_scored(tmp_path: Path) -> None:
    header = "video,question,when,relevant_windows,answer,model,finish_reason,tokens,seconds,error"
    rows = [
        'a.mp4,q?,true,"[[0, 10]]","0:02.5 - 0:10.0  0.91\n0:20 - 0:21  0.60",tiny,stop,0,1,',
        'b.mp4,q?,true,"[[0, 10]]",,tiny,stop,0,1,',  # nothing found
        'c.mp4,q?,true,"[[0, 10]]",It is there.,tiny,stop,0,1,',  # no answer of ours
        'd.mp4,q?,true,"[[0, 10]]",,,,,,clip: it is damaged',
    ]
    path = tmp_path / "a.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    (result,) = run(Job((path,)))["files"]
    assert result["measures"]["mIoU"]["mean"] == pytest.approx(0.75 / 4)
    assert [each["video"] for each in result["unanswered"]] == ["c", "d"]
