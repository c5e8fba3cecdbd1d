"""`panda batch`: a file of questions in, a file of answers out."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from threading import Timer
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pandacli.cli import options, settings, signals
from pandacli.cli.downloads import go_offline, offer_download
from pandacli.cli.startup import Loading, load_model
from pandacli.errors import UsageError
from pandacli.terminal.console import Screen
from pandacli.terminal.keyboard import echo_off
from pandacli.terminal.report import json_text

if TYPE_CHECKING:
    from pandacli import Panda
    from pandacli.batch.job import Batch, Job
    from pandacli.terminal.batch_display import BatchDisplay

_EXAMPLE = "panda batch questions.jsonl"
_SLOW = 5.0  # seconds
_FAILURES = 1  # the exit code where some records failed


def batch(
    questions: Annotated[
        str,
        typer.Argument(
            metavar="QUESTIONS",
            show_default=False,
            help="A file of questions; - reads standard input.",
        ),
    ],
    output: options.Output = None,
    format: options.Format = None,  # noqa: A002  (the name of the option)
    output_format: options.OutputFormat = None,
    answers: options.RightAnswers = None,
    video_dir: options.VideoDir = None,
    batch_size: options.BatchSize = None,
    fail_fast: options.FailFast = None,
    shard: options.Shard = None,
    workers: options.Workers = None,
    address: options.Address = None,
    start: options.From = None,
    end: options.To = None,
    frames: options.Frames = None,
    model: options.Model = None,
    quant: options.Quant = None,
    engine: options.BatchEngine = None,
    device: options.Device = None,
    system: options.System = None,
    max_tokens: options.MaxTokens = None,
    temperature: options.Temperature = None,
    seed: options.Seed = None,
    offline: options.Offline = None,
    json: options.JsonLines = None,
    stats: options.StageStats = None,
    quiet: options.Quiet = None,
    debug: options.Debug = None,
) -> None:
    """Answer a file of questions.

    A line is a JSON object with "video" and "question", and if you like "id",
    "from", "to", "system" and "max_tokens"; whatever else it has comes back
    beside the "answer". CSV, MSVD-QA and its kin, the Video-ChatGPT benchmarks
    and OpenAI batch requests are read as they are. Each clip is looked at once,
    however its questions are scattered.

    A run that was stopped, by whatever, goes on where it was when the same
    command is given again. The exit code is 1 if there were questions that
    could not be answered.
    """
    chosen = settings.resolve(
        {
            "format": format,
            "output-format": output_format,
            "video-dir": video_dir,
            "batch-size": batch_size,
            "fail-fast": fail_fast,
            "shard": shard,
            "workers": workers,
            "address": address,
            "from": start,
            "to": end,
            "frames": frames,
            "model": model,
            "quant": quant,
            "engine": engine,
            "device": device,
            "system": system,
            "max-tokens": max_tokens,
            "temperature": temperature,
            "seed": seed,
            "offline": offline,
            "json": json,
            "stats": stats,
            "quiet": quiet,
            "debug": debug,
        }
    )
    if not questions:
        raise UsageError("QUESTIONS is empty", "for example:", command=_EXAMPLE)
    screen = Screen(quiet=chosen["quiet"])
    if output == "-" or (output is None and questions == "-") or chosen["json"]:
        screen.require_stdout()
    if chosen["offline"]:
        go_offline()
    job = _job(questions, output, answers, chosen)
    how_run = {name: getattr(job.settings, name) for name in ("quant", "engine", "device")}
    from pandacli.batch.job import Batch
    from pandacli.terminal.batch_display import BatchDisplay

    if questions == "-" and screen.is_interactive:
        screen.notice("type the questions, a JSON object a line; end with Ctrl-D")
    confirm = screen.confirm if screen.is_interactive else lambda _: False
    name = "the questions" if questions == "-" else questions
    with (
        _told_if_slow(screen, f"reading {name}") as told,
        Batch(job, confirm) as opened,
        nullcontext() if questions == "-" else echo_off(),
    ):
        offer_download(job.settings.model, screen, **how_run)
        with screen.status("preparing") as say:
            run = opened.plan(say)
        told()
        for sentence in opened.notices:
            screen.notice(sentence)
        counters = run.counters
        if not counters.records:
            source = "standard input" if questions == "-" else questions
            where = "this shard" if job.shard[1] > 1 else source
            screen.notice(f"there are no questions in {where}")
        elif not counters.left:
            where = f", in {opened.output}" if opened.output else ""
            count = counters.records
            all_of_them = "the only question is" if count == 1 else f"all {count:,} are"
            screen.notice(f"{all_of_them} answered already{where}")
        if not counters.left:
            for sentence in opened.finish(screen.write):
                screen.notice(sentence)
            return
        display = BatchDisplay(
            screen,
            run.counters,
            stats=chosen["stats"],
            answers=str(opened.output) if opened.output else None,
            lines_to_stdout=chosen["json"] or not opened.output,
        )

        def load() -> "Panda":
            settled = opened.settings
            how = {name: getattr(settled, name) for name in how_run}
            return load_model(
                Loading(settled.model, **how), screen, display.doing, asked=job.settings.quant
            )

        with echo_off(), _stopping(opened, display), display:
            for outcome in run.outcomes(load, display.doing):
                display.update(outcome)
                if chosen["json"] and opened.output:
                    screen.line(json_text(outcome.written))
        for sentence in opened.finish(screen.write):
            screen.notice(sentence)
        _close(opened, display)


def _job(questions: str, output: str | None, answers: str | None, chosen: dict[str, Any]) -> "Job":
    from pandacli.batch.clip_worker import Settings
    from pandacli.batch.job import Job
    from pandacli.inference.spec import RAY

    ray = chosen["engine"] == RAY
    for name in ("address", "workers"):
        if chosen[name] is not None and not ray:
            raise UsageError(f"--{name} is for a cluster", "give --engine ray as well")
    return Job(
        questions,
        Settings(
            model=chosen["model"],
            quant=chosen["quant"],
            engine="auto" if ray else chosen["engine"],
            device=chosen["device"],
            frames=chosen["frames"],
            start=chosen["from"],
            end=chosen["to"],
            system=chosen["system"],
            max_tokens=chosen["max-tokens"],
            temperature=chosen["temperature"],
            seed=chosen["seed"],
            batch_size=chosen["batch-size"],
        ),
        output=output,
        format=chosen["format"],
        output_format=chosen["output-format"],
        right_answers=Path(answers) if answers else None,
        video_dir=Path(chosen["video-dir"]) if chosen["video-dir"] else None,
        shard=chosen["shard"],
        ray=ray,
        address=chosen["address"],
        workers=chosen["workers"],
        fail_fast=chosen["fail-fast"],
    )


@contextmanager
def _told_if_slow(screen: Screen, doing: str) -> Iterator[Callable[[], None]]:
    """Say in a line what is done, where that takes long and no spinner shows it.

    Yields what is called when it is done.
    """
    timer = Timer(_SLOW, screen.notice, [doing])
    timer.daemon = True
    if not sys.stderr.isatty():
        timer.start()
    try:
        yield timer.cancel
    finally:
        timer.cancel()


@contextmanager
def _stopping(opened: "Batch", display: "BatchDisplay") -> Iterator[None]:
    """The first Ctrl-C lets the answers in flight become whole, if there are any."""
    run = opened.run

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signals.interrupt)
        run.stopped.set()
        if not run.in_flight:
            signals.interrupt(number, frame)
        signals.survive()
        display.stopping()

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, stop)
    signals.be_patient(lambda: bool(run.in_flight) and not run.stopped.is_set())
    try:
        yield
    except KeyboardInterrupt:
        _tell_how_to_go_on(opened, display)
        raise
    finally:
        signals.be_patient(lambda: False)
        signal.signal(signal.SIGINT, before)


def _close(opened: "Batch", display: "BatchDisplay") -> None:
    """Says what the run came to, and ends with the exit code that it deserves.

    Raises:
        KeyboardInterrupt: The user has stopped it.
        typer.Exit: Some records have failed.
    """
    run = opened.run
    display.summary()
    if run.stopped.is_set() and not run.failed_fast:
        _tell_how_to_go_on(opened, display)
        raise KeyboardInterrupt
    if run.counters.failed:
        raise typer.Exit(_FAILURES)


def _tell_how_to_go_on(opened: "Batch", display: "BatchDisplay") -> None:
    if opened.journal:
        display.resume_hint(["panda", *sys.argv[1:]])
