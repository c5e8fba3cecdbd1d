"""What the terminal can show, as far as its environment tells; it is never asked."""

import os
import shutil
import sys
from collections.abc import Mapping

from pandacli.engine.facts import Section, find

_KITTY_PROGRAMS = ("ghostty", "kitty", "WezTerm")
_ITERM_PROGRAMS = ("iTerm.app", "mintty", "vscode", "WarpTerminal")
_SIXEL_TERMS = ("foot", "mlterm", "contour", "yaft")


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
    if "KITTY_WINDOW_ID" in variables or "kitty" in term or program in _KITTY_PROGRAMS:
        return "kitty"
    if program in _ITERM_PROGRAMS or variables.get("LC_TERMINAL") == "iTerm2":
        return "iTerm2"
    if term.startswith(_SIXEL_TERMS) or "sixel" in term:
        return "sixel"
    return None
