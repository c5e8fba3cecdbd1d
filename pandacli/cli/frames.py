"""`panda frames`: show which frames are sampled, and what the model sees of them."""

import os
from dataclasses import replace
from pathlib import Path

from pandacli.cli import options
from pandacli.cli.startup import check_video, read_clip
from pandacli.errors import UsageError
from pandacli.terminal.console import Screen
from pandacli.video.clip import Clip, local_file


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
    replaces = False
    if save is not None:
        from pandacli.terminal.contact_sheet import check_sheet_path

        check_sheet_path(Path(save), clip.path)
        replaces = Path(save).exists()
        if os.path.lexists(save) and not screen.is_interactive:
            raise UsageError(f"{save} exists", "name another file, or remove it first")
        if not screen.confirm_overwrite(Path(save)):
            screen.notice(f"{save} stays as it is")
            save = None
    sampled, _ = read_clip(clip, frames, screen)
    from pandacli.terminal.report import clip_line, frame_lines, frames_json
    from pandacli.video import fit_to_box

    seen = replace(sampled, pixels=fit_to_box(sampled.pixels, image_size=canvas))
    height, width = seen.pixels.shape[1:3]
    if save is not None:
        from pandacli.terminal.contact_sheet import contact_sheet, save_sheet

        save_sheet(contact_sheet(seen), Path(save), replace=replaces)
    if json:
        sizes = {"side": canvas, "width": width, "height": height}
        pretty = screen.stdout_is_terminal
        screen.line(frames_json(video, clip, seen, sizes, pretty=pretty))
    elif screen.shows_pictures:
        if not screen.quiet:
            screen.line(clip_line(clip, seen.info))
        screen.frames(seen)
    else:
        for line in frame_lines(seen):
            screen.line(line)
    if save is not None:
        screen.notice(f"saved {save}: {len(seen.times)} pictures of {width}x{height} pixels")
