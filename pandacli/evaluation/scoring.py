"""Scores of the items of a file, with a judge's verdicts, and the difference of two files."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pandacli.errors import ClipError, UsageError
from pandacli.evaluation.answers import MOMENTS, NO_ANSWER, Item, question_types
from pandacli.evaluation.judge import Case
from pandacli.evaluation.matching import Ignored
from pandacli.evaluation.metrics import (
    Mean,
    brier,
    calibration,
    calibration_error,
    contains,
    exact_match,
    means,
    token_f1,
)
from pandacli.evaluation.replies import ASPECTS, MATCH, Verdict
from pandacli.evaluation.segments import MEAN_AP, SCORES

EXACT, F1, CONTAINED = "exact match", "token F1", "contained"
JUDGED, JUDGE_SCORE = "judged right", "judge score"
CHOICE_ACCURACY, BRIER = "choice accuracy", "Brier score"

PUBLISHED: dict[str, dict[str, float]] = {
    "MSVD-QA": {JUDGED: 0.647, JUDGE_SCORE: 3.8},
    "MSRVTT-QA": {JUDGED: 0.548, JUDGE_SCORE: 3.4},
    "TGIF-QA": {JUDGED: 0.429, JUDGE_SCORE: 3.2},
    "ActivityNet-QA": {JUDGED: 0.400, JUDGE_SCORE: 3.3},
    "Video-ChatGPT": dict(zip(ASPECTS, (2.74, 2.47, 3.01, 2.26, 2.36), strict=True)),
}
"""Results in Table 1 and 2 of the paper (arXiv 2412.18609), judged by the gpt-3.5-turbo of 2024."""

_TEXT = {EXACT: exact_match, F1: token_f1, CONTAINED: contains}
_TASKS = {
    "qa": (MATCH,),
    "generic": ("correctness", "detail", "context"),
    "temporal": ("temporal",),
    "consistency": ("consistency",),
    MOMENTS: (),
}
_DECISIVE = (CHOICE_ACCURACY, JUDGED, *ASPECTS, "R1@0.5", EXACT, F1)
"""By which of its scores a question is said to be answered differently: the first that it has."""


@dataclass
class Evaluation:
    """A file of answers and the scores of its items.

    Attributes:
        name: The file.
        items: All questions, answered or not.
        ignored: Answers that do not count.
        scores: Of each measure, the score of each item; None where the measure does not apply.
        problems: Why the judge gave no score, by measure and index of the item.
        benchmark: The benchmark of the paper that the file answers.
    """

    name: str
    items: list[Item]
    ignored: list[Ignored] = field(default_factory=list)
    scores: dict[str, list[float | None]] = field(default_factory=dict)
    problems: dict[str, dict[int, str]] = field(default_factory=dict)
    benchmark: str | None = None

    @property
    def videos(self) -> list[str]:
        """What questions are clustered by: their videos, or themselves if a file names none."""
        return [item.video or f"\0{number}" for number, item in enumerate(self.items)]

    @property
    def has_moments(self) -> bool:
        """Whether questions have right segments."""
        return any(item.moments for item in self.items)

    def means(self, numbers: Iterable[int] | None = None) -> dict[str, Mean]:
        """The mean of each measure over the items that it applies to, or those of these numbers."""
        kept = list(range(len(self.items)) if numbers is None else numbers)
        columns = {name: [row[number] for number in kept] for name, row in self.scores.items()}
        videos = self.videos
        return means(columns, [videos[number] for number in kept])


def evaluate(
    name: str, items: list[Item], ignored: Iterable[Ignored] = (), *, is_judged: bool = False
) -> Evaluation:
    """Score items by everything that needs no judge; an item without an answer scores 0.

    Long answers, of the generative sets, have a token F1 only, and none if they are judged.

    Raises:
        ClipError: No item has an answer.
        UsageError: No item has a right answer.
    """
    scored = Evaluation(name, items, list(ignored))
    if all(item.error == NO_ANSWER for item in items):
        raise ClipError(
            f"{name} has no answers in it", "name a file that panda batch or another tool wrote"
        )
    if not any(item.references for item in items):  # of choices too
        raise UsageError(
            f"no answer in {name} has a right answer beside it",
            "name the file that has them: --questions, or --references",
        )
    for measure, score in _TEXT.items():
        scored.scores[measure] = [
            _text_score(score, item)
            if item.references
            and item.choices is None
            and item.layout != MOMENTS
            and (item.layout == "qa" or (measure == F1 and not is_judged))
            else None
            for item in items
        ]
    scored.scores[CHOICE_ACCURACY] = [
        float(item.chosen == item.choices.correct)
        if item.choices and item.choices.correct is not None
        else None
        for item in items
    ]
    scored.scores[BRIER] = [
        brier(item.probabilities, item.choices.correct)
        if item.probabilities and item.choices and item.choices.correct is not None
        else None
        for item in items
    ]
    several = any(len(item.moments) > 1 for item in items)
    for measure, of_segments in SCORES.items():
        if measure != MEAN_AP or several:
            scored.scores[measure] = [
                of_segments(item.segments, item.moments) if item.moments else None for item in items
            ]
    return scored


def _text_score(score: Callable[[str, Iterable[str]], float], item: Item) -> float:
    """The score of an answer; of two phrasings, the mean."""
    if item.prediction is None:
        return 0.0
    answers = [item.prediction, *([item.second[1]] if item.second else [])]
    return sum(score(answer, item.references) for answer in answers) / len(answers)


def tasks_of(item: Item) -> tuple[str, ...]:
    """The tasks that a judge is given for an item."""
    return () if item.choices is not None or not item.references else _TASKS[item.layout]


def cases(scored: Evaluation, tasks: Iterable[Iterable[str]]) -> dict[tuple[int, str], Case]:
    """What a judge is to be asked, by index of the item and task; only what has an answer."""
    return {
        (number, task): Case(
            *(task, item.question, " / ".join(item.references), item.prediction),
            *(item.second or ("", "")),
        )
        for number, (item, names) in enumerate(zip(scored.items, tasks, strict=True))
        for task in names
        if item.prediction is not None
    }


def add_verdicts(
    scored: Evaluation,
    tasks: Iterable[Iterable[str]],
    asked: Mapping[tuple[int, str], Case],
    verdicts: Mapping[Case, Verdict | str],
) -> None:
    """Add the scores of a judge; a question without an answer or a verdict scores 0."""
    for number, names in enumerate(tasks):
        for task in names:
            case = asked.get((number, task))
            verdict = verdicts[case] if case else None
            if isinstance(verdict, str):
                scored.problems.setdefault(task, {})[number] = verdict
                verdict = None
            measure = JUDGE_SCORE if task == MATCH else task
            if task == MATCH:
                _row(scored, JUDGED)[number] = float(bool(verdict and verdict.match))
            _row(scored, measure)[number] = float(verdict.score if verdict else 0)


def _row(scored: Evaluation, measure: str) -> list[float | None]:
    return scored.scores.setdefault(measure, [None] * len(scored.items))


def compare(first: Evaluation, second: Evaluation) -> dict[str, Any]:
    """The paired differences of two evaluations of the same items, the first minus the second."""
    gaps = {
        measure: [
            None if a is None or b is None else a - b
            for a, b in zip(first.scores[measure], second.scores[measure], strict=True)
        ]
        for measure in first.scores
        if measure in second.scores
    }
    changed = []
    for number, item in enumerate(first.items):
        measure = next((m for m in _DECISIVE if m in gaps and gaps[m][number] is not None), None)
        gap = gaps[measure][number] if measure else None
        if gap:
            changed.append(
                {
                    **_named(item),
                    "right": list(item.references),
                    "first": item.prediction,
                    "second": second.items[number].prediction,
                    "better": "first" if gap > 0 else "second",
                    "by": measure,
                }
            )
    return {
        "with": second.name,
        # the second has the videos of the first, and its own where the first names none
        "differences": _measure_fields(means(gaps, second.videos)),
        "questions": changed,
        **_left_out(second),
    }


def as_fields(scored: Evaluation) -> dict[str, Any]:
    """An evaluation as a JSON object."""
    by_type: dict[str, list[int]] = {}
    for number, name in enumerate(question_types(scored.items)):
        by_type.setdefault(name, []).append(number)
    sure = [
        (max(item.probabilities), item.chosen == item.choices.correct)
        for item in scored.items
        if item.probabilities and item.choices and item.choices.correct is not None
    ]
    bins = calibration(*zip(*sure, strict=True)) if sure else []
    coverages = [item.coverage for item in scored.items if item.coverage is not None]
    return {
        "file": scored.name,
        "questions": len(scored.items),
        "answered": sum(item.prediction is not None for item in scored.items),
        "without_reference": sum(not item.references for item in scored.items),
        "clustered_by": "video" if any(item.video for item in scored.items) else "question",
        "measures": _measure_fields(scored.means()),
        "by_type": {
            name: _measure_fields(scored.means(by_type[name]))
            for name in sorted(by_type)
            if len(by_type) > 1
        },
        "calibration": [asdict(each) for each in bins],
        "calibration_error": calibration_error(bins) if bins else None,
        "coverage": sum(coverages) / len(coverages) if coverages else None,
        "benchmark": scored.benchmark,
        "published": PUBLISHED[scored.benchmark] if scored.benchmark else {},
        **_left_out(scored),
    }


def _left_out(scored: Evaluation) -> dict[str, Any]:
    """What has no answer or no verdict, and the answers that do not count."""
    return {
        "unanswered": [
            _named(item) | {"reason": item.error}
            for item in scored.items
            if item.prediction is None
        ],
        "not_judged": [
            _named(scored.items[number]) | {"task": task, "reason": reason}
            for task, problems in scored.problems.items()
            for number, reason in problems.items()
        ],
        "ignored": [_named(each.item) | {"reason": each.reason} for each in scored.ignored],
    }


def _named(item: Item) -> dict[str, Any]:
    return {"id": item.id, "video": item.video, "question": item.question}


def _measure_fields(found: Mapping[str, Mean]) -> dict[str, Any]:
    return {measure: _mean_fields(value) for measure, value in found.items()}


def _mean_fields(value: Mean) -> dict[str, Any]:
    interval = None if value.interval is None else [round(end, 6) for end in value.interval]
    return {"mean": round(value.value, 6), "count": value.count, "interval": interval}
