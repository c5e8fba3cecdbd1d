"""Drawn sets with missing, failed, repeated and unknown answers against an independent count."""

import json
import random
from collections import Counter, defaultdict
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from pandacli.evaluation.job import Job, run

TYPES = ("what", "who", "how", "when", "where", "is")
WORDS = ("dog", "cat", "red", "two", "men", "ball", "park")

Scores = dict[str, dict[str, float]]  # by question: exact match, token F1, contained


def drawn(folder: Path, seed: int) -> tuple[Path, Path, list[dict[str, str]]]:
    """Questions and right answers in the official layout, and the questions."""
    rng = random.Random(seed)
    questions = []
    for video in range(40):
        for number in range(rng.choice([1, 1, 3, 20])):
            asked = f"{rng.choice(TYPES)} is it, number {number}?"
            right = " ".join(rng.sample(WORDS, rng.randint(1, 3)))
            questions.append(
                {"video_name": f"v{video}", "question": asked, "question_id": f"v{video}_{number}"}
                | {"answer": right}
            )
    asked, right_answers = folder / "test_q.json", folder / "test_a.json"
    hidden = [{k: v for k, v in each.items() if k != "answer"} for each in questions]
    asked.write_text(json.dumps(hidden))
    shown = [{k: each[k] for k in ("question_id", "answer")} for each in questions]
    right_answers.write_text(json.dumps(rng.sample(shown, len(shown))))
    return asked, right_answers, questions


def answer(questions: list[dict[str, str]], path: Path, skill: float, seed: int) -> Scores:
    """Write predictions of that skill; returns the scores that each question deserves."""
    rng = random.Random(seed)
    lines, scores = [], {}
    for each in questions:
        name, right = each["question_id"], each["answer"].split()
        said = right if rng.random() < skill else rng.choices(WORDS, k=rng.randint(1, 4))
        text = rng.choice(["{}.", "The {}!", "a {}", "{}"]).format(" ".join(said).capitalize())
        line: dict[str, Any] = {"id": name, "question": each["question"], "answer": each["answer"]}
        kind = rng.random()
        scores[name] = dict.fromkeys(("exact match", "token F1", "contained"), 0.0)
        if kind < 0.1:  # missing, or failed
            lines += [line | {"error": "damaged"}] * (kind < 0.05)
            continue
        if kind > 0.9:  # answered twice: the last counts
            lines.append(line | {"pred": "nothing of this"})
        lines.append(line | {"pred": text})
        shared = sum((Counter(said) & Counter(right)).values())
        scores[name]["exact match"] = float(said == right)
        scores[name]["token F1"] = 2 * shared / (len(said) + len(right))
        scores[name]["contained"] = float(f" {' '.join(right)} " in f" {' '.join(said)} ")
    first, *rest = lines
    rest.append({"id": "unknown", "question": "who?", "answer": "dog", "pred": "dog"})
    path.write_text("".join(json.dumps(line) + "\n" for line in (first, *rest)))
    return scores


def cluster_bootstrap(values: dict[str, float]) -> tuple[float, float]:
    """An independent percentile interval: videos are the part of an id before "_"."""
    rng = random.Random(1)
    videos = defaultdict(list)
    for name, value in values.items():
        videos[name.partition("_")[0]].append(value)
    groups = list(videos.values())
    means = sorted(
        fmean(value for group in rng.choices(groups, k=len(groups)) for value in group)
        for _ in range(2000)
    )
    return means[50], means[1949]


@pytest.mark.parametrize("seed", range(3))
def test_means_and_intervals_agree_with_an_independent_count(tmp_path: Path, seed: int) -> None:
    asked, _, questions = drawn(tmp_path, seed)
    expected = answer(questions, tmp_path / "merge.jsonl", 0.6, seed)
    (scored,) = run(Job((tmp_path / "merge.jsonl",), (asked,)))["files"]
    assert [each["id"] for each in scored["ignored"]][-1] == "unknown"
    for measure, found in scored["measures"].items():
        values = {name: row[measure] for name, row in expected.items()}
        assert found["count"] == len(questions)
        assert found["mean"] == pytest.approx(fmean(values.values()), abs=1e-6)
        assert found["interval"] == pytest.approx(cluster_bootstrap(values), abs=0.02)
    by_type = defaultdict(list)
    for each in questions:
        word = each["question"].split()[0]
        by_type[word if word != "is" else "other"].append(expected[each["question_id"]])
    assert scored["by_type"].keys() == by_type.keys()
    for name, rows in by_type.items():
        for measure, found in scored["by_type"][name].items():
            assert found["mean"] == pytest.approx(fmean(r[measure] for r in rows), abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_paired_differences_agree_with_an_independent_count(tmp_path: Path, seed: int) -> None:
    asked, _, questions = drawn(tmp_path, seed)
    first = answer(questions, tmp_path / "first.jsonl", 0.7, seed)
    second = answer(questions, tmp_path / "second.jsonl", 0.5, seed + 10)
    job = Job((tmp_path / "first.jsonl",), (asked,), against=tmp_path / "second.jsonl")
    comparison = run(job)["comparison"]
    for measure, found in comparison["differences"].items():
        gaps = {name: first[name][measure] - second[name][measure] for name in first}
        assert found["mean"] == pytest.approx(fmean(gaps.values()), abs=1e-6)
        assert found["interval"] == pytest.approx(cluster_bootstrap(gaps), abs=0.02)
    gaps = {name: first[name]["exact match"] - second[name]["exact match"] for name in first}
    assert {q["id"]: q["better"] for q in comparison["questions"]} == {
        name: "first" if gap > 0 else "second" for name, gap in gaps.items() if gap
    }
