"""`panda eval`: score files of answers."""

from json import dumps
from pathlib import Path
from typing import Annotated

import typer

from pandacli.cli import options, signals
from pandacli.errors import UsageError
from pandacli.terminal.console import Screen

_INCOMPLETE = 1  # the exit code where a question has no answer or no verdict


def eval(  # noqa: A001  (the name of the command)
    answers: Annotated[list[str], options.argument("ANSWERS...", "Files of answers, of any tool.")],
    join: options.Join = False,
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
    questions, accuracy, Brier score and calibration for choices, R1 and mean
    IoU for segments of time (Charades-STA, QVHighlights). With --judge
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
            judge, judge_url, judge_jobs, judge_temperature, judge_seed, prompts
        )
    elif judge_url is not None or judge_prompt is not None or judge_replies is not None:
        raise UsageError("no judge is named", "name its model with --judge")
    from pandacli.evaluation.job import Job, run
    from pandacli.evaluation.report import check_report, write_report

    job = Job(
        tuple(map(Path, answers)),
        questions=tuple(map(Path, questions or ())),
        references=Path(references) if references else None,
        benchmark=benchmark,
        against=Path(compare) if compare else None,
        blind=Path(blind) if blind else None,
        judge=settings,
        replies=Path(judge_replies) if judge_replies else None,
        join=join,
    )
    job.check()
    if report is not None:
        check_report(Path(report))
    try:
        with screen.status("scoring") as say:

            def progress(done: int, cases: int) -> None:
                say(f"judging: {done:,} of {cases:,}")
                if not done and not screen.animates:
                    screen.notice(f"judging {cases:,} answers")

            # requests in flight may take longer to end than the program has after Ctrl-C
            with signals.interrupts_do_not_end():
                results = run(job, progress)
    except KeyboardInterrupt:
        if judge is not None:
            screen.notice("the replies of the judge are kept: the same command resumes")
        raise
    if report is not None:
        write_report(Path(report), results, dumps(results, indent=2))
    if json:
        screen.json(results)
    else:
        from pandacli.terminal.evaluation import print_results

        print_results(results, screen)
    if report is not None:
        screen.notice(f"wrote {report}: report.md, results.json and plot.png")
    scored = [*results["files"], results["comparison"], results["blind"]]
    if any(each["unanswered"] or each["not_judged"] for each in scored if each):
        raise typer.Exit(_INCOMPLETE)
