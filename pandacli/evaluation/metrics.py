"""Scores of single answers, and their means with intervals.

Text is compared after `normalize`, as is usual for VQA: Unicode compatibility forms, lower case, no
punctuation, no articles, number words as digits.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
"""Bootstrap resamples of an interval."""

BINS = 10
"""Bins of equal width of a calibration table."""

_SEED = 0  # of the resampling

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
_SMALL = "(?:(?:{})(?: (?:{}))?|{})".format(*map("|".join, (_TENS, _UNITS[1:10], _UNITS)))
_BELOW_1000 = f"(?:(?:(?:{'|'.join(_UNITS[1:10])}) )?hundred(?: (?:and )?{_SMALL})?|{_SMALL})"
_NUMBER = re.compile(
    rf"(?<!\S)(?:(?:{_BELOW_1000} )?thousand(?: (?:and )?{_BELOW_1000})?|{_BELOW_1000})(?!\S)"
)
_POINT = re.compile(r"(?<=\d)\.(?=\d)")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}\b)")

# scripts without spaces between words: Thai, Lao, Burmese, Khmer, kana, Han
_UNSPACED = re.compile(
    "([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff])"
)


@lru_cache(1 << 16)  # each measure needs them, and many questions have the same answer
def normalize(text: str) -> tuple[str, ...]:
    """The words that answers are compared by.

    NFKC and case folding; apostrophes vanish, other punctuation and symbols separate words, except
    the point of a decimal number; "a", "an" and "the" are dropped, unless nothing else is there;
    numbers in words become digits. Characters of scripts without spaces are words of their own.
    What has only punctuation and symbols stays as it is.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    folded = re.sub("['\u2019]", "", _THOUSANDS.sub("", folded))
    points = {match.start() for match in _POINT.finditer(folded)}
    spaced = "".join(
        " " if unicodedata.category(character)[0] in "PSZC" and place not in points else character
        for place, character in enumerate(folded)
    )
    words = _UNSPACED.sub(r" \1 ", spaced).split()
    kept = " ".join([word for word in words if word not in _ARTICLES] or words)
    return tuple(_NUMBER.sub(_digits, kept).split() or folded.split())


def _digits(words: re.Match[str]) -> str:
    """The digits of a number in words: those of 205 for "two hundred and five"."""
    thousands = part = 0
    for word in words[0].split():
        if word == "thousand":
            thousands, part = 1000 * (part or 1), 0
        elif word == "hundred":
            part = 100 * (part or 1)
        elif word != "and":
            part += _NUMBERS[word]
    return str(thousands + part)


def exact_match(prediction: str, references: Iterable[str]) -> float:
    """1 where the prediction equals a reference after `normalize`, else 0."""
    words = normalize(prediction)
    return float(any(words == normalize(reference) for reference in references))


def token_f1(prediction: str, references: Iterable[str]) -> float:
    """The best F1 of the bags of words of the prediction and of a reference, as in SQuAD."""
    return max((_f1(normalize(prediction), normalize(each)) for each in references), default=0.0)


def _f1(predicted: tuple[str, ...], wanted: tuple[str, ...]) -> float:
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


def means(columns: Mapping[str, Sequence[float | None]], videos: Sequence[str]) -> dict[str, Mean]:
    """The mean of each column, with the percentile interval of a cluster bootstrap.

    Questions on one video are not independent, so whole videos are drawn with replacement. The mean
    of a resample is over its questions, so videos with more questions weigh more, as in the mean.

    Args:
        columns: The scores of the questions; None for a question that a column leaves out.
        videos: The video of each question.

    Returns:
        The columns that have any score, in their order.
    """
    alike: dict[bytes, list[str]] = {}  # columns of the same questions share their resamples
    for name, scores in columns.items():
        alike.setdefault(bytes(score is not None for score in scores), []).append(name)
    found: dict[str, Mean] = {}
    for mask, names in alike.items():
        if not any(mask):
            continue
        kept = np.frombuffer(mask, np.bool_)
        values = np.array([columns[name] for name in names], np.float64)[:, kept]  # (columns, n)
        _, numbers = np.unique(np.asarray(videos)[kept], return_inverse=True)
        rows = [*values, np.ones(values.shape[1])]
        sums = np.stack([np.bincount(numbers, row).astype(np.float64) for row in rows])
        intervals: list[tuple[float, float] | None] = [None] * len(names)
        if sums.shape[1] > 1:
            low, high = np.percentile(_resampled(sums), (2.5, 97.5), axis=0).tolist()
            intervals = list(zip(low, high, strict=True))
        for name, row, interval in zip(names, values, intervals, strict=True):
            found[name] = Mean(float(row.mean()), len(row), interval)
    return {name: found[name] for name in columns if name in found}


def _resampled(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """(RESAMPLES, columns) means of resampled videos, from sums and, in the last row, counts."""
    rng = np.random.default_rng(_SEED)
    videos = sums.shape[1]
    block = max(1, (1 << 19) // videos)  # to bound the memory
    resampled = []
    for start in range(0, RESAMPLES, block):
        size = min(block, RESAMPLES - start)
        drawn = rng.integers(videos, size=(size, videos))
        drawn += np.arange(size)[:, None] * videos
        times = np.bincount(drawn.ravel(), minlength=size * videos).reshape(size, videos)
        totals = times.astype(np.float64) @ sums.T
        resampled.append(totals[:, :-1] / totals[:, -1:])
    return np.concatenate(resampled)
