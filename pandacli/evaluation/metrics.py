"""Scores of single answers, and their means with intervals.

Text is compared after `normalize`, as is usual for VQA: Unicode compatibility forms, lower case, no
punctuation, no articles, number words as digits.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
"""Bootstrap resamples of an interval."""

BINS = 10
"""Bins of equal width of a calibration table."""

_ARTICLES = {"a", "an", "the"}
_UNITS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen"),
    *("eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_NUMBERS = {word: number for number, word in enumerate(_UNITS)} | {
    word: 10 * number for number, word in enumerate(_TENS, 2)
}
_POINT = re.compile(r"(?<=\d)\.(?=\d)")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}\b)")


def normalize(text: str) -> list[str]:
    """The words that answers are compared by.

    NFKC and case folding; apostrophes vanish, other punctuation and symbols separate words, except
    the point of a decimal number; "a", "an" and "the" are dropped, unless nothing else is there;
    number words up to ninety-nine become digits.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    folded = re.sub("['\u2019]", "", _THOUSANDS.sub("", folded))
    points = {match.start() for match in _POINT.finditer(folded)}
    words = "".join(
        " " if unicodedata.category(character)[0] in "PSZC" and place not in points else character
        for place, character in enumerate(folded)
    ).split()
    return _digits([word for word in words if word not in _ARTICLES] or words)


def _digits(words: list[str]) -> list[str]:
    written: list[str] = []
    tens = 0
    for word in words:
        number = _NUMBERS.get(word)
        if number is not None and tens and 0 < number < 10:
            written[-1], tens = str(tens + number), 0
            continue
        tens = number if number is not None and number >= 20 else 0
        written.append(word if number is None else str(number))
    return written


def exact_match(prediction: str, references: Iterable[str]) -> float:
    """1 where the prediction equals a reference after `normalize`, else 0."""
    words = normalize(prediction)
    return float(any(words == normalize(reference) for reference in references))


def token_f1(prediction: str, references: Iterable[str]) -> float:
    """The best F1 of the bags of words of the prediction and of a reference, as in SQuAD."""
    return max((_f1(normalize(prediction), normalize(each)) for each in references), default=0.0)


def _f1(predicted: list[str], wanted: list[str]) -> float:
    shared = sum((Counter(predicted) & Counter(wanted)).values())
    return 2 * shared / (len(predicted) + len(wanted)) if shared else float(predicted == wanted)


def contains(prediction: str, references: Iterable[str]) -> float:
    """1 where the words of a reference stand in the prediction, side by side, else 0."""
    words = normalize(prediction)
    for reference in references:
        wanted = normalize(reference)
        starts = range(len(words) - len(wanted) + 1)
        if wanted and any(words[at : at + len(wanted)] == wanted for at in starts):
            return 1.0
    return 0.0


def brier(probabilities: Sequence[float], correct: int) -> float:
    """The squared error of the probabilities, summed over the choices: from 0 to 2 (worst)."""
    return sum((p - (number == correct)) ** 2 for number, p in enumerate(probabilities))


@dataclass(frozen=True)
class Bin:
    """Questions whose likeliest choice has a probability in a range.

    Attributes:
        low, high: The range; `high` belongs to it in the last bin only.
        count: How many questions.
        confidence: Their mean probability of the likeliest choice.
        accuracy: The share that is right.
    """

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


def calibration(confidences: Sequence[float], right: Sequence[bool]) -> list[Bin]:
    """The calibration table: bins of equal width that are not empty."""
    held: dict[int, list[tuple[float, bool]]] = {}
    for confidence, is_right in zip(confidences, right, strict=True):
        held.setdefault(min(int(confidence * BINS), BINS - 1), []).append((confidence, is_right))
    return [
        Bin(
            number / BINS,
            (number + 1) / BINS,
            len(pairs),
            sum(confidence for confidence, _ in pairs) / len(pairs),
            sum(is_right for _, is_right in pairs) / len(pairs),
        )
        for number, pairs in sorted(held.items())
    ]


def calibration_error(bins: Iterable[Bin]) -> float:
    """The expected calibration error: the mean gap of confidence and accuracy over questions."""
    bins = list(bins)
    gaps = sum(each.count * abs(each.confidence - each.accuracy) for each in bins)
    return gaps / max(sum(each.count for each in bins), 1)


@dataclass(frozen=True)
class Mean:
    """A mean over questions.

    Attributes:
        value: The mean.
        count: How many questions it is of.
        interval: 95 % bootstrap interval, clustered by video; None for a single video.
    """

    value: float
    count: int
    interval: tuple[float, float] | None


def mean(values: Sequence[float], videos: Sequence[str], *, seed: int = 0) -> Mean:
    """The mean of a score, with the percentile interval of a cluster bootstrap.

    Questions on one video are not independent, so whole videos are drawn with replacement. The mean
    of a resample is over its questions, so videos with more questions weigh more, as in the mean.

    Args:
        values: The score of each question.
        videos: The video of each question.
        seed: Of the resampling.
    """
    scores = np.asarray(values, np.float64)
    _, numbers = np.unique(np.asarray(videos), return_inverse=True)
    sums = np.bincount(numbers, scores).astype(np.float64)
    counts = np.bincount(numbers).astype(np.float64)
    interval = None
    if len(sums) > 1:
        low, high = np.percentile(_resampled(sums, counts, seed), (2.5, 97.5))
        interval = float(low), float(high)
    return Mean(float(scores.mean()), len(scores), interval)


def _resampled(
    sums: NDArray[np.float64], counts: NDArray[np.float64], seed: int
) -> NDArray[np.float64]:
    """(RESAMPLES,) means of resampled videos, a block at a time to bound the memory."""
    rng = np.random.default_rng(seed)
    videos = len(sums)
    block = max(1, (1 << 22) // videos)
    means = []
    for start in range(0, RESAMPLES, block):
        size = min(block, RESAMPLES - start)
        drawn = rng.multinomial(videos, np.full(videos, 1 / videos), size=size)
        means.append((drawn @ sums) / (drawn @ counts))
    return np.concatenate(means)
