"""`panda demo`: the bundled clip, the bundled model and three questions."""

from contextlib import closing
from pathlib import Path
from shlex import quote

from pandacli.cli import options
from pandacli.cli.entry import STARTED
from pandacli.cli.startup import EXAMPLE, Loading, load_model, read_clip
from pandacli.terminal.console import Screen
from pandacli.terminal.keyboard import echo_off
from pandacli.terminal.report import Stopwatch
from pandacli.video.clip import Clip

CLIP = Path(__file__).parents[1] / "assets" / "demo.mp4"
QUESTIONS = ("What happens?", "Which shape appears?", "Which way does the red circle move?")


def demo(
    device: options.Device = "auto",
    stats: options.Stats = False,
    graphics: options.Graphics = "auto",
    quiet: options.Quiet = False,
    _debug: options.Debug = False,
) -> None:
    """Ask the small model tiny about a bundled clip.

    Shows the frames that the model sees. tiny knows moving shapes and nothing
    else; for videos of the world there is Video-Panda-7B (see panda ask).
    """
    screen = Screen(quiet=quiet, graphics=graphics)
    screen.require_stdout()
    watch = Stopwatch(STARTED)
    from pandacli.inference.spec import RunSpec

    loading = Loading(RunSpec("tiny", device=device))
    with echo_off():
        with watch.measure("frames"):
            frames, seconds = read_clip(Clip(CLIP), 8, screen, loading=loading)
        screen.line(
            f"tiny, a small model of moving shapes (not Video-Panda-7B), looks at {CLIP.name}:"
        )
        screen.frames(frames)
        screen.line("")
        with watch.measure("model"):
            panda = load_model(loading, screen)
        session = panda.open(frames, frames_seconds=seconds)
        for question in QUESTIONS:
            screen.question(question)
            watch.start_answer()
            with closing(session.stream(question)) as pieces:
                screen.stream(pieces)
            if stats:
                screen.stats(pieces.answer.stats, frames, watch)
            watch.end_answer()
        here = Path.cwd()
        shown = CLIP.relative_to(here) if CLIP.is_relative_to(here) else CLIP
        screen.line(f'\nMore of it:   panda ask {quote(str(shown))} "..." --model tiny')
        screen.line(f"Your videos:  {EXAMPLE}")
