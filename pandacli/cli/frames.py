"""`panda frames` shows what the model sees of a clip; `panda demo` asks `tiny` about one."""

import os
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from shlex import quote

from pandacli.cli import options
from pandacli.cli.entry import STARTED
from pandacli.cli.startup import EXAMPLE, Loading, check_video, load_model, read_clip
from pandacli.errors import UsageError
from pandacli.terminal.console import Screen, echo_off
from pandacli.terminal.contact_sheet import check_sheet_path, contact_sheet, save_sheet
from pandacli.terminal.report import Stopwatch, clip_line, frames_record, stats_rows
from pandacli.video.clip import Clip, format_times, local_file


def frames(
    video: options.Video,
    start: options.From = None,
    end: options.To = None,
    frames: options.Frames = 8,
    canvas: options.Canvas = 448,
    save: options.Save = None,
    json: options.Json = False,
    graphics: options.Graphics = "auto",
    quiet: options.Quiet = False,
    _debug: options.Debug = False,
) -> None:
    """Show the frames that a model would look at.

    They are the frames that panda ask samples with the same options, in the
    size and shape in which the model gets them. No model is needed. Where no
    picture can be drawn, each line of the output is a frame: its number in the
    file, a tab, its time.
    """
    check_video("frames", video)
    screen = Screen(quiet=quiet, graphics=graphics)
    screen.require_stdout()
    clip = Clip(local_file(video), start, end)
    target = Path(save) if save is not None else None
    replaces = False
    if target is not None:
        check_sheet_path(target, clip.path)
        replaces = target.exists()
        if os.path.lexists(target) and not screen.is_interactive:
            raise UsageError(f"{save} exists", "name another file, or remove it first")
        if not screen.confirm_overwrite(target):
            screen.notice(f"{save} stays as it is")
            target = None
    sampled, _ = read_clip(clip, frames, screen)
    from pandacli.video import fit_to_box

    seen = replace(sampled, pixels=fit_to_box(sampled.pixels, image_size=canvas))
    height, width = seen.pixels.shape[1:3]
    if target is not None:
        save_sheet(contact_sheet(seen), target, replace=replaces)
    if json:
        sizes = {"side": canvas, "width": width, "height": height}
        screen.json(frames_record(video, clip, seen, sizes))
    elif screen.shows_pictures:
        if not screen.quiet:
            screen.line(clip_line(clip, seen.info))
        screen.frames(seen)
    else:
        for index, time in zip(seen.indices, format_times(seen.times), strict=True):
            screen.line(f"{index}\t{time}")
    if target is not None:
        screen.notice(f"saved {save}: {len(seen.times)} pictures of {width}x{height} pixels")


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
        small = "tiny, a small model of moving shapes (not Video-Panda-7B)"
        screen.line(f"{small}, looks at {CLIP.name}:")
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
                screen.table(stats_rows(pieces.answer.stats, frames, watch))
            watch.end_answer()
        here = Path.cwd()
        shown = CLIP.relative_to(here) if CLIP.is_relative_to(here) else CLIP
        screen.line(f'\nMore of it:   panda ask {quote(str(shown))} "..." --model tiny')
        screen.line(f"Your videos:  {EXAMPLE}")
