"""`panda batch`: answer a file of questions."""

import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from threading import Timer
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from pandacli.cli import options, signals
from pandacli.cli.startup import Loading, go_offline, load_model, offer_download
from pandacli.errors import UsageError
from pandacli.terminal.console import Screen, echo_off
from pandacli.terminal.text import sanitize_line

if TYPE_CHECKING:
    from pandacli import Panda
    from pandacli.batch.job import Batch, Job
    from pandacli.terminal.batch_display import BatchDisplay

_QUESTIONS = "A file of questions; - reads standard input."
_SLOW = 5.0  # seconds


def batch(
    questions: Annotated[str, options.argument("QUESTIONS", _QUESTIONS)],
    output: options.Output = None,
    format: options.Format = "auto",  # noqa: A002  (the name of the option)
    output_format: options.OutputFormat = None,
    answers: options.RightAnswers = None,
    video_dir: options.VideoDir = None,
    check: options.Check = False,
    batch_size: options.BatchSize = None,
    choose: options.Choose = "likelihood",
    threshold: options.Threshold = 0.9,
    window: options.Window = 2.0,
    stride: options.Stride = None,
    precision: options.Precision = 0.5,
    blind: options.BlindRun = False,
    mirror: options.Mirror = False,
    fail_fast: options.FailFast = False,
    shard: options.Shard = (1, 1),
    workers: options.Workers = None,
    address: options.Address = None,
    *,
    how: options.BatchAnswering,
    json: options.JsonLines = False,
    logprobs: options.Logprobs = False,
    stats: options.StageStats = False,
    quiet: options.Quiet = False,
    _debug: options.Debug = False,
) -> None:
    """Answer a file of questions.

    A line is a JSON object with "video" and "question", and optionally "id",
    "from", "to", "system" and "max_tokens"; other fields are copied beside the
    "answer". "every" cuts a long film into windows, "at" names times to look
    at, and "when" asks for segments, which the options of the search are for.
    CSV, MSVD-QA and similar files, the Video-ChatGPT benchmarks, Charades-STA,
    QVHighlights and OpenAI batch requests are read as they are. Each clip is
    looked at once, in whatever order its questions come.

    The same command given again resumes a run that was stopped. The exit code
    is 1 if questions could not be answered.
    """
    if not questions:
        example = "panda batch questions.jsonl"
        raise UsageError("QUESTIONS is empty", "for example:", command=example)
    screen = Screen(quiet=quiet)
    if output == "-" or (output is None and questions == "-") or json or check:
        screen.require_stdout()
    if how.offline:
        go_offline()
    from pandacli.batch.clip_worker import Settings
    from pandacli.batch.job import Batch, Job
    from pandacli.inference.spec import RAY
    from pandacli.timeline.segments import SegmentOptions

    if blind and mirror:
        raise UsageError("--mirror changes nothing with --blind", "leave one of them out")
    ray = how.engine == RAY
    for name, value in (("address", address), ("workers", workers)):
        if value is not None and not ray:
            raise UsageError(f"--{name} is for a cluster", "give --engine ray as well")
    if ray and how.server not in ("auto", "none"):
        raise UsageError("--server and --engine ray are two places to answer", "choose one")
    if ray:
        how = replace(how, engine="auto", server="none")  # of each worker
    settings = Settings(
        how.spec(),
        replace(how.generation(), logprobs=logprobs),
        frames=how.frames,
        start=how.start,
        end=how.end,
        system=how.system,
        batch_size=batch_size,
        choose=choose,
        search=SegmentOptions(window, stride, threshold, precision),
        view="blind" if blind else "mirror" if mirror else None,
    )
    job = Job(
        questions,
        settings,
        output=output,
        format=format,
        output_format=output_format,
        right_answers=Path(answers) if answers else None,
        video_dir=Path(video_dir) if video_dir else None,
        shard=shard,
        ray=ray,
        address=address,
        workers=workers,
        fail_fast=fail_fast,
    )
    source = "standard input" if questions == "-" else questions
    if questions == "-" and screen.is_interactive:
        screen.notice("type the questions, a JSON object a line; end with Ctrl-D")
    if check:
        _check(job, screen, json=json)
        return
    confirm = screen.confirm if screen.is_interactive else lambda _: False
    with (
        _notice_if_slow(screen, f"reading {source}") as slow,
        Batch(job, confirm) as opened,
        nullcontext() if questions == "-" else echo_off(),
    ):
        loading = Loading(settings.spec, server=how.server)
        offer_download(loading, screen)
        with screen.status("preparing") as say:
            served = loading.served
            run = opened.plan_served(served, say) if served else opened.plan(say)
        slow.cancel()
        for sentence in opened.notices:
            screen.notice(sentence)
        if not run.counters.left:
            screen.notice(_nothing_left(opened))
            for sentence in opened.finish(screen.write):
                screen.notice(sentence)
            return
        from pandacli.terminal.batch_display import BatchDisplay

        display = BatchDisplay(
            screen,
            run.counters,
            stats=stats,
            answers=str(opened.output) if opened.output else None,
            lines_to_stdout=json or not opened.output,
        )

        def load() -> "Panda":
            planned = loading if served else Loading(settings.spec, opened.run_plan)
            return load_model(planned, screen, display.set_step)

        with echo_off(), _finish_answers_on_interrupt(opened, display), display:
            for outcome in run.outcomes(load, display.set_step):
                display.update(outcome)
                if json and opened.output:
                    screen.json(outcome.written, one_line=True)
        for sentence in opened.finish(screen.write):
            screen.notice(sentence)
        display.summary()
        if run.stopped.is_set() and not run.failed_fast:
            _print_resume_command(opened, display)
            raise KeyboardInterrupt
        if run.counters.failed:
            raise typer.Exit(1)


def _check(job: "Job", screen: Screen, *, json: bool) -> None:
    """Print each problem on stdout, in a line of its own; exit with 1 if there is one."""
    from pandacli.batch.check import Check
    from pandacli.terminal.batch_display import CheckDisplay

    with ExitStack() as opened:
        reading = "reading the questions"
        with (
            _notice_if_slow(screen, reading),
            nullcontext() if job.piped else screen.status(reading),
        ):
            check = opened.enter_context(Check(job))
        if not check.counts.questions:
            screen.notice(_no_questions(job))
            return
        opened.enter_context(nullcontext() if job.piped else echo_off())
        with CheckDisplay(screen, check.counts) as display:
            for problem in check.problems():
                with display.paused():
                    if json:
                        screen.json(problem.record, one_line=True)
                    else:
                        screen.line(sanitize_line(problem.sentence))
                if job.fail_fast:
                    raise typer.Exit(1)
    for sentence in check.notices:
        screen.notice(sentence)
    screen.notice(check.counts.summary)
    if check.counts.unanswerable:
        raise typer.Exit(1)


def _no_questions(job: "Job") -> str:
    source = "standard input" if job.piped else job.questions
    return f"there are no questions in {'this shard' if job.shard[1] > 1 else source}"


def _nothing_left(opened: "Batch") -> str:
    """Say why there is no question to answer."""
    count = opened.run.counters.records
    if not count:
        return _no_questions(opened.job)
    where = f", in {opened.output}" if opened.output else ""
    return (
        f"{'the only question is' if count == 1 else f'all {count:,} are'} answered already{where}"
    )


@contextmanager
def _notice_if_slow(screen: Screen, doing: str) -> Iterator[Timer]:
    """Print a line when the block takes long and no spinner shows it; yields the timer."""
    timer = Timer(_SLOW, screen.notice, [doing])
    timer.daemon = True
    if not sys.stderr.isatty():
        timer.start()
    try:
        yield timer
    finally:
        timer.cancel()


@contextmanager
def _finish_answers_on_interrupt(opened: "Batch", display: "BatchDisplay") -> Iterator[None]:
    """On the first Ctrl-C, finish the answers in flight, if there are any, and stop then."""
    run = opened.run

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signals.interrupt)
        run.stopped.set()
        if not run.in_flight():
            signals.interrupt(number, frame)
        signals.survive()
        display.set_stopping()

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, stop)
    signals.be_patient(lambda: run.in_flight() > 0 and not run.stopped.is_set())
    try:
        yield
    except KeyboardInterrupt:
        _print_resume_command(opened, display)
        raise
    finally:
        signals.be_patient(lambda: False)
        signal.signal(signal.SIGINT, before)


def _print_resume_command(opened: "Batch", display: "BatchDisplay") -> None:
    if opened.results_path:
        display.resume_hint(["panda", *sys.argv[1:]])
