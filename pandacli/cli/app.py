"""The command line as a tree of commands; which there are says `overview`."""

from typing import Annotated

import typer

from pandacli.cli.commands import Commands
from pandacli.cli.overview import OPTIONS, SUMMARY, VERSION, overview

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
