"""What the terminal can show, as far as its environment tells; it is never asked.

A picture in the escape sequences of the terminals that can show one.

    kitty    https://sw.kovidgoyal.net/kitty/graphics-protocol/
    iTerm2   https://iterm2.com/documentation-images.html
    sixel    DEC's VT330/VT340 Graphics Programming, chapter 14

Each sequence draws at the cursor. Where the cursor is afterwards differs from terminal to
terminal; only a caller that saves and restores it knows. Nothing here asks for an answer, which
could end up in what the user types.
"""

import os
import re
import shutil
import sys
from base64 import standard_b64encode
from collections.abc import Iterator, Mapping
from io import BytesIO
from typing import TYPE_CHECKING, TextIO

from pandacli.diagnostics.facts import Section, find

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

GRAPHICS = ("auto", "kitty", "iterm2", "sixel", "blocks", "none")
"""How pictures may be drawn; what `--graphics` takes."""

_TERMS = {
    "foot": "sixel",
    "mlterm": "sixel",
    "contour": "sixel",
    "yaft": "sixel",
    "xterm-kitty": "kitty",
    "xterm-ghostty": "kitty",
}
_PROGRAMS = {
    "ghostty": "kitty",
    "kitty": "kitty",
    "iTerm.app": "iTerm2",
    "mintty": "iTerm2",
    "WarpTerminal": "iTerm2",
    "WezTerm": "iTerm2",
    # These have no graphics, or not unless told to, and may have been started from one that has.
    "Apple_Terminal": None,
    "vscode": None,
}


def terminal() -> Section:
    """Which streams are a terminal, and its colours, width and pictures."""
    # not sys.stdout itself, which a spinner replaces while it turns
    streams = {"stdin": sys.__stdin__, "stdout": sys.__stdout__, "stderr": sys.__stderr__}
    return Section(
        "Terminal",
        [
            find("terminals", lambda: [n for n, s in streams.items() if s and s.isatty()]),
            find("type", lambda: os.environ.get("TERM")),
            find("width", lambda: shutil.get_terminal_size().columns),
            find("colours", colours),
            find("pictures", lambda: graphics_protocol(os.environ) or "half-blocks"),
            find("encoding", lambda: getattr(sys.__stdout__, "encoding", None)),
        ],
    )


def colours() -> str:
    """How many colours Rich would use on stdout."""
    from rich.console import Console

    console = Console(file=sys.__stdout__)
    return "none" if console.no_color else console.color_system or "none"


def graphics_protocol(variables: Mapping[str, str]) -> str | None:
    """The protocol for pictures that a terminal's variables promise: kitty, iTerm2 or sixel.

    Within tmux and screen none is promised, whatever is around them.
    """
    term = variables.get("TERM", "")
    program = variables.get("TERM_PROGRAM", "")
    if "TMUX" in variables or term.startswith(("screen", "tmux")):
        return None
    for name, protocol in _TERMS.items():
        if term.startswith(name):
            return protocol
    if "sixel" in term:
        return "sixel"
    if program in _PROGRAMS:
        return _PROGRAMS[program]
    if "KITTY_WINDOW_ID" in variables:
        return "kitty"
    return "iTerm2" if variables.get("LC_TERMINAL") == "iTerm2" else None


def drawn_with(chosen: str, variables: Mapping[str, str], cell: tuple[int, int] | None) -> str:
    """How to draw pictures: kitty, iterm2, sixel or blocks; none for not at all.

    Args:
        chosen: One of `GRAPHICS`; auto goes by `variables`.
        variables: The environment.
        cell: Width and height of a character cell in pixels; None where that is not known.
    """
    if chosen != "auto":
        return chosen
    protocol = (graphics_protocol(variables) or "blocks").lower()
    # A sixel picture is as large as its pixels: without their measure it would cover its caption.
    return "blocks" if protocol == "sixel" and cell is None else protocol


def cell_size(stream: TextIO) -> tuple[int, int] | None:
    """Width and height of a character cell of a terminal in pixels, if the system knows."""
    import fcntl
    import struct
    import termios

    try:
        answer = fcntl.ioctl(stream.fileno(), termios.TIOCGWINSZ, bytes(8))
    except (OSError, ValueError):  # not a terminal, or not even a file
        return None
    lines, columns, width, height = struct.unpack("HHHH", answer)
    if not (lines and columns and width >= columns and height >= lines):
        return None
    return width // columns, height // lines


_KITTY_CHUNK = 4096  # bytes of base64 that one kitty sequence may carry
_SIXEL_COLOURS = 128  # of 256 registers at most; more are hardly seen and cost bytes
_SIXEL_BAND = 6  # rows
_NOTHING = 255  # stands for a transparent pixel, and is no colour
_RUN = re.compile(rb"(.)\1{3,}", re.DOTALL)


def escape_sequence(protocol: str, picture: "Image", cells: tuple[int, int]) -> str:
    """Returns what makes a terminal draw `picture` at the cursor.

    Args:
        protocol: kitty, iterm2 or sixel.
        picture: RGBA.
        cells: Columns and lines to fill. sixel knows pixels only: there the picture must have as
            many as the cells have.

    Raises:
        ValueError: There is no such protocol.
    """
    if protocol == "kitty":
        return _kitty(picture, cells)
    if protocol == "iterm2":
        return _iterm2(picture, cells)
    if protocol == "sixel":
        return _sixel(picture)
    raise ValueError(f"there is no protocol {protocol!r}")


def _png(picture: "Image") -> bytes:
    file = BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _kitty(picture: "Image", cells: tuple[int, int]) -> str:
    data = standard_b64encode(_png(picture)).decode()
    chunks = [data[at : at + _KITTY_CHUNK] for at in range(0, len(data), _KITTY_CHUNK)]
    # a=T: send and show; f=100: PNG; q=2: no reply; C=1: leave the cursor where it is
    keys = f"a=T,f=100,q=2,C=1,c={cells[0]},r={cells[1]},"
    parts = []
    for number, chunk in enumerate(chunks, 1):
        parts.append(f"\x1b_G{keys}m={int(number < len(chunks))};{chunk}\x1b\\")
        keys = "q=2,"
    return "".join(parts)


def _iterm2(picture: "Image", cells: tuple[int, int]) -> str:
    png = _png(picture)
    keys = f"inline=1;size={len(png)};width={cells[0]};height={cells[1]};preserveAspectRatio=0"
    return f"\x1b]1337;File={keys}:{standard_b64encode(png).decode()}\x07"


def _sixel(picture: "Image") -> str:
    import numpy as np

    paletted = picture.convert("RGB").quantize(_SIXEL_COLOURS)
    indices = np.array(paletted)  # (H, W)
    indices[np.asarray(picture.getchannel("A")) == 0] = _NOTHING
    palette = (paletted.getpalette() or [])[: 3 * _SIXEL_COLOURS]
    colours = "".join(
        "#{};2;{};{};{}".format(at // 3, *(round(v / 2.55) for v in palette[at : at + 3]))
        for at in range(0, len(palette), 3)
    )
    bands = "-".join(_sixel_bands(indices))
    # P2=1: what no colour is said for stays as it is on the screen
    return f'\x1bP0;1;0q"1;1;{picture.width};{picture.height}{colours}{bands}\x1b\\'


def _sixel_bands(indices: "NDArray[np.uint8]") -> Iterator[str]:
    """Six rows at a time: for each colour in them a byte a column, whose bits are the rows."""
    import numpy as np

    weights = (1 << np.arange(_SIXEL_BAND)).astype(np.uint8)
    for top in range(0, len(indices), _SIXEL_BAND):
        band = indices[top : top + _SIXEL_BAND]  # (6, W), the last one perhaps lower
        colours = np.unique(band[band != _NOTHING])
        here = band == colours[:, None, None]  # (colours, 6, W)
        rows = (here * weights[: len(band), None]).sum(axis=1, dtype=np.uint8) + 63
        lines = (_RUN.sub(_repeat, row.tobytes()).decode() for row in rows)
        yield "$".join(f"#{colour}{line}" for colour, line in zip(colours, lines, strict=True))


def _repeat(run: re.Match[bytes]) -> bytes:
    return b"!%d%s" % (len(run[0]), run[1])
