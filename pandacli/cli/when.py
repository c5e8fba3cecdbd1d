"""`panda when`: find the segments of a film in which the answer to a question is yes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from pandacli.cli import options, signals, startup
from pandacli.errors import UsageError
from pandacli.terminal.console import Screen, echo_off
from pandacli.terminal.segments import SegmentDisplay
from pandacli.timeline.looking import as_question

_QUESTION = "With yes or no as its answer; or a statement."


def when(
    video: options.Video,
    question: Annotated[str, options.argument("QUESTION", _QUESTION)],
    how: options.Asking,
    threshold: options.Threshold = 0.9,
    window: options.Window = 2.0,
    stride: options.Stride = None,
    precision: options.Precision = 0.5,
    json: options.Json = False,
    format: options.SegmentFormat = None,  # noqa: A002  (the name of the option)
    graphics: options.Graphics = "auto",
    stats: options.Stats = False,
    quiet: options.Quiet = False,
    _debug: options.Debug = False,
) -> None:
    """Find when the answer to a question is yes.

    Each line of the output is a segment: its start, its end, and the highest
    probability of yes in it. A statement is asked as "Does the video show
    this: ...?". Ctrl-C keeps what has been found.

    With --format, srt, vtt and csv list the segments, edl is a cut list for
    editing programs, and ffconcat one for ffmpeg, as it is:
    ffmpeg -f concat -safe 0 -i segments.ffconcat -c copy cut.mp4
    """
    startup.check_video("when", video)
    asked = as_question(question)
    if format and json:
        raise UsageError("--format and --json are two forms of output", "leave one of them out")
    screen = Screen(quiet=quiet, graphics=graphics)
    screen.require_stdout()
    clip = how.clip(video)
    if how.offline:
        startup.go_offline()
    loading = startup.Loading(how.spec(), server=how.server)
    with echo_off():
        startup.check_opens(clip)
        startup.offer_download(loading, screen)
        loading.begin()
        if asked != question.strip():
            screen.notice(f"the statement is asked as: {asked}")
        from pandacli.video.windows import FilmReader, span_of

        with FilmReader(clip.path, how.frames, startup.image_size(loading)) as reader:
            with screen.status("reading the film"):
                info = reader.info()
            span = span_of(clip, info.duration)
            panda = startup.load_model(loading, screen)
            from pandacli.timeline.segments import SegmentOptions, SegmentSearch

            search = SegmentSearch(
                panda,
                reader,
                span,
                asked,
                SegmentOptions(window, stride, threshold, precision),
                num_frames=how.frames,
                system=how.system,
            )
            display = SegmentDisplay(screen, search, json=json, file_format=format)
            try:
                with _patience(), display.progress() as report:
                    search.run(report)
            except KeyboardInterrupt:
                display.show(video, clip.path, info)
                raise
            found = display.show(video, clip.path, info)
            display.draw(found, reader)
        if stats:
            display.summary(panda)
    if found.failures:
        raise typer.Exit(1)


@contextmanager
def _patience() -> Iterator[None]:
    """Let the first Ctrl-C wait for the windows in hand, which a large model takes seconds for."""
    signals.be_patient(lambda: True)
    try:
        yield
    finally:
        signals.be_patient(lambda: False)
