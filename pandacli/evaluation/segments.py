"""Scores of time segments: R1 at three IoUs, mean IoU and mAP, as QVHighlights defines them.

The first segment of an answer is its best one. The IoU of two segments is the length of their
intersection over that of their union.
"""

from collections.abc import Callable, Sequence
from functools import partial

from pandacli.batch.readers.moments import Retrieved
from pandacli.video.clip import format_time
from pandacli.video.windows import Span

RECALLS = {f"R1@{threshold}": threshold for threshold in (0.3, 0.5, 0.7)}
MEAN_IOU, MEAN_AP = "mIoU", "mAP"

_AP_THRESHOLDS = tuple(percent / 100 for percent in range(50, 100, 5))
_MOST = 10  # segments of a question that count for the average precision

Score = Callable[[Sequence[Retrieved], Sequence[Span]], float]


def overlap(first: tuple[float, float], second: tuple[float, float]) -> float:
    """The IoU of two segments; 0 where both have no length."""
    shared = min(first[1], second[1]) - max(first[0], second[0])
    union = (first[1] - first[0]) + (second[1] - second[0]) - max(shared, 0.0)
    return max(shared, 0.0) / union if union > 0 else 0.0


def best_overlap(found: Sequence[Retrieved], right: Sequence[Span]) -> float:
    """The IoU of the first segment with the right one that it overlaps most; 0 without segments."""
    return max((overlap(found[0][:2], each) for each in right), default=0.0) if found else 0.0


def _recall(threshold: float, found: Sequence[Retrieved], right: Sequence[Span]) -> float:
    return float(best_overlap(found, right) >= threshold)


def average_precision(found: Sequence[Retrieved], right: Sequence[Span]) -> float:
    """The interpolated average precision of the first ten segments, over IoUs of 0.5, 0.55 to 0.95.

    In the order of their scores, each takes the free right segment that it overlaps most, if by
    enough; else it is a false one.
    """
    ranked = sorted(found[:_MOST], key=lambda each: -each.score)
    every = [_precision_at(threshold, ranked, right) for threshold in _AP_THRESHOLDS]
    return sum(every) / len(every)


def _precision_at(threshold: float, found: Sequence[Retrieved], right: Sequence[Span]) -> float:
    free, hits, precisions = list(right), 0, []
    for count, segment in enumerate(found, 1):
        nearest = max(free, key=lambda each: overlap(segment[:2], each), default=None)
        if nearest is not None and overlap(segment[:2], nearest) >= threshold:
            free.remove(nearest)
            hits += 1
            precisions.append(hits / count)
    # interpolated: at each recall, the best precision at that recall or a higher one
    best = [max(precisions[number:]) for number in range(len(precisions))]
    return sum(best) / len(right)


SCORES: dict[str, Score] = {
    **{name: partial(_recall, threshold) for name, threshold in RECALLS.items()},
    MEAN_IOU: best_overlap,
    MEAN_AP: average_precision,
}
"""The score of a question by measure, from 0 to 1."""


def shown(segment: tuple[float, float]) -> str:
    """A segment as text."""
    return f"{format_time(segment[0])} - {format_time(segment[1])}"
