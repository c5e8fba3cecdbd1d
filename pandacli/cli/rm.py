"""`panda rm`: a model, or one form of it, off this machine."""

from typing import Annotated

import typer

from pandacli.cli import options, settings
from pandacli.errors import UsageError
from pandacli.terminal.console import Screen
from pandacli.terminal.report import size

QUANTS = ("4bit", "8bit", "none")
"""What `--quant` takes here: one of the forms that can be deleted."""

_DELETES = "Removal"


def rm(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", show_default=False, help="A name, or a checkpoint folder."),
    ],
    quant: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="Only the 4bit or 8bit copy, or only the download (none).",
            rich_help_panel=_DELETES,
        ),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask.", rich_help_panel=_DELETES)
    ] = False,
    quiet: options.Quiet = None,
    debug: options.Debug = None,
) -> None:
    """Remove a model from this machine.

    Deletes its files in the Hugging Face cache, whoever downloaded them, and
    its copies in fewer bits, finished or not. A folder of yours stays; only the
    copies that were made from it go.
    """
    from pandacli.checkpoints import plan_removal, remove

    chosen = settings.resolve({"quiet": quiet, "debug": debug})
    screen = Screen(quiet=chosen["quiet"])
    # Not PANDA_QUANT or the file: a default for answers must not choose what is deleted.
    if quant is not None and quant not in QUANTS:
        raise UsageError(f"--quant: {quant!r} is not one of {', '.join(QUANTS)}")
    removal = plan_removal(model, quant)
    parts = ["the download"] if removal.download else []
    parts += [f"the {copy.quant} copy ({copy.form})" for copy in removal.artifacts]
    parts += [f"an unfinished or damaged copy ({left.form})" for left in removal.leftovers]
    what = f"{' and '.join(parts)} of {model}, {size(removal.bytes)}"
    if not yes:
        if not screen.is_interactive:
            raise UsageError(f"nobody to ask whether to delete {what}", "add --yes to delete it")
        if not screen.confirm(f"delete {what}?"):
            screen.notice("nothing was deleted")
            return
    remove(removal)
    screen.notice(f"deleted {what}")
