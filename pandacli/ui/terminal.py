"""What the terminal can show, as far as its environment tells; it is never asked."""

import os
import shutil
import sys
from collections.abc import Mapping
from typing import TextIO

from pandacli.engine.facts import Section, find

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
