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

_WIDEST = 32  # cells a picture
_TALLEST = 16  # lines of the whole strip, so that answers fit under it on a small terminal
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
        pixels, times = self.frames.pixels, [format_time(time) for time in self.frames.times]
        height, width = pixels.shape[1:3]
        narrowest = max(map(len, times))
        columns, size = _layout(options.max_width, len(times), width / height, narrowest)
        for start in range(0, len(times), columns):
            row = slice(start, start + columns)
            yield from _row([_shrunk(frame, size) for frame in pixels[row]], times[row], narrowest)


def _layout(
    max_width: int, count: int, aspect: float, narrowest: int
) -> tuple[int, tuple[int, int]]:
    """Pictures a row, and their (width, height) in pixels: large, in few rows, within limits."""
    layouts = []
    for rows in range(1, count + 1):
        columns = -(-count // rows)
        room = min(_WIDEST, (max_width + _GAP) // columns - _GAP)
        if room < narrowest and rows < count:
            continue
        lines = max(2, _TALLEST // rows - 1)  # one is for the times
        width = max(1.0, min(room, 2 * lines * aspect))
        layouts.append((columns, (round(width), max(2, round(width / aspect / 2) * 2))))
    largest = max(width * height for _, (width, height) in layouts)
    return next((columns, size) for columns, size in layouts if size[0] * size[1] >= 0.7 * largest)


def _shrunk(pixels: Any, size: tuple[int, int]) -> "Image":
    """One frame, uint8 (H, W, 3), as a picture of `size`."""
    from PIL import Image

    return Image.fromarray(pixels).resize(size, Image.Resampling.BOX)


def _row(pictures: Sequence["Image"], times: Sequence[str], narrowest: int) -> Iterator[Segment]:
    width = max(narrowest, pictures[0].width)
    margin = " " * (width - pictures[0].width + _GAP)
    for top in range(0, pictures[0].height, 2):
        for place, picture in enumerate(pictures):
            if place:
                yield Segment(margin)
            for x in range(picture.width):
                upper, lower = _colour(picture, x, top), _colour(picture, x, top + 1)
                yield Segment("▄", Style(color=lower, bgcolor=upper))
        yield Segment.line()
    captions = "".join(time.center(pictures[0].width).ljust(width + _GAP) for time in times)
    yield Segment(captions.rstrip(), Style(dim=True))
    yield Segment.line()


def _colour(picture: "Image", x: int, y: int) -> Color:
    red, green, blue = picture.getpixel((x, y))  # type: ignore[misc]  # an RGB picture's pixel
    return Color.from_rgb(red, green, blue)
