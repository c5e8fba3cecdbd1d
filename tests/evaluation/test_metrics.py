import math
import random
import statistics

import pytest

from pandacli.evaluation.metrics import (
    brier,
    calibration,
    calibration_error,
    contains,
    exact_match,
    means,
    normalize,
    token_f1,
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The Twenty-one dogs!", ["21", "dogs"]),
        ("A dog's tail", ["dogs", "tail"]),
        ("3.5 m, 1,000 km", ["3.5", "m", "1000", "km"]),
        ("a", ["a"]),
        ("ninety nine", ["99"]),
        ("twenty twenty", ["20", "20"]),
        ("twenty zero", ["20", "0"]),
        ("", []),
        ("ﬁve", ["5"]),
        ("«Ein Haus», 猫。", ["ein", "haus", "猫"]),
        ("red/blue", ["red", "blue"]),
    ],
)
def test_normalizes_case_punctuation_articles_and_numbers(text: str, words: list[str]) -> None:
    assert list(normalize(text)) == words


def test_every_number_word_up_to_ninety_nine_becomes_its_digits() -> None:
    units = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    for number in range(20, 100):
        tens = {2: "twenty", 3: "thirty", 4: "forty", 5: "fifty", 6: "sixty", 7: "seventy"}
        tens |= {8: "eighty", 9: "ninety"}
        word = tens[number // 10] + (f"-{units[number % 10]}" if number % 10 else "")
        assert normalize(f"It is {word}.") == ("it", "is", str(number))


def test_exact_match_takes_any_of_the_references() -> None:
    assert exact_match("Two.", ["three", "2"]) == 1
    assert exact_match("Two dogs", ["2"]) == 0
    assert exact_match("Two", []) == 0


def test_f1_is_the_harmonic_mean_of_precision_and_recall() -> None:
    assert token_f1("a big red dog", ["red dog"]) == pytest.approx(2 * (2 / 3) * 1 / (2 / 3 + 1))
    assert token_f1("cat", ["dog", "cat"]) == 1
    assert token_f1("cat", ["dog"]) == 0
    assert token_f1("", [""]) == 1


def test_contains_needs_the_words_side_by_side() -> None:
    assert contains("There are two red dogs.", ["red dogs"]) == 1
    assert contains("There are red, two dogs.", ["red dogs"]) == 0
    assert contains("a reddish dog", ["red"]) == 0
    assert contains("a dog", ["..."]) == 0


def test_brier_score_is_zero_for_certainty_and_two_for_the_opposite() -> None:
    assert brier([1, 0, 0], 0) == 0
    assert brier([0, 1, 0], 0) == 2
    assert brier([0.5, 0.3, 0.2], 0) == pytest.approx(0.25 + 0.09 + 0.04)


def test_calibration_counts_every_question_once() -> None:
    rng = random.Random(3)
    confidences = [rng.random() for _ in range(500)] + [0.0, 1.0]
    right = [rng.random() < confidence for confidence in confidences]
    bins = calibration(confidences, right)
    assert sum(each.count for each in bins) == len(right)
    assert sum(each.count * each.accuracy for each in bins) == pytest.approx(sum(right))
    assert sum(each.count * each.confidence for each in bins) == pytest.approx(sum(confidences))
    assert calibration_error(bins) < 0.1
    assert calibration_error(calibration([0.9] * 10, [False] * 10)) == pytest.approx(0.9)


def _independent_interval(values: list[float], videos: list[str]) -> tuple[float, float]:
    rng = random.Random(11)
    groups: dict[str, list[float]] = {}
    for value, video in zip(values, videos, strict=True):
        groups.setdefault(video, []).append(value)
    names = list(groups)
    means = []
    for _ in range(3000):
        drawn = [value for name in rng.choices(names, k=len(names)) for value in groups[name]]
        means.append(statistics.fmean(drawn))
    means.sort()
    return means[75], means[2924]


def interval(values: list[float], videos: list[str]) -> tuple[float, float] | None:
    return means({"": values}, videos)[""].interval


def test_interval_agrees_with_an_independent_cluster_bootstrap() -> None:
    rng = random.Random(5)
    values, videos = [], []
    for video in range(60):
        share = rng.random()  # questions on one video are alike
        for _ in range(rng.randint(1, 12)):
            values.append(float(rng.random() < share))
            videos.append(f"video{video}")
    found = means({"": values}, videos)[""]
    assert found.value == pytest.approx(statistics.fmean(values))
    assert found.interval is not None
    for ours, theirs in zip(found.interval, _independent_interval(values, videos), strict=True):
        assert math.isclose(ours, theirs, abs_tol=0.012)


def test_interval_is_wider_when_questions_share_videos() -> None:
    rng = random.Random(5)
    by_video = [float(rng.random() < 0.5) for _ in range(40)]
    values = [value for value in by_video for _ in range(10)]
    shared = interval(values, [f"{n // 10}" for n in range(400)])
    apart = interval(values, [f"{n}" for n in range(400)])
    assert shared is not None
    assert apart is not None
    assert shared[1] - shared[0] > 2 * (apart[1] - apart[0])


def test_there_is_no_interval_for_a_single_video() -> None:
    assert interval([1.0, 0.0], ["a", "a"]) is None
