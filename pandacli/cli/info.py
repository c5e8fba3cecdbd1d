"""`panda info`: one model in detail."""

from typing import Annotated

import typer

from pandacli.cli import options, settings
from pandacli.terminal.console import Screen


def info(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", show_default=False, help="A name, or a checkpoint folder."),
    ],
    json: options.Json = None,
    debug: options.Debug = None,
) -> None:
    """Show one model: sizes, files, copies.

    Nothing is loaded. The digests are those of the files that panda pull has
    checked.
    """
    from pandacli.checkpoints import describe_checkpoint, find_model
    from pandacli.terminal.listings import model_json, show_model

    chosen = settings.resolve({"json": json, "debug": debug})
    screen = Screen()
    found = find_model(model)
    described = describe_checkpoint(found.checkpoint.folder) if found.checkpoint else None
    if chosen["json"]:
        screen.line(model_json(found, described, pretty=screen.stdout_is_terminal))
    else:
        show_model(found, described, screen)
