"""`panda chat`: a conversation about a clip."""

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pandacli.cli import config, options, signals, startup
from pandacli.cli.entry import STARTED
from pandacli.errors import ClipError, PandaError, UsageError
from pandacli.terminal.console import Screen, echo_off
from pandacli.terminal.report import Stopwatch
from pandacli.video.clip import Clip

if TYPE_CHECKING:
    from pandacli.chat.transcript import Transcript

_SETTABLE = ("temperature", "max-tokens", "seed", "frames")  # in the chat
_EXAMPLE = "panda chat clip.mp4"


def chat(
    context: typer.Context,
    video: Annotated[str | None, options.argument("[VIDEO]", "Any video file.")] = None,
    go_on: options.Continue = False,
    load: options.Load = None,
    no_log: options.NoLog = False,
    *,
    how: options.Answering,
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
    from pandacli.chat.transcript import new_conversation, state_folder

    earlier, log = _earlier(go_on, load)
    if earlier is not None:
        how = replace(how, **_earlier_options(context, earlier, video))
        video = earlier.video if video is None else video
    if not video:
        hint = "name one, or go on with --continue; for example:"
        raise UsageError("VIDEO is missing", hint, command=_EXAMPLE)
    startup.check_video("chat", video)
    screen = Screen(quiet=quiet, graphics=graphics)
    screen.require_stdout()
    wanted = how.clip(video)
    if go_on and not os.path.exists(wanted.path):  # noqa: PTH110  (pathlib raises for a long name)
        gone = f"the video is gone: {wanted.path}"
        raise ClipError(gone, "name another:", command="panda chat VIDEO --continue")
    if how.offline:
        startup.go_offline()
    watch = Stopwatch(STARTED)
    loading = startup.Loading(how.spec(), server=startup.server_of(context, how.server))

    def sample_clip(
        clip: Clip, *, num_frames: int, ahead: startup.Loading | None = None
    ) -> SampledClip:
        signals.listen()  # again: the event loop of a prompt took the signals over
        how_cached = cache_size, full_hash, screen, loading
        prefixes = startup.cached_prefixes(clip, num_frames, *how_cached)
        read, seconds = startup.read_clip(clip, num_frames, screen, notices=False, loading=ahead)
        if ahead is not None:
            with watch.paused():
                startup.offer_download(ahead, screen)
        # here, so that a missing model is an error before the prompt
        side = startup.image_size(loading)
        return SampledClip(clip, read, seconds, side, num_frames, how.system, prefixes)

    new_log = partial(_unless_unwritable, new_conversation, "the conversation is", screen)
    with echo_off():
        first = sample_clip(wanted, num_frames=how.frames, ahead=loading)
        chat = Chat(
            loading.end,
            how.model,
            first,
            how.generation(),
            turns=earlier.turns if earlier else (),
            log=None if no_log else log or new_log(),
            new_log=new_log,
        )
        if screen.is_interactive and screen.stdout_is_terminal:
            from pandacli.terminal.prompt import Prompt
            from pandacli.terminal.repl import Repl, toolbar

            kept = None if no_log else _unless_unwritable(state_folder, "questions are", screen)
            history = kept / "questions" if kept else None
            repl = Repl(
                chat,
                Prompt(lambda: toolbar(chat), history, failure=lambda: chat.error),
                screen,
                sample_clip,
                {name: config.reader(name) for name in _SETTABLE},
                quant=how.quant,
                pictures=not (no_frames or quiet),
                stats=stats,
            )
            with signals.interrupts_do_not_end():
                repl.run()
        else:
            from pandacli.terminal.piped_chat import PipedChat

            pipe = PipedChat(chat, screen, sample_clip, quant=how.quant, stats=stats, watch=watch)
            signals.be_patient(lambda: pipe.listing)
            try:
                pipe.run()
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
        raise UsageError("there is no conversation to continue", "begin one:", command=_EXAMPLE)
    try:
        return read_transcript(log), log
    except ClipError as error:
        unreadable = f"the last conversation cannot be read: {error.message}"
        raise ClipError(unreadable, "begin another:", command=_EXAMPLE) from error


def _earlier_options(context: Any, earlier: "Transcript", video: str | None) -> dict[str, Any]:
    """Return the parameters that an earlier conversation sets and the command line does not."""
    before: dict[str, Any] = {"model": earlier.model, "system": earlier.system}
    if video is None:
        before |= {"start": earlier.start, "end": earlier.end, "frames": earlier.frames}
        config.reader("frames")(str(earlier.frames))
    return {
        name: value
        for name, value in before.items()
        if value is not None and context.get_parameter_source(name).name != "COMMANDLINE"
    }


def _unless_unwritable(make: Callable[[], Path], lost: str, screen: Screen) -> Path | None:
    try:
        return make()
    except OSError as error:
        screen.notice(f"{lost} not kept: {error.filename}: {error.strerror}")
        return None
