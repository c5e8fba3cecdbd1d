"""The command line as a tree of commands."""

from typing import Annotated

import typer

from pandacli import __version__
from pandacli.cli.ask import ask
from pandacli.cli.batch import batch
from pandacli.cli.chat import chat
from pandacli.cli.commands import Commands
from pandacli.cli.demo import demo
from pandacli.cli.doctor import doctor
from pandacli.cli.frames import frames
from pandacli.cli.help import PlainCommand
from pandacli.cli.info import info
from pandacli.cli.models import models
from pandacli.cli.pull import pull
from pandacli.cli.rm import rm

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
        typer.echo(f"panda {__version__}")
        raise typer.Exit


def _help(context: typer.Context, wanted: bool) -> None:
    if wanted:
        typer.echo(context.get_help())
        raise typer.Exit


# Typer's own --help makes it import pydantic, a third of the time that help takes.
@app.callback(add_help_option=False)
def panda(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
    show_help: Annotated[
        bool,
        typer.Option(
            "--help", "-h", callback=_help, is_eager=True, help="Show this message and exit."
        ),
    ] = False,
) -> None:
    """Ask questions about a video, on your own machine."""


app.command(cls=PlainCommand)(ask)
app.command(cls=PlainCommand)(chat)
app.command(cls=PlainCommand)(batch)
app.command(cls=PlainCommand)(frames)
app.command(cls=PlainCommand)(demo)
app.command(cls=PlainCommand)(models)
app.command(cls=PlainCommand)(pull)
app.command(cls=PlainCommand)(info)
app.command(cls=PlainCommand)(rm)
app.command(cls=PlainCommand)(doctor)
