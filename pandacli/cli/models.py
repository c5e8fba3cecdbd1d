"""`panda models`: what is on this machine, and what can be had."""

from pandacli.cli import options, settings
from pandacli.terminal.console import Screen
from pandacli.terminal.report import size


def models(json: options.Json = None, debug: options.Debug = None) -> None:
    """List installed and available models.

    A model that is here has a line for each form of it: as published, and in
    fewer bits. Piped, there are tabs between name, quantisation, size, licence
    and path.
    """
    from pandacli.checkpoints import inventory
    from pandacli.terminal.listings import models_json, show_models

    chosen = settings.resolve({"json": json, "debug": debug})
    screen = Screen()
    found = inventory()
    if chosen["json"]:
        screen.line(models_json(found, pretty=screen.stdout_is_terminal))
    else:
        show_models(found, screen)
    for model in found:
        if model.leftovers:
            left = f"{size(model.leftover_bytes)} of unfinished or damaged copies of {model.name}"
            screen.notice(f"{left} can be removed with:", f"panda rm {model.name}")
