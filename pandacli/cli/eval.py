"""`panda eval`: score files of answers."""

from json import dumps
from pathlib import Path
from typing import Annotated

import typer

from pandacli.cli import options
from pandacli.errors import UsageError
from pandacli.terminal.console import Screen

_NOT_JUDGED = 1  # the exit code


def eval(  # noqa: A001  (the name of the command)
    answers: Annotated[list[str], options.argument("ANSWERS...", "Files of answers, of any tool.")],
    questions: options.AllQuestions = None,
    references: options.References = None,
    benchmark: options.Benchmark = None,
    compare: options.Compare = None,
    blind: options.Blind = None,
    judge: options.Judge = None,
    judge_url: options.JudgeUrl = None,
    judge_prompt: options.JudgePrompt = None,
    judge_jobs: options.JudgeJobs = 8,
    judge_replies: options.JudgeReplies = None,
    judge_temperature: options.JudgeTemperature = 0.0,
    judge_seed: options.JudgeSeed = None,
    report: options.Report = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    _debug: options.Debug = False,
) -> None:
    """Score files of answers.

    Answers and right answers are read in every layout that panda batch reads
    or writes. Without a judge: exact match, token F1 and "contained" for open
    questions, accuracy, Brier score and calibration for choices. With --judge
    a model grades each answer as in Video-ChatGPT's protocol; its replies are
    kept, so the same command resumes. A question without an answer counts as
    wrong. Intervals are 95 %, by bootstrap over videos.
    """
    screen = Screen(quiet=quiet)
    screen.require_stdout()
    settings = None
    if judge is not None:
        from pandacli.evaluation.judge import JudgeSettings, load_prompts

        prompts = load_prompts(Path(judge_prompt) if judge_prompt else None)
        settings = JudgeSettings(
            judge, judge_url, None, judge_jobs, judge_temperature, judge_seed, prompts
        )
    elif judge_url is not None or judge_prompt is not None:
        raise UsageError("no judge is named", "name its model with --judge")
    from pandacli.evaluation.report import write_report
    from pandacli.evaluation.scoring import Job, run

    job = Job(
        tuple(map(Path, answers)),
        tuple(map(Path, questions or ())),
        references=Path(references) if references else None,
        benchmark=benchmark,
        against=Path(compare) if compare else None,
        blind=Path(blind) if blind else None,
        judge=settings,
        replies=Path(judge_replies) if judge_replies else None,
    )
    with screen.status("scoring") as say:
        results = run(job, lambda done, cases: say(f"judging: {done:,} of {cases:,}"))
    if report is not None:
        write_report(Path(report), results, dumps(results, indent=2))
    if json:
        screen.json(results)
    else:
        from pandacli.terminal.evaluation import print_results

        print_results(results, screen)
    if report is not None:
        screen.notice(f"wrote {report}: report.md, results.json and plot.png")
    if any(scored["not_judged"] for scored in results["files"]):
        raise typer.Exit(_NOT_JUDGED)
