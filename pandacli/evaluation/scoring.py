"""Evaluations of answer files: scores of items, a judge, comparisons, all as a JSON object."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pandacli.errors import UsageError
from pandacli.evaluation.answers import Item, add_missing, question_type, read_items
from pandacli.evaluation.judge import (
    ASPECTS,
    MATCH,
    Case,
    Judge,
    JudgeSettings,
    Replies,
    Verdict,
)
from pandacli.evaluation.metrics import (
    Mean,
    brier,
    calibration,
    calibration_error,
    contains,
    exact_match,
    mean,
    token_f1,
)

TEXT_MEASURES = {"exact match": exact_match, "token F1": token_f1, "contained": contains}

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


@dataclass
class Evaluation:
    """A file of answers and the scores of its items.

    Attributes:
        name: The file.
        items: All questions, answered or not.
        scores: Of each measure, the score of each item; None where the measure does not apply.
        problems: Why the judge gave no score, by measure and index of the item.
    """

    name: str
    items: list[Item]
    scores: dict[str, list[float | None]] = field(default_factory=dict)
    problems: dict[str, dict[int, str]] = field(default_factory=dict)

    def means(self, keep: Callable[[Item], bool] = lambda _: True) -> dict[str, Mean]:
        """The mean of each measure over the items that it applies to."""
        means = {}
        for measure, scores in self.scores.items():
            held = [
                (score, item.video or item.id)
                for score, item in zip(scores, self.items, strict=True)
                if score is not None and keep(item)
            ]
            if held:
                means[measure] = mean(*zip(*held, strict=True))
        return means


def evaluate(name: str, items: list[Item]) -> Evaluation:
    """Score items by everything that needs no judge; an item without an answer scores 0.

    Raises:
        UsageError: No item has a right answer.
    """
    scored = Evaluation(name, items)
    is_open = [bool(item.references) and item.choices is None for item in items]
    has_choices = [item.choices is not None and item.choices.correct is not None for item in items]
    if not any(is_open) and not any(has_choices):
        raise UsageError(
            f"no answer in {name} has a right answer beside it",
            "name the file that has them: --questions, or --references",
        )
    if any(is_open):
        for measure, score in TEXT_MEASURES.items():
            scored.scores[measure] = [
                (0.0 if item.prediction is None else score(item.prediction, item.references))
                if applies and item.layout == "qa"
                else None
                for item, applies in zip(items, is_open, strict=True)
            ]
            if not any(value is not None for value in scored.scores[measure]):
                del scored.scores[measure]
    if any(has_choices):
        scored.scores[CHOICE_ACCURACY] = [
            float(item.chosen == item.choices.correct) if item.choices and applies else None
            for item, applies in zip(items, has_choices, strict=True)
        ]
        errors = [_brier(item) for item in items]
        if any(error is not None for error in errors):
            scored.scores[BRIER] = errors
    return scored


def _brier(item: Item) -> float | None:
    if item.choices is None or item.choices.correct is None or not item.probabilities:
        return None
    return brier(item.probabilities, item.choices.correct)


def aspects_of(item: Item, is_temporal: bool) -> tuple[str, ...]:
    """The tasks that a judge is given for an item."""
    if item.layout == "consistency":
        return ("consistency",)
    if item.layout == "generic":
        return ("temporal",) if is_temporal else ("correctness", "detail", "context")
    return (MATCH,)


def cases(scored: Evaluation, tasks: Mapping[int, Iterable[str]]) -> dict[tuple[int, str], Case]:
    """What a judge is to be asked, by index of the item and task; only what has an answer."""
    asked = {}
    for number, names in tasks.items():
        item = scored.items[number]
        if item.prediction is None or not item.references:
            continue
        question2, prediction2 = item.second or ("", "")
        for task in names:
            asked[number, task] = Case(
                *(task, item.question, item.references[0], item.prediction),
                *(question2, prediction2),
            )
    return asked


def add_verdicts(
    scored: Evaluation,
    tasks: Mapping[int, Iterable[str]],
    asked: Mapping[tuple[int, str], Case],
    verdicts: Mapping[Case, Verdict | str],
) -> None:
    """Add the scores of a judge; a question without an answer or a verdict scores 0."""
    for number, names in tasks.items():
        for task in names:
            case = asked.get((number, task))
            verdict = verdicts.get(case, "not asked") if case else None
            if isinstance(verdict, str):
                scored.problems.setdefault(task, {})[number] = verdict
                verdict = None
            measure = JUDGE_SCORE if task == MATCH else task
            _row(scored, measure)[number] = float(verdict.score if verdict else 0)
            if task == MATCH:
                _row(scored, JUDGED)[number] = float(bool(verdict and verdict.match))


def _row(scored: Evaluation, measure: str) -> list[float | None]:
    return scored.scores.setdefault(measure, [None] * len(scored.items))


def compare(first: Evaluation, second: Evaluation) -> dict[str, Any]:
    """The paired differences of two evaluations of the same items, the first minus the second."""
    differences: dict[str, Any] = {}
    for measure in first.scores.keys() & second.scores.keys():
        pairs = [
            (a - b, item, number)
            for number, (a, b, item) in enumerate(
                zip(first.scores[measure], second.scores[measure], first.items, strict=True)
            )
            if a is not None and b is not None
        ]
        if pairs:
            gaps, items, _ = zip(*pairs, strict=True)
            differences[measure] = _mean_fields(mean(gaps, [i.video or i.id for i in items]))
    ordered = {measure: differences[measure] for measure in first.scores if measure in differences}
    decisive = next((m for m in (CHOICE_ACCURACY, JUDGED, "exact match") if m in ordered), None)
    changed = []
    if decisive:
        changed = [
            {
                "id": item.id,
                "video": item.video,
                "question": item.question,
                "right": list(item.references),
                "first": item.prediction,
                "second": second.items[number].prediction,
                "better": "first" if (a or 0) > (b or 0) else "second",
            }
            for number, (a, b, item) in enumerate(
                zip(first.scores[decisive], second.scores[decisive], first.items, strict=True)
            )
            if a != b
        ]
    return {"with": second.name, "differences": ordered, "by": decisive, "questions": changed}


def as_fields(scored: Evaluation, benchmark: str | None) -> dict[str, Any]:
    """An evaluation as a JSON object."""
    typed = any(item.type for item in scored.items)
    types = {question_type(item, typed) for item in scored.items}
    by_type = {
        name: {m: _mean_fields(value) for m, value in scored.means(_is(name, typed)).items()}
        for name in sorted(types)
    }
    unanswered = [item for item in scored.items if item.prediction is None]
    fields: dict[str, Any] = {
        "file": scored.name,
        "questions": len(scored.items),
        "answered": len(scored.items) - len(unanswered),
        "measures": {m: _mean_fields(value) for m, value in scored.means().items()},
        "by_type": by_type if len(by_type) > 1 else {},
        "unanswered": [{"id": i.id, "video": i.video, "reason": i.error} for i in unanswered],
        "not_judged": [
            {"id": scored.items[number].id, "task": task, "reason": reason}
            for task, problems in scored.problems.items()
            for number, reason in problems.items()
        ],
    }
    without = sum(not item.references for item in scored.items)
    if without:
        fields["without_reference"] = without
    pairs = [
        (max(item.probabilities), item.chosen == item.choices.correct)
        for item in scored.items
        if item.probabilities and item.choices and item.choices.correct is not None
    ]
    if pairs:
        bins = calibration(*zip(*pairs, strict=True))
        fields["calibration"] = [asdict(each) for each in bins]
        fields["calibration_error"] = calibration_error(bins)
    if benchmark:
        fields["benchmark"] = benchmark
        fields["published"] = PUBLISHED[benchmark]
    return fields


def _is(name: str, typed: bool) -> Callable[[Item], bool]:
    return lambda item: question_type(item, typed) == name


def _mean_fields(value: Mean) -> dict[str, Any]:
    interval = None if value.interval is None else [round(end, 6) for end in value.interval]
    return {"mean": round(value.value, 6), "count": value.count, "interval": interval}


def guess_benchmark(path: Path) -> str | None:
    """The benchmark of the paper that a path names: MSVD-QA for "runs/msvd/test.jsonl"."""
    text = str(path).casefold()
    words = {"msvd": "MSVD-QA", "msrvtt": "MSRVTT-QA", "tgif": "TGIF-QA"}
    words |= {"activitynet": "ActivityNet-QA", "generic": "Video-ChatGPT"}
    words |= {"temporal": "Video-ChatGPT", "consistency": "Video-ChatGPT"}
    found = {benchmark for word, benchmark in words.items() if word in text}
    return found.pop() if len(found) == 1 else None


@dataclass(frozen=True)
class Job:
    """What is to be evaluated.

    Attributes:
        answers: Files of answers.
        questions: The files of all questions: none, one for all files, or one for each.
        references: A file of right answers to the questions.
        benchmark: A key of `PUBLISHED`; None to go by the name of the file.
        against: Another file of answers to the same questions, to compare with.
        blind: Answers to the same questions that were given without pixels.
        judge: The judge; None for none.
        replies: Where the replies of the judge are kept; None for a file beside the answers.
    """

    answers: tuple[Path, ...]
    questions: tuple[Path, ...] = ()
    references: Path | None = None
    benchmark: str | None = None
    against: Path | None = None
    blind: Path | None = None
    judge: JudgeSettings | None = None
    replies: Path | None = None

    def check(self) -> None:
        """Raise a `UsageError` for paths and options that do not go together."""
        if len(self.questions) not in (0, 1, len(self.answers)):
            raise UsageError(
                f"there are {len(self.questions)} files of questions for {len(self.answers)} of "
                "answers",
                "give one for all of them, or one for each",
            )
        if len(self.answers) > 1 and (self.against or self.blind):
            raise UsageError("--compare and --blind are for one file of answers")
        if self.benchmark is not None and self.benchmark not in PUBLISHED:
            raise UsageError(
                f"there is no benchmark {self.benchmark!r}", f"known: {', '.join(PUBLISHED)}"
            )


def run(
    job: Job, progress: Callable[[int, int], None] = lambda _done, _all: None
) -> dict[str, Any]:
    """Evaluate files of answers.

    Args:
        job: Which, and how.
        progress: Called with how many cases a judge has decided, and how many there are.

    Returns:
        A JSON object: `files`, and `comparison`, `blind` and `judge` where they were asked for.

    Raises:
        UsageError: Options do not go together, or nothing has a right answer.
        ClipError: A file cannot be read.
        ModelError: The judge cannot be reached, or refuses the key or the model.
    """
    job.check()
    asked: dict[Path | None, list[Item]] = {None: []}
    for path in job.questions:
        asked[path] = read_items(path, job.references)
    per_file = job.questions * len(job.answers) if len(job.questions) == 1 else job.questions
    evaluations = [
        _evaluate_file(path, asked[source], job.references)
        for path, source in zip(job.answers, per_file or [None] * len(job.answers), strict=True)
    ]
    others = {}
    for name, other in (("comparison", job.against), ("blind", job.blind)):
        if other is not None:
            items = add_missing(read_items(other, job.references), evaluations[0].items)
            others[name] = evaluate(str(other), items)
    results: dict[str, Any] = {}
    if job.judge is not None:
        judge = _run_judge(job, job.judge, [*evaluations, *others.values()], progress)
        results["judge"] = judge
    results = {
        "files": [
            as_fields(scored, job.benchmark or guess_benchmark(path))
            for scored, path in zip(evaluations, job.answers, strict=True)
        ]
    } | results
    return results | {name: compare(evaluations[0], other) for name, other in others.items()}


def _evaluate_file(path: Path, questions: list[Item], references: Path | None) -> Evaluation:
    items = read_items(path, references if not questions else None)
    return evaluate(str(path), add_missing(items, questions) if questions else items)


def _run_judge(
    job: Job,
    settings: JudgeSettings,
    evaluations: list[Evaluation],
    progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """Judge all items; returns what the report says of the judge."""
    path = job.replies or job.answers[0].with_suffix(".judge.jsonl")
    with Replies(path) as replies:
        judge = Judge(settings, replies)
        tasks = [
            {
                number: aspects_of(
                    item, is_temporal="temporal" in Path(scored.name).name.casefold()
                )
                for number, item in enumerate(scored.items)
                if item.choices is None and item.references
            }
            for scored in evaluations
        ]
        asked = [cases(*pair) for pair in zip(evaluations, tasks, strict=True)]
        every = list(dict.fromkeys(case for each in asked for case in each.values()))
        done = 0

        def count() -> None:
            nonlocal done
            done += 1
            progress(done, len(every))

        verdicts = judge.verdicts(every, count)
        for scored, wanted, held in zip(evaluations, tasks, asked, strict=True):
            add_verdicts(scored, wanted, held, verdicts)
        names = {task for each in tasks for wanted in each.values() for task in wanted}
        return {
            "model": settings.model,
            "reported": list(replies.models),
            "url": settings.url,
            "prompts": settings.prompt_digest(names),
            "temperature": settings.temperature,
            "seed": settings.seed,
            "replies": str(path),
        }
