"""Files of answers in, the JSON object of `panda eval` out."""

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path
from typing import Any, BinaryIO, cast

from pandacli.errors import PandaError, UsageError
from pandacli.evaluation.answers import Item, read_items
from pandacli.evaluation.judge import Judge, JudgeSettings, require_endpoint
from pandacli.evaluation.matching import Ignored, match, without_repeats
from pandacli.evaluation.replies import Replies
from pandacli.evaluation.scoring import (
    PUBLISHED,
    Evaluation,
    add_verdicts,
    as_fields,
    cases,
    compare,
    evaluate,
    tasks_of,
)

STDIN = Path("-")


@dataclass(frozen=True)
class Job:
    """What is to be evaluated.

    Attributes:
        answers: Files of answers; `STDIN` is standard input.
        questions: The files of all questions: none, one for all files, or one for each.
        references: A file of right answers to the questions.
        benchmark: A key of `PUBLISHED` in any case; None to go by the name of the file.
        against: Another file of answers to the same questions, to compare with.
        blind: Answers to the same questions that were given without pixels.
        judge: The judge; None for none.
        replies: Where the replies of the judge are kept; None for a file beside the answers.
        join: Whether the answers are shards of one run, rather than a run each.
    """

    answers: tuple[Path, ...]
    questions: tuple[Path, ...] = ()
    references: Path | None = None
    benchmark: str | None = None
    against: Path | None = None
    blind: Path | None = None
    judge: JudgeSettings | None = None
    replies: Path | None = None
    join: bool = False

    def check(self) -> None:
        """Raise a `UsageError` for what does not go together or is not there."""
        runs = 1 if self.join else len(self.answers)
        if len(self.questions) not in (0, 1, runs):
            raise UsageError(
                f"there are {len(self.questions)} files of questions for {runs} of answers",
                "give one for all of them, or one for each",
            )
        if runs > 1 and (self.against or self.blind):
            raise UsageError("--compare and --blind are for one file of answers")
        if self.benchmark is not None:
            known_benchmark(self.benchmark)
        if self.answers.count(STDIN) > 1:
            raise UsageError("standard input can be read once only")
        if self.judge is not None:
            require_endpoint(self.judge)
            if self.replies is None and self.answers[0] == STDIN:
                raise UsageError("the replies of the judge need a file", "name it: --judge-replies")


def known_benchmark(name: str) -> str:
    """The key of `PUBLISHED` for a name in any case."""
    found = [known for known in PUBLISHED if known.casefold() == name.casefold()]
    if not found:
        raise UsageError(f"there is no benchmark {name!r}", f"known: {', '.join(PUBLISHED)}")
    return found[0]


def guess_benchmark(path: Path) -> str | None:
    """The benchmark of the paper that a path names: MSVD-QA for "runs/msvd/test.jsonl"."""
    text = str(path).casefold()
    words = {"msvd": "MSVD-QA", "msrvtt": "MSRVTT-QA", "tgif": "TGIF-QA"}
    words |= {"activitynet": "ActivityNet-QA", "generic": "Video-ChatGPT"}
    words |= {"temporal": "Video-ChatGPT", "consistency": "Video-ChatGPT"}
    found = {benchmark for word, benchmark in words.items() if word in text}
    return found.pop() if len(found) == 1 else None


def _is_temporal(*paths: Path) -> bool:
    """Whether the first name, or folder of the answers, that says a topic says "temporal"."""
    names = [path.name.casefold() for path in paths] + [paths[-1].parent.name.casefold()]
    topics = ("temporal", "generic", "consistency")
    return "temporal" in next((name for name in names if any(t in name for t in topics)), "")


def run(
    job: Job, progress: Callable[[int, int], None] = lambda _done, _all: None
) -> dict[str, Any]:
    """Evaluate files of answers.

    Args:
        job: Which, and how.
        progress: Called with how many cases a judge has decided, and how many there are.

    Returns:
        A JSON object: `files`, and `comparison`, `blind` and `judge`, null if not asked for.

    Raises:
        UsageError: Options do not go together, or nothing has a right answer.
        ClipError: A file cannot be read.
        ModelError: The judge cannot be reached, or refuses the key or the model.
    """
    job.check()
    evaluations = list(_evaluations(job))
    others = {
        name: _other(job, path, evaluations[0])
        for name, path in (("comparison", job.against), ("blind", job.blind))
        if path is not None
    }
    judge = None
    if job.judge is not None:
        judge = _run_judge(job, job.judge, [*evaluations, *others.values()], progress)
    return {
        "files": [as_fields(scored) for scored in evaluations],
        "comparison": None,
        "blind": None,
        "judge": judge,
    } | {name: compare(evaluations[0], other) for name, other in others.items()}


def _evaluations(job: Job) -> Iterator[Evaluation]:
    runs = [job.answers] if job.join else [(path,) for path in job.answers]
    asked, references = _questions(job)
    for number, paths in enumerate(runs):
        read = (read_items(_source(path), references, are_answers=True) for path in paths)
        items = list(chain.from_iterable(read))
        items, ignored = without_repeats(items)
        name, known_by = ", ".join(map(str, paths)), paths
        if asked:
            source, questions = asked[min(number, len(asked) - 1)]  # one may be for all
            known_by = (source, *paths)
            items, unknown = _matched(items, questions, name, str(source))
            ignored += unknown
        if _is_temporal(*known_by):
            items = [replace(i, layout="temporal") if i.layout == "generic" else i for i in items]
        scored = evaluate(name, items, ignored, is_judged=job.judge is not None)
        guesses = map(guess_benchmark, reversed(known_by))
        named = job.benchmark and known_benchmark(job.benchmark)
        scored.benchmark = named or next(filter(None, guesses), None)
        yield scored


def _questions(job: Job) -> tuple[list[tuple[Path, list[Item]]], Path | None]:
    """The files of questions, and that of right answers where it is to be joined with the answers.

    A file of right segments has the questions, too.
    """
    right = _right_segments(job.references) if job.references else []
    if not right:
        asked = [(path, read_items(path, job.references)) for path in job.questions]
        return asked, None if asked else job.references
    asked = [(path, match(right, read_items(path))[0]) for path in job.questions]
    return asked or [(cast(Path, job.references), right)], None


def _right_segments(path: Path) -> list[Item]:
    """The questions of a file that has right segments; none for another."""
    with suppress(PandaError):  # an object of answers by id
        items = read_items(path)
        return items if any(item.moments for item in items) else []
    return []


def _other(job: Job, path: Path, first: Evaluation) -> Evaluation:
    """The answers of another file to the questions of the first."""
    references = None if job.questions or first.has_moments else job.references
    items, ignored = without_repeats(read_items(path, references, are_answers=True))
    items, unknown = _matched(items, first.items, str(path), first.name)
    return evaluate(str(path), items, ignored + unknown, is_judged=job.judge is not None)


def _matched(
    items: list[Item], questions: list[Item], name: str, source: str
) -> tuple[list[Item], list[Ignored]]:
    found, unknown = match(items, questions)
    if len(unknown) == len(items):
        raise UsageError(
            f"no answer in {name} belongs to a question in {source}",
            "they are matched by video and question, or by id",
        )
    return found, unknown


def _source(path: Path) -> Path | BinaryIO:
    return sys.stdin.buffer if path == STDIN else path


def _run_judge(
    job: Job,
    settings: JudgeSettings,
    evaluations: list[Evaluation],
    progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """Judge all items; returns what the report says of the judge."""
    path = job.replies or job.answers[0].with_suffix(".judge.jsonl")
    tasks = [[tasks_of(item) for item in scored.items] for scored in evaluations]
    asked = [cases(*pair) for pair in zip(evaluations, tasks, strict=True)]
    every = list(dict.fromkeys(case for each in asked for case in each.values()))
    if not any(chain.from_iterable(tasks)):
        raise UsageError("there is nothing to judge: choices and segments need no judge")
    progress(0, len(every))
    done = count(1)
    with Replies(path) as replies:
        judge = Judge(settings, replies)
        verdicts = judge.verdicts(every, lambda: progress(next(done), len(every)))
    for scored, wanted, held in zip(evaluations, tasks, asked, strict=True):
        add_verdicts(scored, wanted, held, verdicts)
    used = {task for each in tasks for wanted in each for task in wanted}
    return {
        "model": settings.model,
        "reported": list(judge.models),
        "url": settings.shown_url,
        "prompts": settings.prompt_digest(used),
        "temperature": settings.temperature,
        "seed": settings.seed,
        "replies": str(path),
    }
