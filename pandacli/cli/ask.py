"""`panda ask`: questions in, answers out, from one load and one look at the clip."""

import sys
from contextlib import closing, nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pandacli.cli import options, settings
from pandacli.cli import startup as keeping
from pandacli.cli.downloads import go_offline, offer_download
from pandacli.cli.entry import STARTED
from pandacli.cli.startup import (
    EXAMPLE,
    Loading,
    check_questions,
    check_video,
    load_model,
    read_clip,
)
from pandacli.errors import UsageError
from pandacli.terminal.console import Screen
from pandacli.terminal.keyboard import echo_off
from pandacli.terminal.report import Stopwatch, sparse_sampling_notice, truncation_notice
from pandacli.video.clip import Clip, local_file

if TYPE_CHECKING:
    from pandacli.inference import Answer, VideoSession
    from pandacli.video import Frames

_LONGEST_QUESTION = 100_000  # characters; more than any model here can read


def ask(
    video: Annotated[
        str, typer.Argument(metavar="VIDEO", show_default=False, help="Any video file.")
    ],
    questions: Annotated[
        list[str],
        typer.Argument(
            metavar="QUESTION...",
            show_default=False,
            help="One or more; - reads one from standard input.",
        ),
    ],
    start: options.From = None,
    end: options.To = None,
    frames: options.Frames = None,
    model: options.Model = None,
    quant: options.Quant = None,
    engine: options.Engine = None,
    device: options.Device = None,
    system: options.System = None,
    max_tokens: options.MaxTokens = None,
    temperature: options.Temperature = None,
    seed: options.Seed = None,
    offline: options.Offline = None,
    cache_size: options.CacheSize = None,
    full_hash: options.FullHash = None,
    json: options.Json = None,
    stats: options.Stats = None,
    quiet: options.Quiet = None,
    debug: options.Debug = None,
) -> None:
    """Ask one or more questions about a video.

    The answer streams to standard output, everything else goes to standard
    error. Each question is asked on its own. The answers to several questions
    take one line each when the output is not a terminal (line breaks in them
    become spaces); --json keeps them as they are.
    """
    chosen = settings.resolve(
        {
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
            "cache-size": cache_size,
            "full-hash": full_hash,
            "json": json,
            "stats": stats,
            "quiet": quiet,
            "debug": debug,
        },
        settings.HERE,
    )
    check_video("ask", video, questions)
    check_questions(video, questions)
    screen = Screen(quiet=chosen["quiet"])
    screen.require_stdout()
    watch = Stopwatch(STARTED)
    with watch.paused():
        asked = _read_questions(questions, screen)
    wanted = Clip(local_file(video), chosen["from"], chosen["to"])
    if chosen["offline"]:
        go_offline()
    how_run = {name: chosen[name] for name in ("quant", "engine", "device")}
    loading = Loading(chosen["model"], **how_run)
    with echo_off():
        with watch.measure("frames"):
            kept = keeping.look_up(wanted, chosen, screen)
            sampled, seconds = None, 0.0
            if kept is None or kept.is_empty:
                sampled, seconds = read_clip(wanted, chosen["frames"], screen, loading=loading)
        with watch.paused():
            offer_download(chosen["model"], screen, **how_run)
        with watch.measure("model"):
            panda = load_model(loading, screen)
        with screen.status("reading frames"), watch.measure("frames"):
            clip = panda.open(
                sampled or wanted,
                num_frames=chosen["frames"],
                system=chosen["system"],
                frames_seconds=seconds,
                cache=kept or False,
            )
        for sentence in () if sampled else clip.frames.notices:
            screen.notice(sentence)
        if sparse := sparse_sampling_notice(clip.frames, "--from and --to look closer"):
            screen.notice(sparse)
        with keeping.kept_afterwards(clip, screen) if kept else nullcontext():
            if chosen["json"]:
                _answer_in_json(asked, clip, video, panda.name, chosen, screen, watch)
            else:
                _answer(asked, clip, chosen, screen, watch)


def _answer(
    asked: list[str],
    clip: "VideoSession",
    chosen: dict[str, Any],
    screen: Screen,
    watch: Stopwatch,
) -> None:
    for question in asked:
        if len(asked) > 1:
            screen.heading(question)
        watch.start_answer()
        with closing(clip.stream(question, **_how(chosen))) as pieces:
            screen.stream(pieces, one_line=len(asked) > 1 and not screen.stdout_is_terminal)
        _report(pieces.answer, clip.frames, chosen, screen, watch)
        watch.end_answer()


def _answer_in_json(
    asked: list[str],
    clip: "VideoSession",
    video: str,
    model: str,
    chosen: dict[str, Any],
    screen: Screen,
    watch: Stopwatch,
) -> None:
    watch.start_answer()
    with screen.status("thinking"):
        answers = [clip.ask(question, **_how(chosen)) for question in asked]
    screen.json(video, model, clip.frames, answers)
    for answer in answers:
        _report(answer, clip.frames, chosen, screen, watch)
        watch.end_answer()


def _how(chosen: dict[str, Any]) -> dict[str, Any]:
    """Returns how to answer, as `VideoSession.ask` takes it."""
    return {name: chosen[name.replace("_", "-")] for name in ("max_tokens", "temperature", "seed")}


def _report(
    answer: "Answer", frames: "Frames", chosen: dict[str, Any], screen: Screen, watch: Stopwatch
) -> None:
    """Says on stderr what there is to know about an answer beside its words."""
    if sentence := truncation_notice(answer, chosen["max-tokens"], "raise --max-tokens"):
        screen.notice(sentence)
    if chosen["stats"]:
        screen.stats(answer.stats, frames, watch)


def _read_questions(arguments: list[str], screen: Screen) -> list[str]:
    """Returns the questions, with `-` replaced by what standard input holds.

    Raises:
        UsageError: A question is empty, `-` comes twice, or standard input is not text.
    """
    if arguments.count("-") > 1:
        raise UsageError("standard input (-) can be read for one question only")
    questions = [_read_stdin(screen) if word == "-" else word for word in arguments]
    for question in questions:
        if not question.strip():
            raise UsageError("the question is empty", "for example:", command=EXAMPLE)
        if any("\ud800" <= character <= "\udfff" for character in question):
            raise UsageError(f"the question is not UTF-8 text: {question}")
    return questions


def _read_stdin(screen: Screen) -> str:
    if sys.stdin is None:
        raise UsageError("standard input is closed")
    if sys.stdin.isatty():
        screen.notice("type the question, end with Ctrl-D")
    most = 4 * _LONGEST_QUESTION  # bytes; no character takes more than four
    held = sys.stdin.buffer.read(most + 1)
    try:
        text = held.decode() if len(held) <= most else None
    except UnicodeDecodeError as error:
        raise UsageError("the question on standard input is not UTF-8 text") from error
    if text is None or len(text) > _LONGEST_QUESTION:
        raise UsageError(f"the question on standard input has over {_LONGEST_QUESTION} characters")
    return text.strip()
