"""The frame strip: the sampled frames with their times, in pictures or in half-blocks.

Where the terminal has graphics of its own, a picture is drawn over room that was made for it.
Everywhere else a character cell holds two pixels, the upper one as the background and the lower
one as the foreground of `▄`.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.color import Color
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import ControlType, Segment
from rich.style import Style

from pandacli.video.clip import format_times

if TYPE_CHECKING:
    from PIL.Image import Image

    from pandacli.video import Frames

_WIDEST = 32  # cells a picture
_TALLEST = 16  # lines of the whole strip, so that answers fit under it on a small terminal
_GAP = 1
_USUAL_CELL = (10, 20)  # pixels, where the terminal does not say
_ENOUGH_PIXELS = 16  # across a cell; more would only take longer to send


class FrameStrip:
    """The frames of a clip in rows that fit the terminal, each with its time under it.

    Args:
        frames: What was sampled; `pixels` are uint8 (T, H, W, 3) RGB.
        protocol: kitty, iterm2, sixel, or blocks for half-blocks.
        cell: Width and height of a character cell in pixels; None where that is not known.
    """

    def __init__(
        self, frames: "Frames", protocol: str = "blocks", cell: tuple[int, int] | None = None
    ) -> None:
        self.frames = frames
        self.protocol = protocol
        self.cell = cell or _USUAL_CELL

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yields the strip as segments."""
        pixels, times = self.frames.pixels, format_times(self.frames.times)
        height, width = pixels.shape[1:3]
        narrowest = max(map(len, times))
        # A picture is drawn upwards from under it: all of it must be on the screen.
        protocol = self.protocol if console.height > _TALLEST else "blocks"
        cell = _USUAL_CELL if protocol == "blocks" else self.cell
        columns, size = _layout(
            options.max_width, len(times), width / height, narrowest, cell[0] / cell[1]
        )
        for start in range(0, len(times), columns):
            row = slice(start, start + columns)
            if protocol == "blocks":
                yield from _blocks(pixels[row], size, max(narrowest, size[0]))
            else:
                yield from _pictures(pixels[row], size, max(narrowest, size[0]), protocol, cell)
            yield from _captions(times[row], size[0], max(narrowest, size[0]))


def _layout(
    max_width: int, count: int, aspect: float, narrowest: int, cell_aspect: float
) -> tuple[int, tuple[int, int]]:
    """Pictures a row, and their (width, height) in cells: large, in few rows, within limits."""
    layouts = []
    for rows in range(1, count + 1):
        columns = -(-count // rows)
        room = min(_WIDEST, (max_width + _GAP) // columns - _GAP)
        if room < narrowest and rows < count:
            continue
        most = max(2, _TALLEST // rows - 1)  # one line is for the times
        width = max(1.0, min(room, most / cell_aspect * aspect))
        lines = min(most, max(1, round(width * cell_aspect / aspect)))
        layouts.append((columns, (round(width), lines)))
    largest = max(width * lines for _, (width, lines) in layouts)
    return next((columns, size) for columns, size in layouts if size[0] * size[1] >= 0.7 * largest)


def _blocks(pixels: Any, size: tuple[int, int], width: int) -> Iterator[Segment]:
    """A row of pictures in half-blocks; uint8 (T, H, W, 3)."""
    from PIL import Image

    box = (size[0], 2 * size[1])
    pictures = [Image.fromarray(frame).resize(box, Image.Resampling.BOX) for frame in pixels]
    margin = " " * (width - size[0] + _GAP)
    for top in range(0, box[1], 2):
        for place, picture in enumerate(pictures):
            if place:
                yield Segment(margin)
            for x in range(box[0]):
                upper, lower = _colour(picture, x, top), _colour(picture, x, top + 1)
                yield Segment("▄", Style(color=lower, bgcolor=upper))
        yield Segment.line()


def _colour(picture: "Image", x: int, y: int) -> Color:
    red, green, blue = picture.getpixel((x, y))  # type: ignore[misc]  # an RGB picture's pixel
    return Color.from_rgb(red, green, blue)


def _pictures(
    pixels: Any, size: tuple[int, int], width: int, protocol: str, cell: tuple[int, int]
) -> Iterator[Segment]:
    """A row of pictures in the terminal's own graphics; uint8 (T, H, W, 3).

    The lines are made first, with one to spare for a cursor that a terminal puts under a picture:
    so nothing scrolls while the cursor goes back and forth between its saved place and the next.
    """
    from pandacli.terminal.capabilities import escape_sequence

    lines = size[1] + 1
    yield _control("\n" * lines + f"\x1b[{lines}A\r\x1b7")
    for place, frame in enumerate(pixels):
        picture = _boxed(frame, size, cell, exact=protocol == "sixel")
        right = f"\x1b[{place * (width + _GAP)}C" if place else ""
        yield _control("\x1b8" + right + escape_sequence(protocol, picture, size))
    yield _control(f"\x1b8\x1b[{size[1]}B")


def _boxed(pixels: Any, size: tuple[int, int], cell: tuple[int, int], *, exact: bool) -> "Image":
    """One frame, (H, W, 3), in a transparent box of `size` cells: low in it, and not stretched."""
    from PIL import Image

    scale = 1 if exact else min(1, _ENOUGH_PIXELS / cell[0])
    box = (round(size[0] * cell[0] * scale), round(size[1] * cell[1] * scale))
    picture = Image.fromarray(pixels)
    fit = min(box[0] / picture.width, box[1] / picture.height)
    fitted = picture.resize(
        (max(1, round(picture.width * fit)), max(1, round(picture.height * fit))),
        Image.Resampling.BICUBIC,
    )
    canvas = Image.new("RGBA", box)
    canvas.paste(fitted, ((box[0] - fitted.width) // 2, box[1] - fitted.height))
    return canvas


def _control(codes: str) -> Segment:
    # Any control code makes Rich pass the text on as it is, and count no cells for it.
    return Segment(codes, None, [(ControlType.CARRIAGE_RETURN,)])


def _captions(times: Sequence[str], picture: int, width: int) -> Iterator[Segment]:
    text = "".join(time.center(picture).ljust(width + _GAP) for time in times)
    yield Segment(text.rstrip(), Style(dim=True))
    yield Segment.line()
