"""`panda chat`: a conversation about a clip."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pandacli.cli import config, options, signals
from pandacli.cli.entry import STARTED
from pandacli.cli.startup import (
    Loading,
    cached_prefixes,
    check_video,
    go_offline,
    offer_download,
    read_clip,
)
from pandacli.errors import ClipError, PandaError, UsageError
from pandacli.terminal.console import Screen, echo_off
from pandacli.terminal.report import Stopwatch
from pandacli.video.clip import Clip, local_file

if TYPE_CHECKING:
    from pandacli.chat.chat import Chat, SampledClip
    from pandacli.chat.transcript import Transcript

_SETTABLE = ("temperature", "max-tokens", "seed")


def chat(
    context: typer.Context,
    video: Annotated[
        str | None, typer.Argument(metavar="[VIDEO]", show_default=False, help="Any video file.")
    ] = None,
    go_on: options.Continue = False,
    load: options.Load = None,
    no_log: options.NoLog = False,
    start: options.From = None,
    end: options.To = None,
    frames: options.Frames = 8,
    model: options.Model = options.MODEL,
    quant: options.Quant = "auto",
    engine: options.Engine = "auto",
    device: options.Device = "auto",
    system: options.System = None,
    max_tokens: options.MaxTokens = 1024,
    temperature: options.Temperature = 0.0,
    seed: options.Seed = None,
    offline: options.Offline = False,
    cache_size: options.CacheSize = options.CACHE_SIZE,
    full_hash: options.FullHash = False,
    no_frames: options.NoFrames = False,
    graphics: options.Graphics = "auto",
    stats: options.Stats = False,
    quiet: options.Quiet = False,
    _debug: options.Debug = False,
) -> None:
    """Talk about a video.

    Each question sees those before it. The model loads while you type;
    /help lists what else can be typed. Where standard input, output or error
    is no terminal, each line of the input is a question, each line of the
    output its answer; a line with exit, quit or /exit ends.
    """
    from pandacli.chat.chat import Chat, SampledClip
    from pandacli.checkpoints import read_image_size
    from pandacli.inference.spec import GenerationOptions, RunSpec

    earlier, log = _earlier(go_on, load)
    if earlier is not None:
        before = _earlier_options(context, earlier, video)
        model, system = before.get("model", model), before.get("system", system)
        start, end = before.get("start", start), before.get("end", end)
        frames = before.get("frames", frames)
        video = earlier.video if video is None else video
    if not video:
        raise UsageError(
            "VIDEO is missing",
            "name one, or go on with --continue; for example:",
            command="panda chat clip.mp4",
        )
    check_video("chat", video)
    screen = Screen(quiet=quiet, graphics=graphics)
    screen.require_stdout()
    wanted = Clip(local_file(video), start, end)
    if go_on and not os.path.exists(wanted.path):  # noqa: PTH110  (pathlib raises for a long name)
        raise ClipError(
            f"the video is gone: {wanted.path}",
            "name another:",
            command="panda chat VIDEO --continue",
        )
    if offline:
        go_offline()
    watch = Stopwatch(STARTED)
    loading = Loading(RunSpec(model, quant, engine, device))

    def sample_clip(clip: Clip, *, num_frames: int, ahead: Loading | None = None) -> SampledClip:
        prefixes = cached_prefixes(clip, num_frames, cache_size, full_hash, screen)
        read, seconds = read_clip(clip, num_frames, screen, notices=False, loading=ahead)
        if ahead is not None:
            with watch.paused():
                offer_download(ahead, screen)
        # here, so that a missing model is an error before the prompt
        side = read_image_size(loading.resolve().folder)
        return SampledClip(clip, read, seconds, side, num_frames, system, prefixes)

    with echo_off():
        first = sample_clip(wanted, num_frames=frames, ahead=loading)
        if not no_log:
            log = log or _new_log(screen)
        chat = Chat(
            loading.end,
            model,
            first,
            GenerationOptions(max_tokens, temperature, seed),
            turns=earlier.turns if earlier else (),
            log=None if no_log else log,
            new_log=lambda: _new_log(screen),
        )
        if screen.is_interactive and screen.stdout_is_terminal:
            pictures = not (no_frames or quiet)
            _in_terminal(
                chat,
                sample_clip,
                screen,
                log=not no_log,
                quant=quant,
                pictures=pictures,
                stats=stats,
            )
        else:
            from pandacli.terminal.repl import answer_lines

            try:
                answer_lines(chat, screen, quant=quant, stats=stats, watch=watch)
            except PandaError:
                chat.start_saving_prefix()
                chat.finish_saving_prefix()
                raise
            chat.start_saving_prefix()
        with screen.status("caching the clip"):
            failure = chat.finish_saving_prefix()
        if failure:
            screen.notice(failure.message)


def _earlier(go_on: bool, load: str | None) -> "tuple[Transcript | None, Path | None]":
    """Return the conversation to continue, and its log."""
    if go_on and load is not None:
        raise UsageError("--continue and --load are two conversations", "choose one of them")
    if not go_on and load is None:
        return None, None
    from pandacli.chat.transcript import last_conversation, read_transcript

    if load is not None:
        return read_transcript(Path(load)), None
    log = last_conversation()
    if log is None:
        raise UsageError(
            "there is no conversation to continue", "begin one:", command="panda chat clip.mp4"
        )
    try:
        return read_transcript(log), log
    except ClipError as error:
        raise ClipError(
            f"the last conversation cannot be read: {error.message}",
            "begin another:",
            command="panda chat clip.mp4",
        ) from error


def _earlier_options(
    context: typer.Context, earlier: "Transcript", video: str | None
) -> dict[str, Any]:
    """Return the parameters that an earlier conversation sets and the command line does not."""
    before: dict[str, Any] = {"model": earlier.model, "system": earlier.system}
    if video is None:
        before |= {"start": earlier.start, "end": earlier.end, "frames": earlier.frames}
        options.reader("frames")(str(earlier.frames))
    return {
        name: value
        for name, value in before.items()
        if value is not None and not config.from_command_line(context, name)
    }


def _in_terminal(
    chat: "Chat",
    sample_clip: "Callable[..., SampledClip]",
    screen: Screen,
    *,
    log: bool,
    quant: str,
    pictures: bool,
    stats: bool,
) -> None:
    from pandacli.terminal.prompt import Prompt
    from pandacli.terminal.repl import Repl, toolbar

    def sample(clip: Clip, *, num_frames: int) -> "SampledClip":
        signals.listen()
        return sample_clip(clip, num_frames=num_frames)

    history = _history(screen) if log else None
    prompt = Prompt(lambda: toolbar(chat), history, failure=lambda: chat.error)
    session = Repl(
        chat,
        prompt,
        screen,
        sample,
        {name: options.reader(name) for name in (*_SETTABLE, "frames")},
        quant=quant,
        pictures=pictures,
        stats=stats,
    )
    with signals.interrupts_do_not_end():
        session.run()


def _new_log(screen: Screen) -> Path | None:
    from pandacli.chat.transcript import new_conversation

    try:
        return new_conversation()
    except OSError as error:
        screen.notice(f"the conversation is not kept: {error.filename}: {error.strerror}")
        return None


def _history(screen: Screen) -> Path | None:
    from pandacli.chat.transcript import state_folder

    try:
        return state_folder() / "questions"
    except OSError as error:
        screen.notice(f"questions are not kept: {error.filename}: {error.strerror}")
        return None
