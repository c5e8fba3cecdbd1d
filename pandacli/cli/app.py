"""The group of all commands: each imported when it is used, and the answer to an unknown one.

The command line as a tree of commands; which there are says `overview`.
"""

import os
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from importlib import import_module
from shlex import quote
from typing import Annotated, Any

import typer
import typer.core

from pandacli.cli.help import PlainCommand
from pandacli.cli.overview import COMMANDS, OPTIONS, SUMMARY, VERSION, overview
from pandacli.errors import UsageError


class Commands(typer.core.TyperGroup):
    """The commands of `panda`; an unknown one is answered with the nearest."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands: Any = _ImportedWhenUsed()

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Returns what the parser makes of `args`.

        Raises:
            UsageError: The first word is no command.
        """
        word = args[0]
        if word.startswith("-") or word in self.commands:
            return super().resolve_command(ctx, args)
        if os.path.isfile(word):  # noqa: PTH113  (no question is too long for it)
            command = f'panda ask {quote(word)} "what happens?"'
            raise UsageError(
                f"{word} is a file, not a command", "to ask about it:", command=command
            )
        near = get_close_matches(word, self.commands, n=1)
        raise UsageError(
            f"{word} is not a command",
            f"did you mean panda {near[0]}?" if near else "see panda --help",
        )

    def get_help(self, ctx: Any) -> str:  # noqa: ARG002
        """Returns the help, which the commands are not imported for."""
        return overview()


class _ImportedWhenUsed(Mapping[str, Any]):
    """The commands by name, each imported when it is looked up."""

    def __getitem__(self, name: str) -> Any:
        if name not in COMMANDS:
            raise KeyError(name)
        function = getattr(import_module(f"pandacli.cli.{name}"), name)
        alone = typer.Typer(add_completion=False, rich_markup_mode=None)
        alone.command(name, cls=PlainCommand)(function)
        return typer.main.get_command(alone)

    def __contains__(self, name: object) -> bool:
        return name in COMMANDS

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


app = typer.Typer(
    name="panda",
    add_completion=False,
    cls=Commands,
    invoke_without_command=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 80},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(VERSION)
        raise typer.Exit


def _help(wanted: bool) -> None:
    if wanted:
        typer.echo(overview())
        raise typer.Exit


# Typer's own --help makes it import pydantic, a third of the time that help takes.
@app.callback(add_help_option=False, help=SUMMARY)
def panda(
    version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", callback=_version, is_eager=True, help=OPTIONS["-V, --version"]
        ),
    ] = False,
    show_help: Annotated[
        bool,
        typer.Option("--help", "-h", callback=_help, is_eager=True, help=OPTIONS["-h, --help"]),
    ] = False,
) -> None:
    """What `panda` takes before the name of a command."""
