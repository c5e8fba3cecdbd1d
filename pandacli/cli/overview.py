"""What `panda` says about itself: its help, which names the commands, and its version.

It is plain text, made without Typer and without the commands: importing those takes longer than
all the rest of `panda --help`.
"""

from pathlib import Path

from pandacli import __version__
from pandacli.cli.config_file import config_path

VERSION = f"panda {__version__}"

SUMMARY = "Ask questions about a video, on your own machine."

OPTIONS = {
    "-V, --version": "Show the version.",
    "-h, --help": "Show this message and exit.",
}

COMMANDS = {
    "ask": "Ask one or more questions about a video.",
    "chat": "Talk about a video.",
    "batch": "Answer a file of questions.",
    "frames": "Show the frames that a model would look at.",
    "demo": "Ask the small model tiny about a bundled clip.",
    "models": "List installed and available models.",
    "pull": "Download a model and quantise it, once.",
    "info": "Show one model: sizes, files, copies.",
    "cache": "Show or clear cached clips.",
    "rm": "Remove a model from this machine.",
    "doctor": "Check this installation.",
}
"""Each command is the function of its name in the module of its name; the first line of its
docstring stands here too."""

EXIT_CODES = {
    "0": "done",
    "1": "finished, but some questions failed, or doctor found a problem",
    "2": "wrong usage",
    "3": "the video, or the file of questions or answers, cannot be used",
    "4": "the model is missing, damaged or cannot be downloaded",
    "5": "out of memory, or no such device",
    "70": "a fault in panda itself",
    "130": "interrupted",
    "141": "broken pipe",
    "143": "terminated by a signal",
}


_EXAMPLES = {
    "panda demo": "",
    'panda ask clip.mp4 "what happens?"': "",
    "panda chat clip.mp4": "",
}


def summary() -> str:
    """Returns the commands with examples, for a terminal of 24 lines of 80 columns."""
    sections = (
        f"Usage: panda COMMAND [OPTIONS]\n\n  {SUMMARY}",
        _section("Examples", _EXAMPLES),
        _section("Commands", COMMANDS),
        "panda --help and panda COMMAND --help say more.",
    )
    return "\n\n".join(sections)


def overview() -> str:
    """Returns the help of `panda`, for a terminal of 80 columns."""
    file = str(config_path()).replace(str(Path.home()), "~", 1)
    defaults = {
        "PANDA_MODEL=tiny, PANDA_MAX_TOKENS=64, PANDA_JSON=1 ...": "",
        f'{file}: lines like model = "tiny"': "",
    }
    sections = (
        f"Usage: panda [OPTIONS] COMMAND [ARGS]...\n\n  {SUMMARY}",
        _section("Examples", _EXAMPLES),
        _section("Options", OPTIONS),
        _section("Commands", COMMANDS),
        _section("Defaults for the options (variables go before the file)", defaults),
        _section("Exit codes", EXIT_CODES),
    )
    return "\n\n".join(sections)


def _section(heading: str, rows: dict[str, str]) -> str:
    width = max(map(len, rows))
    lines = (f"  {term:<{width}}  {text}".rstrip() for term, text in rows.items())
    return "\n".join([f"{heading}:", *lines])
