"""`panda ask` about many clips, or about the windows of films."""

from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING

import typer

from pandacli.cli import startup
from pandacli.errors import UsageError
from pandacli.terminal.answers import AnswerDisplay, Layout
from pandacli.terminal.console import Screen, echo_off
from pandacli.timeline.asking import Asked, look_at_clips, look_at_windows, outcomes
from pandacli.video.clip import Clip

if TYPE_CHECKING:
    from pandacli import Panda

_CAPTIONS = ("srt", "vtt")  # their times are those of one film


def ask_many(
    clips: Sequence[Clip],
    asked: Asked,
    loading: startup.Loading,
    screen: Screen,
    *,
    every: float | None,
    json: bool,
    file_format: str | None,
    stats: bool,
) -> None:
    """Answer questions about each clip, or about each of its windows; exit with 1 if some fail."""
    if file_format in _CAPTIONS and len(clips) > 1:
        message = f"--format {file_format} is for one film, and there are {len(clips)}"
        raise UsageError(message, "--format csv and --json name the film of each answer")
    if len(clips) == 1:
        startup.check_opens(clips[0])
    startup.offer_download(loading, screen)
    side = startup.image_size(loading)
    if len(clips) == 1:
        loading.begin()
    at, closer = clips[0].at, "a shorter --every" if every else startup.LOOKS_CLOSER
    layout = Layout(
        len(clips),
        len(asked.questions),
        windows=every is not None,
        json=json,
        file_format=file_format,
        closer=None if at else closer,
    )
    display = AnswerDisplay(screen, layout, asked.options.max_tokens)

    def load() -> "Panda":
        panda = startup.load_model(loading, screen, display.set_step)
        # answers of the first clip are not kept waiting for those of others
        display.begin(panda.name, panda.windows_at_once if asked.choices else 1)
        return panda

    if every is None:
        looks = look_at_clips(clips, asked.num_frames, side)
    else:
        looks = look_at_windows(clips, every, asked.num_frames, side)
    with echo_off(), closing(looks):
        display.show(outcomes(looks, asked, load))
    if stats:
        display.summary()
    if display.failed:
        raise typer.Exit(1)
