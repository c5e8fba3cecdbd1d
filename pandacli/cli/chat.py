"""`panda chat`: a conversation about a clip."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pandacli.cli import options, settings, signals
from pandacli.cli import startup as keeping
from pandacli.cli.downloads import go_offline, offer_download
from pandacli.cli.entry import STARTED
from pandacli.cli.startup import Loading, check_video, read_clip
from pandacli.errors import ClipError, PandaError, UsageError
from pandacli.terminal.console import Screen
from pandacli.terminal.keyboard import echo_off
from pandacli.terminal.report import Stopwatch
from pandacli.video.clip import Clip, local_file

if TYPE_CHECKING:
    from pandacli.chat.chat import Chat, SampledClip
    from pandacli.chat.transcript import Transcript
    from pandacli.prefix_cache.clip_cache import ClipCache
    from pandacli.video import Frames

_SETTABLE = ("temperature", "max-tokens", "seed")
_PANEL = "Conversation"

Continue = Annotated[
    bool,
    typer.Option("--continue", help="Go on with the last conversation.", rich_help_panel=_PANEL),
]
Load = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Go on with a saved one.", rich_help_panel=_PANEL),
]
NoLog = Annotated[
    bool | None,
    typer.Option("--no-log/--log", help="Keep nothing of this one.", rich_help_panel=_PANEL),
]
NoFrames = Annotated[
    bool | None,
    typer.Option(
        "--no-frames/--show-frames", help="Draw no frames.", rich_help_panel=options.OUTPUT
    ),
]


def chat(
    video: Annotated[
        str | None, typer.Argument(metavar="[VIDEO]", show_default=False, help="Any video file.")
    ] = None,
    go_on: Continue = False,
    load: Load = None,
    no_log: NoLog = None,
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
    no_frames: NoFrames = None,
    graphics: options.Graphics = None,
    stats: options.Stats = None,
    quiet: options.Quiet = None,
    debug: options.Debug = None,
) -> None:
    """Talk about a video.

    Each question sees those before it. The model loads while you type;
    /help lists what else can be typed. Where standard input, output or error
    is no terminal, each line of the input is a question, each line of the
    output its answer; a line with exit, quit or /exit ends.
    """
    earlier, log = _earlier(go_on, load)
    given = {
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
        "no-frames": no_frames,
        "graphics": graphics,
        "no-log": no_log,
        "stats": stats,
        "quiet": quiet,
        "debug": debug,
    }
    said = given if earlier is None else _as_before(given, earlier, video)
    chosen = settings.resolve(said, settings.HERE)
    video = video if video is not None or earlier is None else earlier.video
    if not video:
        raise UsageError(
            "VIDEO is missing",
            "name one, or go on with --continue; for example:",
            command="panda chat clip.mp4",
        )
    check_video("chat", video)
    screen = Screen(quiet=chosen["quiet"], graphics=chosen["graphics"])
    screen.require_stdout()
    wanted = Clip(local_file(video), chosen["from"], chosen["to"])
    if go_on and not os.path.exists(wanted.path):  # noqa: PTH110  (no name is too long for it)
        raise ClipError(
            f"the video is gone: {wanted.path}",
            "name another:",
            command="panda chat VIDEO --continue",
        )
    if chosen["offline"]:
        go_offline()
    watch = Stopwatch(STARTED)
    how_run = {name: chosen[name] for name in ("quant", "engine", "device")}
    loading = Loading(chosen["model"], **how_run)
    with echo_off():
        kept = keeping.look_up(wanted, chosen, screen)
        read = read_clip(wanted, chosen["frames"], screen, notices=False, loading=loading)
        with watch.paused():
            offer_download(chosen["model"], screen, **how_run)
        subject = _subject(wanted, kept, *read, chosen)
        _talk(subject, chosen, loading, screen, watch, earlier, log)


def _earlier(go_on: bool, load: str | None) -> "tuple[Transcript | None, Path | None]":
    """Returns the conversation to go on with, and the log that it is kept in."""
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


def _as_before(given: dict[str, Any], earlier: "Transcript", video: str | None) -> dict[str, Any]:
    """Returns the options with what an earlier conversation says where they say nothing."""
    before: dict[str, Any] = {"model": earlier.model, "system": earlier.system}
    if video is None:
        before |= {"from": earlier.start, "to": earlier.end, "frames": earlier.frames}
    # a float as a user would write it: no exponent
    known = {
        name: f"{value:f}" if isinstance(value, float) else str(value)
        for name, value in before.items()
        if value is not None
    }
    return {name: known.get(name) if value is None else value for name, value in given.items()}


def _subject(
    clip: Clip,
    kept: "ClipCache | None",
    frames: "Frames",
    seconds: float,
    chosen: dict[str, Any],
) -> "SampledClip":
    """Returns what is looked at.

    Raises:
        ModelError: The model is not on this machine, which is told before the prompt.
    """
    from pandacli.chat.chat import SampledClip
    from pandacli.checkpoints import read_image_size, resolve

    side = read_image_size(resolve(chosen["model"]).folder)
    return SampledClip(clip, frames, seconds, side, chosen["frames"], chosen["system"], kept)


def _talk(
    subject: "SampledClip",
    chosen: dict[str, Any],
    loading: Loading,
    screen: Screen,
    watch: Stopwatch,
    earlier: "Transcript | None",
    log: Path | None,
) -> None:
    from pandacli.chat.chat import Chat, Manner

    interactive = screen.is_interactive and screen.stdout_is_terminal

    if not chosen["no-log"]:
        log = log or _new_log(screen)
    talk = Chat(
        loading.end,
        chosen["model"],
        subject,
        Manner(chosen["max-tokens"], chosen["temperature"], chosen["seed"]),
        turns=earlier.turns if earlier else (),
        log=None if chosen["no-log"] else log,
        new_log=lambda: _new_log(screen),
    )
    if interactive:
        _in_terminal(talk, chosen, screen)
    else:
        from pandacli.terminal.slash_commands import answer_lines

        try:
            answer_lines(talk, screen, quant=chosen["quant"], stats=chosen["stats"], watch=watch)
        except PandaError:
            talk.remember()
            talk.remembered()
            raise
        talk.remember()
    with screen.status("caching the clip"):
        failure = talk.remembered()
    if failure:
        screen.notice(failure.message)


def _in_terminal(talk: "Chat", chosen: dict[str, Any], screen: Screen) -> None:
    from pandacli.terminal.prompt import Prompt
    from pandacli.terminal.repl import Repl, toolbar

    history = None if chosen["no-log"] else _history(screen)

    def look(clip: Clip, *, num_frames: int) -> "SampledClip":
        signals.listen()
        now = chosen | {"frames": num_frames}
        kept = keeping.look_up(clip, now, screen)
        read = read_clip(clip, num_frames, screen, notices=False)
        return _subject(clip, kept, *read, now)

    prompt = Prompt(lambda: toolbar(talk), history, _SETTABLE, failure=lambda: talk.error)
    session = Repl(
        talk,
        prompt,
        screen,
        look,
        {name: settings.reader(name) for name in (*_SETTABLE, "frames")},
        quant=chosen["quant"],
        pictures=not (chosen["no-frames"] or chosen["quiet"]),
        stats=chosen["stats"],
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
