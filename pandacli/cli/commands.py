"""The group of all commands: its help, and the answer to a word that is no command."""

from difflib import get_close_matches
from pathlib import Path
from typing import Any

import typer.core

from pandacli.cli.settings import config_path
from pandacli.errors import UsageError

_EXIT_CODES = (
    ("0", "done"),
    ("1", "finished, but some questions of a batch failed"),
    ("2", "wrong usage"),
    ("3", "the video, or the file of questions or answers, cannot be used"),
    ("4", "the model is missing, damaged or cannot be had"),
    ("5", "out of memory, or no such device"),
    ("130", "interrupted"),
)


class Commands(typer.core.TyperGroup):
    """The commands of `panda`; an unknown one is answered with the nearest."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Returns what the parser makes of `args`.

        Raises:
            UsageError: The first word is no command.
        """
        word = args[0]
        if word.startswith("-") or word in self.commands:
            return super().resolve_command(ctx, args)
        if Path(word).is_file():
            raise UsageError(f"{word} is not a command", f"did you mean panda ask {word} ...?")
        near = get_close_matches(word, self.commands, n=1)
        raise UsageError(
            f"{word} is not a command",
            f"did you mean panda {near[0]}?" if near else "see panda --help",
        )

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """Writes what holds for all commands, after the list of them."""
        file = str(config_path()).replace(str(Path.home()), "~", 1)
        with formatter.section("Defaults for the options (variables go before the file)"):
            formatter.write_dl([("PANDA_MODEL=tiny, PANDA_MAX_TOKENS=64, PANDA_JSON=1 ...", "")])
            formatter.write_dl([(f'{file}: lines like model = "tiny"', "")])
        with formatter.section("Exit codes"):
            formatter.write_dl(list(_EXIT_CODES))
