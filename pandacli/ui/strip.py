"""The frame strip: the sampled frames with their times, drawn in half-blocks.

Each character cell holds two pixels, the upper one as the background and the lower one as the
foreground of `▄`, so a picture 20 cells wide is 20 pixels wide and two pixels tall a line.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.color import Color
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.style import Style

from pandacli.video.clip import format_time

if TYPE_CHECKING:
    from PIL.Image import Image

    from pandacli.video import Frames

_WIDEST = 32  # cells; larger pictures would push the answer off the screen
_NARROWEST = 14  # cells; holds a time such as 1:02:03.250
_GAP = 1


class FrameStrip:
    """The frames of a clip in rows that fit the terminal, each with its time under it.

    Args:
        frames: What was sampled; `pixels` are uint8 (T, H, W, 3) RGB.
    """

    def __init__(self, frames: "Frames") -> None:
        self.frames = frames

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yields the strip as segments."""
        count = len(self.frames.times)
        columns = _columns(options.max_width, count)
        width = min(_WIDEST, (options.max_width - (columns - 1) * _GAP) // columns)
        for start in range(0, count, columns):
            row = range(start, min(start + columns, count))
            yield from _row(
                [_shrunk(self.frames.pixels[index], width) for index in row],
                [format_time(self.frames.times[index]) for index in row],
            )


def _columns(max_width: int, count: int) -> int:
    """Pictures a row: all in one if they stay readable, else the most even split that does."""
    fits = max(1, (max_width + _GAP) // (_NARROWEST + 4 + _GAP))
    rows = -(-count // fits)
    return -(-count // rows)


def _shrunk(pixels: Any, width: int) -> "Image":
    """One frame (H, W, 3) as a picture `width` pixels wide and an even number tall."""
    from PIL import Image

    picture = Image.fromarray(pixels)
    height = max(2, round(picture.height * width / picture.width / 2) * 2)
    if height > width * 1.25:  # portrait: the height is what must stay small
        height = round(width * 1.25 / 2) * 2
    scaled_width = min(width, max(1, round(picture.width * height / picture.height)))
    return picture.resize((scaled_width, height), Image.Resampling.BOX)


def _row(pictures: Sequence["Image"], times: Sequence[str]) -> Iterator[Segment]:
    width = max(picture.width for picture in pictures)
    for top in range(0, pictures[0].height, 2):
        for picture in pictures:
            for x in range(picture.width):
                upper, lower = _colour(picture, x, top), _colour(picture, x, top + 1)
                yield Segment("▄", Style(color=lower, bgcolor=upper))
            yield Segment(" " * (width - picture.width + _GAP))
        yield Segment.line()
    captions = "".join(time.center(width) + " " * _GAP for time in times)
    yield Segment(captions.rstrip(), Style(dim=True))
    yield Segment.line()


def _colour(picture: "Image", x: int, y: int) -> Color:
    red, green, blue = picture.getpixel((x, y))  # type: ignore[misc]  # an RGB picture's pixel
    return Color.from_rgb(red, green, blue)
