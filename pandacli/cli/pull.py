"""`panda pull`: a model onto this machine, in the form that suits it."""

from typing import Annotated

import typer

from pandacli.cli import options, settings
from pandacli.cli.downloads import get_ready, go_offline
from pandacli.terminal.console import Screen


def pull(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", show_default=False, help="A name, or a checkpoint folder."),
    ],
    quant: options.Quant = None,
    engine: options.Engine = None,
    device: options.Device = None,
    offline: options.Offline = None,
    drop_original: Annotated[
        bool,
        typer.Option(
            "--drop-original/--keep-original",
            help="Delete the download once it is quantised.",
            rich_help_panel="Files",
        ),
    ] = False,
    quiet: options.Quiet = None,
    debug: options.Debug = None,
) -> None:
    """Download a model and quantise it, once.

    Goes on where an interrupted download stopped, and checks every file. Files
    go to the Hugging Face cache; its variables (HF_HOME, HF_TOKEN, HF_ENDPOINT)
    hold. Pulled again, a model is brought up to date.
    """
    chosen = settings.resolve(
        {
            "quant": quant,
            "engine": engine,
            "device": device,
            "offline": offline,
            "quiet": quiet,
            "debug": debug,
        },
        settings.HERE,
    )
    if chosen["offline"]:
        go_offline()
    get_ready(
        model,
        Screen(quiet=chosen["quiet"]),
        quant=chosen["quant"],
        engine=chosen["engine"],
        device=chosen["device"],
        drop_original=drop_original,
    )
