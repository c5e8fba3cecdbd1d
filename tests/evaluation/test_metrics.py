import math
import random
import statistics

import numpy as np
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
        ("a hundred", ["100"]),
        ("one and two hundred and dogs", ["1", "and", "200", "and", "dogs"]),
        ("hundreds", ["hundreds"]),
        ("一只猫", ["一", "只", "猫"]),
        ("...", ["..."]),
        ("😀", ["😀"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("«Ein Haus», 猫。", ["ein", "haus", "猫"]),
        ("red/blue", ["red", "blue"]),
    ],
)
def test_normalizes_case_punctuation_articles_and_numbers(text: str, words: list[str]) -> None:
    assert list(normalize(text)) == words


UNITS = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
UNITS += " fifteen sixteen seventeen eighteen nineteen"
TENS = "twenty thirty forty fifty sixty seventy eighty ninety"


def in_words(number: int, joint: str) -> str:
    """A number below a million in English, with `joint` after hundreds and thousands."""
    for size, name in ((1000, "thousand"), (100, "hundred")):
        if number >= size:
            rest = joint + in_words(number % size, joint) if number % size else ""
            return f"{in_words(number // size, joint)} {name}{rest}"
    if number < 20:
        return UNITS.split()[number]
    return TENS.split()[number // 10 - 2] + (f"-{UNITS.split()[number % 10]}" * (number % 10 > 0))


@pytest.mark.parametrize("joint", [" ", " and "])
def test_numbers_in_words_become_their_digits(joint: str) -> None:
    rng = random.Random(joint)
    for number in [*range(130), *(rng.randrange(10 ** rng.randint(3, 6)) for _ in range(300))]:
        assert normalize(f"It is {in_words(number, joint)}.") == ("it", "is", str(number))


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
    assert contains("the category", ["cat"]) == 0
    assert contains("这是一只猫。", ["猫"]) == 1


def test_what_has_only_symbols_equals_nothing_else() -> None:
    assert exact_match("😀", ["😢"]) == token_f1("😀", ["😢"]) == 0
    assert exact_match("", ["?"]) == exact_match("", ["a"]) == 0
    assert exact_match("😀", ["😀"]) == 1


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


def test_calibration_error_agrees_with_numpy() -> None:
    rng = np.random.default_rng(8)
    confidences, right = rng.random(700), rng.random(700) < 0.6
    places = np.digitize(confidences, np.linspace(0, 1, 11)[1:-1])
    gaps = [
        abs(confidences[places == place].mean() - right[places == place].mean())
        * (places == place).mean()
        for place in np.unique(places)
    ]
    bins = calibration(confidences.tolist(), right.tolist())
    assert calibration_error(bins) == pytest.approx(sum(gaps))


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


@pytest.mark.parametrize("sizes", [[1] * 50, [200, *[1] * 50], [3, 500, 40, 1]])
def test_interval_agrees_for_clusters_of_any_size(sizes: list[int]) -> None:
    rng = random.Random(len(sizes))
    videos = [f"v{number}" for number, size in enumerate(sizes) for _ in range(size)]
    values = [rng.random() * (1 + int(video[1:]) % 3) / 3 for video in videos]
    found, expected = interval(values, videos), _independent_interval(values, videos)
    assert found == pytest.approx(expected, abs=0.03)


def test_there_is_no_interval_for_a_single_video() -> None:
    assert interval([1.0, 0.0], ["a", "a"]) is None


def test_interval_of_equal_scores_is_a_point() -> None:
    assert interval([1.0] * 30, [f"{n // 3}" for n in range(30)]) == (1, 1)


def test_a_column_is_resampled_over_its_own_videos() -> None:
    rng = random.Random(9)
    videos = [f"v{n // 4}" for n in range(120)]
    scores = [rng.random() for _ in videos]
    some: list[float | None] = [s if n % 3 else None for n, s in enumerate(scores)]
    found = means({"all": scores, "some": some, "none": [None] * 120}, videos)
    kept = [n for n in range(120) if n % 3]
    alone = means({"": [scores[n] for n in kept]}, [videos[n] for n in kept])
    assert list(found) == ["all", "some"]
    assert found["some"] == alone[""]
    assert found["all"] == means({"": scores}, videos)[""]
