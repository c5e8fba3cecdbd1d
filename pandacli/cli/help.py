"""The table of commands, and the help of `panda`, which needs no parser: Typer loads slowly."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TextIO

from pandacli import __version__

VERSION = f"panda {__version__}"
SUMMARY = "Ask questions about a video, on your own machine."
OPTIONS = {"-V, --version": "Show the version.", "-h, --help": "Show this message and exit."}


class Command:
    """A command: `module` of pandacli.cli has a function of its name, and the same summary."""

    def __init__(self, module: str, summary: str, *examples: str) -> None:
        self.module, self.summary, self.examples = module, summary, examples


COMMANDS = {
    "ask": Command(
        "ask",
        "Ask one or more questions about a video.",
        'panda ask clip.mp4 "what happens?"',
        'panda ask clip.mp4 "who enters?" "and then?" --from 0:10 --to 0:30',
        'panda ask clip.mp4 "what happens?" --json > answer.json',
        'panda ask clips/ -q "what happens?" -q "is there a star?"',
        'panda ask film.mp4 "what happens?" --every 10s --format srt > film.srt',
    ),
    "chat": Command(
        "chat",
        "Talk about a video.",
        "panda chat clip.mp4",
        "panda chat clip.mp4 --from 1:00 --frames 16",
        "panda chat --continue",
    ),
    "when": Command(
        "when",
        "Find when the answer to a question is yes.",
        'panda when film.mp4 "Is there a star?"',
        'panda when film.mp4 "a dog runs" --from 10:00 --window 4s',
        'panda when film.mp4 "Is it raining?" --format edl > rain.edl',
    ),
    "find": Command(
        "find",
        "Find the clips that show something.",
        'panda find clips "a red circle moves right"',
        'panda find film.mp4 "a red circle moves right" --every 10s',
        'panda find clips --recursive "is there a star?" --top 3 --json',
    ),
    "serve": Command(
        "serve",
        "Serve an OpenAI-compatible endpoint and a page.",
        "panda serve --model tiny",
        "panda serve --model tiny --background",
        "panda serve --media-dir ~/Videos --keep-alive 10m",
    ),
    "stop": Command(
        "serve",
        "Stop the servers that panda serve started.",
        "panda stop",
        "panda stop tiny",
    ),
    "mcp": Command(
        "mcp",
        "Let an assistant look at videos (MCP).",
        "panda mcp --media-dir ~/Videos",
        "panda mcp --media-dir clips --model tiny --keep-alive 10m",
    ),
    "batch": Command(
        "batch",
        "Answer a file of questions.",
        "panda batch questions.jsonl",
        "panda batch questions.csv -o answers.csv --video-dir clips",
        "panda batch questions.jsonl --shard 1/4",
    ),
    "eval": Command(
        "eval",
        "Score files of answers.",
        "panda eval questions.answers.jsonl",
        "panda eval merge.jsonl --questions test_q.json --report scores",
        "panda eval merge.jsonl --judge qwen3 --judge-url http://localhost:8000/v1",
    ),
    "frames": Command(
        "frames",
        "Show the frames that a model would look at.",
        "panda frames clip.mp4",
        "panda frames clip.mp4 --from 0:10 --to 0:20 --save sheet.png",
    ),
    "demo": Command(
        "frames",
        "Ask the small model tiny about a bundled clip.",
        "panda demo",
        "panda demo --stats",
    ),
    "models": Command(
        "models", "List installed and available models.", "panda models", "panda models --json"
    ),
    "pull": Command(
        "models",
        "Download a model and quantise it, once.",
        "panda pull video-panda-7b",
        "panda pull video-panda-7b --quant 4bit --drop-original",
    ),
    "info": Command(
        "models",
        "Show one model: sizes, files, copies.",
        "panda info video-panda-7b",
        "panda info ./checkpoint --json",
    ),
    "cache": Command(
        "maintenance",
        "Show or clear cached clips and scores.",
        "panda cache",
        "panda cache --clear",
    ),
    "rm": Command(
        "models",
        "Remove a model from this machine.",
        "panda rm video-panda-7b",
        "panda rm video-panda-7b --quant 8bit --yes",
    ),
    "doctor": Command(
        "maintenance", "Check this installation.", "panda doctor", "panda doctor --json"
    ),
    "completions": Command(
        "maintenance",
        "Print the completion file of a shell.",
        "panda completions bash >> ~/.bashrc",
        'panda completions zsh > "${fpath[1]}/_panda"',
        "panda completions fish > ~/.config/fish/completions/panda.fish",
    ),
}

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

_RARE = ("info", "rm", "completions", "stop")  # named at the end of the summary, which has to fit
_EXAMPLES = ("panda demo", 'panda ask clip.mp4 "what happens?"', "panda chat clip.mp4")


def summary() -> str:
    """Return the commands with examples, for a terminal of 24 lines of 80 columns."""
    usage = f"Usage: panda COMMAND [OPTIONS]\n  {SUMMARY}"
    often = _summaries(name for name in COMMANDS if name not in _RARE)
    more = f"Also: {', '.join(_RARE)}. See panda --help, panda COMMAND --help."
    return "\n\n".join([usage, examples(_EXAMPLES[1:2]), f"{often}\n{more}"])


def overview() -> str:
    """Return the help of `panda`, for a terminal of 80 columns."""
    from pandacli.cli.config import config_path

    file = str(config_path()).replace(str(Path.home()), "~", 1)
    variables = "PANDA_MODEL=tiny, PANDA_MAX_TOKENS=64, PANDA_JSON=1 ..."
    defaults = dict.fromkeys([variables, f'{file}: lines like model = "tiny"'], "")
    sections = (
        f"Usage: panda [OPTIONS] COMMAND [ARGS]...\n\n  {SUMMARY}",
        examples(_EXAMPLES),
        _section("Options", OPTIONS),
        _summaries(COMMANDS),
        _section("Defaults for the options (variables go before the file)", defaults),
        _section("Exit codes", EXIT_CODES),
    )
    return "\n\n".join(sections)


def examples(lines: Iterable[str]) -> str:
    return _section("Examples", dict.fromkeys(lines, ""))


def _summaries(names: Iterable[str]) -> str:
    return _section("Commands", {name: COMMANDS[name].summary for name in names})


def _section(heading: str, rows: dict[str, str]) -> str:
    width = max(map(len, rows))
    lines = (f"  {term:<{width}}  {text}".rstrip() for term, text in rows.items())
    return "\n".join([f"{heading}:", *lines])


def coloured(text: str, stream: TextIO) -> str:
    """Colour the headings and the first column of a help text, if `stream` is in colour."""
    from pandacli.terminal.text import colour

    def painted(name: str) -> Callable[[re.Match[str]], str]:
        return lambda match: colour(match[0], name, stream)

    head, sections = re.split(r"^(?=\S.*:$)", text, maxsplit=1, flags=re.MULTILINE)
    sections = re.sub(r"(?<=^  )\S+(?: \S+)*", painted("cyan"), sections, flags=re.MULTILINE)
    sections = re.sub(r"^\S.*:$", painted("bold"), sections, flags=re.MULTILINE)
    return re.sub(r"^Usage:", painted("bold"), head) + sections
