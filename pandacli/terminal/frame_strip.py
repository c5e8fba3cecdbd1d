"""The frame strip: sampled frames with their times, as terminal graphics or as half-blocks.

kitty    https://sw.kovidgoyal.net/kitty/graphics-protocol/
iTerm2   https://iterm2.com/documentation-images.html
sixel    DEC's VT330/VT340 Graphics Programming, chapter 14
"""

import re
from base64 import standard_b64encode
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any, TextIO

from rich.color import Color
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import ControlType, Segment
from rich.style import Style

from pandacli.video.clip import format_times

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    from pandacli.video import Frames

Size = tuple[int, int]  # width and height

_MAX_WIDTH = 32  # cells of one picture
_MAX_LINES = 16  # of the whole strip, so that answers fit under it on a small terminal
_GAP = 1
_DEFAULT_CELL = (10, 20)  # pixels
_MAX_CELL_PIXELS = 16  # across a cell; more would only take longer to send

_PROTOCOLS = (  # variable, pattern at the start of its value, protocol; the first match decides
    ("TMUX", "", None),
    ("TERM", "screen|tmux", None),
    ("TERM", "foot|mlterm|contour|yaft|.*sixel", "sixel"),
    ("TERM", "xterm-kitty|xterm-ghostty", "kitty"),
    ("TERM_PROGRAM", "(ghostty|kitty)$", "kitty"),
    ("TERM_PROGRAM", "(iTerm.app|mintty|WarpTerminal|WezTerm)$", "iTerm2"),
    # no graphics by default; other variables may come from the terminal they were started in
    ("TERM_PROGRAM", "(Apple_Terminal|vscode)$", None),
    ("KITTY_WINDOW_ID", "", "kitty"),
    ("LC_TERMINAL", "iTerm2$", "iTerm2"),
)
_KITTY_CHUNK = 4096  # bytes of base64 that one kitty sequence may carry
_SIXEL_COLOURS = 128  # of at most 256; more are hardly visible and cost bytes
_SIXEL_BAND = 6  # rows
_TRANSPARENT = 255  # palette index
_RUN = re.compile(rb"(.)\1{3,}", re.DOTALL)


class FrameStrip:
    """Frames in rows that fit the terminal, each with its time or a caption under it.

    `protocol` is kitty, iterm2, sixel or blocks, `cell` the size of a character cell in pixels.
    """

    def __init__(
        self,
        frames: "Frames",
        protocol: str = "blocks",
        cell: Size | None = None,
        captions: Sequence[str] = (),
    ) -> None:
        self.frames, self.protocol, self.cell = frames, protocol, cell or _DEFAULT_CELL
        self.captions = captions

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        pixels = self.frames.pixels
        captions = self.captions or format_times(self.frames.times)
        height, width = pixels.shape[1:3]
        widest = max(map(len, captions))
        # a picture is drawn upwards from the line under it: all of it must be on the screen
        protocol = self.protocol if console.height > _MAX_LINES else "blocks"
        cell = _DEFAULT_CELL if protocol == "blocks" else self.cell
        aspect = width / height * cell[1] / cell[0]
        columns, size = _layout(options.max_width, len(captions), aspect, widest)
        pitch = max(widest, size[0]) + _GAP
        for start in range(0, len(captions), columns):
            row = slice(start, start + columns)
            if protocol == "blocks":
                yield from _blocks(pixels[row], size, pitch)
            else:
                yield from _pictures(pixels[row], size, pitch, protocol, cell)
            below = "".join(text.center(size[0]).ljust(pitch) for text in captions[row])
            yield Segment(below.rstrip(), Style(dim=True))
            yield Segment.line()


def _layout(max_width: int, count: int, aspect: float, min_width: int) -> tuple[int, Size]:
    """Return pictures per row and their size in cells: large, in few rows; captions fit."""
    layouts = []
    for rows in range(1, count + 1):
        columns = -(-count // rows)
        room = min(_MAX_WIDTH, (max_width + _GAP) // columns - _GAP)
        if room < min_width and rows < count:
            continue
        max_lines = max(2, _MAX_LINES // rows - 1)  # one line is for the times
        width = max(1.0, min(room, max_lines * aspect))
        lines = min(max_lines, max(1, round(width / aspect)))
        layouts.append((columns, (round(width), lines)))
    largest = max(width * lines for _, (width, lines) in layouts)
    return next((columns, size) for columns, size in layouts if size[0] * size[1] >= 0.7 * largest)


def _blocks(pixels: Any, size: Size, pitch: int) -> Iterator[Segment]:
    """Yield a row of pictures in half-blocks; `pixels` are uint8 (T, H, W, 3)."""
    import numpy as np
    from PIL import Image

    width, height = size[0], 2 * size[1]
    box = Image.Resampling.BOX
    pictures = [np.asarray(Image.fromarray(p).resize((width, height), box)) for p in pixels]
    for top in range(0, height, 2):
        for number, picture in enumerate(pictures):
            if number:
                yield Segment(" " * (pitch - width))
            for upper, lower in zip(*picture[top : top + 2].tolist(), strict=True):
                style = Style(color=Color.from_rgb(*lower), bgcolor=Color.from_rgb(*upper))
                yield Segment("▄", style)
        yield Segment.line()


def _pictures(pixels: Any, size: Size, pitch: int, protocol: str, cell: Size) -> Iterator[Segment]:
    """Yield a row of pictures in terminal graphics; `pixels` are uint8 (T, H, W, 3)."""
    from PIL import Image, ImageOps

    # empty lines first, so that nothing scrolls while the cursor returns to its saved place; one
    # more than needed, for terminals that leave the cursor under a picture
    lines = size[1] + 1
    # sixels must fill the cells exactly, other pictures are scaled by the terminal
    scale = 1 if protocol == "sixel" else min(1, _MAX_CELL_PIXELS / cell[0])
    box = (round(size[0] * cell[0] * scale), round(size[1] * cell[1] * scale))
    yield _control("\n" * lines + f"\x1b[{lines}A\r\x1b7")
    for number, frame in enumerate(pixels):
        picture = Image.fromarray(frame).convert("RGBA")
        picture = ImageOps.pad(picture, box, color=(0, 0, 0, 0), centering=(0.5, 1))
        right = f"\x1b[{number * pitch}C" if number else ""
        yield _control("\x1b8" + right + escape_sequence(protocol, picture, size))
    yield _control(f"\x1b8\x1b[{size[1]}B")


def _control(codes: str) -> Segment:
    # Rich passes a segment with any control code on unchanged, and counts no cells for it
    return Segment(codes, None, [(ControlType.CARRIAGE_RETURN,)])


def graphics_protocol(variables: Mapping[str, str]) -> str | None:
    """Return the protocol that a terminal's environment implies: kitty, iTerm2 or sixel."""
    # the terminal is never queried, as its reply could end up in what the user types
    for name, pattern, protocol in _PROTOCOLS:
        if name in variables and re.match(pattern, variables[name]):
            return protocol
    return None


def choose_protocol(graphics: str, variables: Mapping[str, str], cell: Size | None) -> str:
    """Return how to draw pictures, by the value of `--graphics`; "auto" goes by the environment."""
    if graphics != "auto":
        return graphics
    protocol = (graphics_protocol(variables) or "blocks").lower()
    # a sixel picture is measured in pixels: with unknown cells it could cover its caption
    return "blocks" if protocol == "sixel" and cell is None else protocol


def cell_size(stream: TextIO) -> Size | None:
    """Return the width and height of a terminal's character cell in pixels, if known."""
    try:
        import fcntl
        import struct
        import termios

        answer = fcntl.ioctl(stream.fileno(), termios.TIOCGWINSZ, bytes(8))
    except (ImportError, OSError, ValueError):  # Windows, no terminal, or not even a file
        return None
    lines, columns, width, height = struct.unpack("HHHH", answer)
    known = lines and columns and width >= columns and height >= lines
    return (width // columns, height // lines) if known else None


def escape_sequence(protocol: str, picture: "Image", cells: Size) -> str:
    """Return the kitty, iterm2 or sixel sequence that draws an RGBA picture over `cells`."""
    if protocol == "sixel":  # the picture must already have the size of the cells in pixels
        return _sixel(picture)
    file = BytesIO()
    picture.save(file, "PNG")
    data, (columns, lines) = standard_b64encode(file.getvalue()).decode(), cells
    if protocol == "iterm2":
        keys = f"size={file.tell()};width={columns};height={lines};preserveAspectRatio=0"
        return f"\x1b]1337;File=inline=1;{keys}:{data}\x07"
    if protocol != "kitty":
        raise ValueError(f"there is no protocol {protocol!r}")
    # a=T: send and show; f=100: PNG; q=2: no reply; C=1: leave the cursor where it is
    keys, sequence = f"a=T,f=100,q=2,C=1,c={columns},r={lines},", ""
    for at in range(0, len(data), _KITTY_CHUNK):
        more = int(at + _KITTY_CHUNK < len(data))
        sequence += f"\x1b_G{keys}m={more};{data[at : at + _KITTY_CHUNK]}\x1b\\"
        keys = "q=2,"
    return sequence


def _sixel(picture: "Image") -> str:
    import numpy as np

    paletted = picture.convert("RGB").quantize(_SIXEL_COLOURS)
    indices = np.array(paletted)  # (H, W)
    indices[np.asarray(picture.getchannel("A")) == 0] = _TRANSPARENT
    palette = (paletted.getpalette() or [])[: 3 * _SIXEL_COLOURS]
    colours = "".join(
        "#{};2;{};{};{}".format(at // 3, *(round(v / 2.55) for v in palette[at : at + 3]))
        for at in range(0, len(palette), 3)
    )
    tops = range(0, len(indices), _SIXEL_BAND)
    bands = "-".join(_sixel_band(indices[top : top + _SIXEL_BAND]) for top in tops)
    # P2=1: pixels without a colour keep what is on the screen
    return f'\x1bP0;1;0q"1;1;{picture.width};{picture.height}{colours}{bands}\x1b\\'


def _sixel_band(band: "NDArray[np.uint8]") -> str:
    """Encode up to six rows: for each colour one byte per column, whose bits are the rows."""
    import numpy as np

    colours = np.unique(band[band != _TRANSPARENT])
    here = band == colours[:, None, None]  # (colours, 6, W)
    weights = (1 << np.arange(len(band))).astype(np.uint8)
    rows = (here * weights[:, None]).sum(axis=1, dtype=np.uint8) + 63
    lines = (
        _RUN.sub(lambda run: b"!%d%s" % (len(run[0]), run[1]), row.tobytes()).decode()
        for row in rows
    )
    return "$".join(f"#{colour}{line}" for colour, line in zip(colours, lines, strict=True))
