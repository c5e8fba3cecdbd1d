"""`panda demo`: a first look, with the clip and the small model that come with panda."""

from contextlib import closing
from pathlib import Path
from shlex import quote
from typing import Any

from pandacli.cli import options, settings
from pandacli.cli.entry import STARTED
from pandacli.cli.startup import Loading, load_model, read_clip
from pandacli.terminal.console import Screen
from pandacli.terminal.keyboard import echo_off
from pandacli.terminal.report import Stopwatch
from pandacli.video.clip import Clip

CLIP = Path(__file__).parents[1] / "assets" / "demo.mp4"
QUESTIONS = ("What happens?", "Which shape appears?", "Which way does the red circle move?")


def demo(
    device: options.Device = None,
    stats: options.Stats = None,
    graphics: options.Graphics = None,
    quiet: options.Quiet = None,
    debug: options.Debug = None,
) -> None:
    """Ask the small model tiny about a bundled clip.

    Shows the frames that the model sees. tiny knows moving shapes and nothing
    else; for videos of the world there is Video-Panda-7B (see panda ask).
    """
    chosen = settings.resolve(
        {"device": device, "stats": stats, "graphics": graphics, "quiet": quiet, "debug": debug}
    )
    screen = Screen(quiet=chosen["quiet"], graphics=chosen["graphics"])
    screen.require_stdout()
    with echo_off():
        _show(chosen, screen)


def _show(chosen: dict[str, Any], screen: Screen) -> None:
    watch = Stopwatch(STARTED)
    loading = Loading("tiny", device=chosen["device"])
    with watch.measure("frames"):
        frames, seconds = read_clip(Clip(CLIP), 8, screen, loading=loading)
    screen.line(f"tiny, a small model of moving shapes (not Video-Panda-7B), looks at {CLIP.name}:")
    screen.frames(frames)
    screen.line("")
    with watch.measure("model"):
        panda = load_model(loading, screen)
    clip = panda.open(frames, frames_seconds=seconds)
    for question in QUESTIONS:
        screen.question(question)
        watch.start_answer()
        with closing(clip.stream(question)) as pieces:
            screen.stream(pieces)
        if chosen["stats"]:
            screen.stats(pieces.answer.stats, frames, watch)
        watch.end_answer()
    here = Path.cwd()
    clip_shown = CLIP.relative_to(here) if CLIP.is_relative_to(here) else CLIP
    screen.line(f'\nMore of it:   panda ask {quote(str(clip_shown))} "..." --model tiny')
    screen.line('Your videos:  panda ask clip.mp4 "what happens?"')
