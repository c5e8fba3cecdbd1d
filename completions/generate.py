"""Write the completion files for bash, zsh and fish from the commands that `panda` has.

    python completions/generate.py            # or: make completions
    python completions/generate.py --check    # exits 1 if a file is not current

What the shells do is in `templates/`, readable as shell code; this fills in commands, options and
values. The results are static: a shell that completes `panda` never starts Python. A wheel has them
in `pandacli/assets/completions`.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pandacli.batch.formats import INPUT_FORMATS, OUTPUT_FORMATS
from pandacli.checkpoints import MODELS
from pandacli.cli.config import QUANTS
from pandacli.cli.help import COMMANDS, OPTIONS
from pandacli.cli.maintenance import SHELLS
from pandacli.cli.models import REMOVABLE
from pandacli.cli.parser import load_command
from pandacli.evaluation.scoring import PUBLISHED
from pandacli.inference.spec import ENGINES, RAY
from pandacli.terminal.console import GRAPHICS
from pandacli.timeline.formats import CAPTION_FORMATS, CUT_FORMATS
from pandacli.video.clip import VIDEO_SUFFIXES

HERE = Path(__file__).parent
VIDEOS = " ".join(suffix[1:] for suffix in VIDEO_SUFFIXES)
QUESTIONS = "jsonl json csv tsv parquet"
CHOICES = {
    "--model": tuple(MODELS),  # or a folder
    "--quant": QUANTS,
    "--engine": ENGINES,
    "--device": ("auto", "cpu", "cuda"),
    "--graphics": GRAPHICS,
    "--format": ("auto", *INPUT_FORMATS),
    "--output-format": (*OUTPUT_FORMATS, "same"),
    "--batch-size": ("auto",),  # or a number
    "--address": ("auto",),  # or a host
    "--choose": ("likelihood", "generate"),
    "--benchmark": tuple(PUBLISHED),
}
OWN_CHOICES = {  # where a command takes other values than the rest
    ("rm", "--quant"): REMOVABLE,
    ("batch", "--engine"): (*ENGINES, RAY),
    ("ask", "--format"): CAPTION_FORMATS,
    ("when", "--format"): (*CAPTION_FORMATS, *CUT_FORMATS),
    ("find", "--format"): ("csv",),
}
FILES = (
    *("--load", "--save", "--output", "--answers", "--questions", "--references", "--compare"),
    *("--blind", "--judge-prompt", "--judge-replies"),
)
FOLDERS = ("--video-dir", "--report")


@dataclass(frozen=True)
class Option:
    """An option: its names, whether a value follows, what it is for, and the values to offer."""

    names: tuple[str, ...]
    takes_value: bool
    help: str
    choices: tuple[str, ...]

    @property
    def model(self) -> bool:
        """Whether a model is the value: one of the choices, or a folder."""
        return self.names[-1] == "--model"

    @property
    def files(self) -> bool:
        """Whether a file is the value."""
        return self.takes_value and self.names[-1] in FILES

    @property
    def folders(self) -> bool:
        """Whether a folder is the value, and nothing else."""
        return self.names[-1] in FOLDERS


@dataclass(frozen=True)
class Command:
    """A command with its options.

    `takes` is its first argument, "" where there is none; `asks` is whether questions follow.
    """

    name: str
    help: str
    options: tuple[Option, ...]
    takes: str
    asks: bool


def read_program() -> tuple[Command, list[Command]]:
    """Return `panda` itself and its commands."""
    options = [
        Option(tuple(names.split(", ")), False, _plain(OPTIONS[names]), ()) for names in OPTIONS
    ]
    return Command("panda", "", tuple(options), "", False), [_read(name) for name in COMMANDS]


def _read(name: str) -> Command:
    command = load_command(name)
    with command.make_context(name, [], resilient_parsing=True) as context:
        parameters = command.get_params(context)
    options = tuple(_option(name, p) for p in parameters if p.param_type_name == "option")
    arguments = [p.metavar.strip("[]") for p in parameters if p.param_type_name == "argument"]
    summary = _plain(COMMANDS[name].summary)
    asks = "QUESTION..." in arguments
    return Command(name, summary, options, next(iter(arguments), ""), asks)


def _option(command: str, parameter: Any) -> Option:
    # Without --no-…, as in the help: it only serves to overrule a default.
    names = tuple(sorted(parameter.opts, key=len))
    choices = OWN_CHOICES.get((command, names[-1])) or CHOICES.get(names[-1], ())
    return Option(names, not parameter.is_flag, _plain(parameter.help), choices)


def _plain(text: str) -> str:
    """Return a help text that is short enough for a menu."""
    text = text.split(" [default")[0].rstrip(".")
    if set(text) & set("'\"[]$`\\"):
        raise ValueError(f"the shells cannot quote this help text: {text}")
    return text


def _valued(commands: Sequence[Command]) -> list[str]:
    """Return a pattern of "COMMAND:NAME" for each option that takes a value."""
    flags = {n for c in commands for o in c.options if not o.takes_value for n in o.names}
    return sorted(
        {
            f"{command.name if name in flags else '*'}:{name}"  # a flag in another command
            for command in commands
            for option in command.options
            if option.takes_value
            for name in option.names
        }
    )


def bash(root: Command, commands: Sequence[Command]) -> dict[str, str]:
    """Return the replacements for `templates/panda.bash`."""
    arguments = {
        "VIDEO": "_panda_videos",
        "QUESTIONS": "_panda_questions",
        "ANSWERS...": "_panda_questions",
        "MODEL": "_panda_models",
        "SHELL": "_panda_shells",
    }
    command_cases = []
    for command in commands:
        names = " ".join(name for option in command.options for name in option.names)
        files = arguments.get(command.takes, ":")
        command_cases.append(f'        {command.name}) words="{names}"; files={files} ;;')
    value_cases, valued = {}, _valued(commands)
    for command in commands:
        for option in command.options:
            own = (command.name, option.names[-1]) in OWN_CHOICES
            place = "*:" if f"*:{option.names[-1]}" in valued and not own else f"{command.name}:"
            if offer := _bash_offer(option):
                value_cases[place, option.names] = "        {}) {}; return ;;".format(
                    "|".join(place + name for name in option.names), offer
                )
    return {
        "VIDEOS": "|".join(map(_any_case, VIDEOS.split())),
        "QUESTIONS": "|".join(map(_any_case, QUESTIONS.split())),
        "MODELS": " ".join(MODELS),
        "SHELLS": " ".join(SHELLS),
        "VALUED": "|".join(valued),
        "COMMANDS": " ".join(command.name for command in commands),
        "OPTIONS": " ".join(name for option in root.options for name in option.names),
        "COMMAND_CASES": "\n".join(command_cases),
        # those of one command first: bash takes the first that fits
        "VALUE_CASES": "\n".join(value_cases[key] for key in sorted(value_cases, reverse=True)),
    }


def _bash_offer(option: Option) -> str:
    """Return the bash code that offers the values of an option, "" for free text."""
    if option.model:
        return "_panda_models"
    if option.files:
        return "_panda_files"
    if option.folders:
        return "_panda_folders"
    return f'_panda_words "{" ".join(option.choices)}"' if option.choices else ""


def _any_case(suffix: str) -> str:
    """Return the pattern for a suffix in lower or upper case."""
    return "".join(f"[{c}{c.upper()}]" if c.isalpha() else c for c in suffix)


def zsh(root: Command, commands: Sequence[Command]) -> dict[str, str]:
    """Return the replacements for `templates/panda.zsh`."""
    cases = []
    for command in commands:
        specs = [spec for option in command.options for spec in _zsh_specs(option)]
        if command.takes == "MODEL":
            specs.append(f"'1:model:_panda_models {' '.join(MODELS)}'")
        if command.takes == "SHELL":
            specs.append(f"'1:shell:({' '.join(SHELLS)})'")
        if command.takes == "VIDEO":
            specs.append("'1:video:_panda_videos'")
        if command.takes == "QUESTIONS":
            specs.append("'1:file of questions:_panda_questions'")
        if command.takes == "ANSWERS...":
            specs.append("'*:file of answers:_panda_questions'")
        if command.asks:
            specs.append("'*:question:_panda_question'")
        arguments = " \\\n                ".join(["_arguments -s -S", *specs])
        cases.append(f"        ({command.name})\n            {arguments}\n            ;;")
    root_specs = [spec for option in root.options for spec in _zsh_specs(option)]
    return {
        "VIDEOS": VIDEOS.replace(" ", "|"),
        "QUESTIONS": QUESTIONS.replace(" ", "|"),
        "OPTIONS": " \\\n        ".join(root_specs),
        "COMMANDS": "\n        ".join(f"'{c.name}:{_colons(c.help)}'" for c in commands),
        "COMMAND_CASES": "\n".join(cases),
    }


def _zsh_specs(option: Option) -> list[str]:
    value = ""
    if option.model:
        value = f":value:_panda_models {' '.join(option.choices)}"
    elif option.choices:
        value = f":value:({' '.join(option.choices)})"
    elif option.files:
        value = ":file:_files"
    elif option.folders:
        value = ":folder:_path_files -/"
    elif option.takes_value:
        value = ":value: "
    names = " ".join(option.names)
    specs = []
    for name in option.names:
        joint = "=" if value and name.startswith("--") else ""
        specs.append(f"'({names}){name}{joint}[{_colons(option.help)}]{value}'")
    return specs


def _colons(text: str) -> str:
    return text.replace(":", "\\:")


def fish(root: Command, commands: Sequence[Command]) -> dict[str, str]:
    """Return the replacements for `templates/panda.fish`."""
    start = "__fish_use_subcommand"
    lines = [_fish_option(option, start) for option in root.options]
    for command in commands:
        inside = f"__fish_seen_subcommand_from {command.name}"
        lines.append(f"complete -c panda -n {start} -a {command.name} -d '{command.help}'")
        lines += [_fish_option(option, f"'{inside}'") for option in command.options]
        first = f"'{inside}; and __panda_before_argument'"
        if command.takes == "VIDEO":
            lines.append(f"complete -c panda -n {first} -a '(__panda_videos)'")
        if command.takes in ("QUESTIONS", "ANSWERS..."):
            lines.append(f"complete -c panda -n {first} -a '(__panda_questions)'")
        if command.takes == "SHELL":
            lines.append(f"complete -c panda -n {first} -a '{' '.join(SHELLS)}'")
        if command.takes == "MODEL":
            models = f"{' '.join(MODELS)} (__fish_complete_directories)"
            lines.append(f"complete -c panda -n {first} -a '{models}'")
    return {
        "VIDEOS": VIDEOS.replace(" ", "|"),
        "QUESTIONS": QUESTIONS.replace(" ", "|"),
        "VALUED": " ".join(f"'{pattern}'" for pattern in _valued(commands)),
        "COMPLETIONS": "\n".join(lines),
    }


def _fish_option(option: Option, condition: str) -> str:
    words = [f"complete -c panda -n {condition}"]
    words += [f"-l {n[2:]}" if n.startswith("--") else f"-s {n[1:]}" for n in option.names]
    if option.takes_value:
        words.append("-r -F" if option.files else "-x")
    offers = list(option.choices)
    if option.model or option.folders:
        offers.append("(__fish_complete_directories)")
    if offers:
        words.append(f"-a '{' '.join(offers)}'")
    return " ".join([*words, f"-d '{option.help}'"])


def generate() -> dict[Path, str]:
    """Return every completion file and its content."""
    root, commands = read_program()
    texts = {}
    for shell in (bash, zsh, fish):
        name = f"panda.{shell.__name__}"
        text = (HERE / "templates" / name).read_text()
        for key, value in shell(root, commands).items():
            text = text.replace(f"@{key}@", value)
        texts[HERE / name] = text
    return texts


def main() -> None:
    """Write the files, or with `--check` compare them."""
    texts = generate()
    if "--check" in sys.argv[1:]:
        stale = [str(p) for p, text in texts.items() if not p.exists() or p.read_text() != text]
        if stale:
            sys.exit(f"not current: {', '.join(stale)}; run make completions")
        return
    for path, text in texts.items():
        path.write_text(text)


if __name__ == "__main__":
    main()
