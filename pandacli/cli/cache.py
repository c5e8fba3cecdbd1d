"""`panda cache`: what was computed of clips, and is kept for the next time."""

from typing import Annotated

import typer

from pandacli.cli import options, settings
from pandacli.errors import PandaError
from pandacli.terminal.console import Screen
from pandacli.terminal.report import size


def cache(
    clear: Annotated[
        bool,
        typer.Option("--clear", help="Remove all of it.", rich_help_panel="Removal"),
    ] = False,
    json: options.Json = None,
    debug: options.Debug = None,
) -> None:
    """Show or clear cached clips.

    What the model has read of a clip is kept after panda ask and panda chat,
    and the next question about it is answered sooner. PANDA_CACHE_SIZE=8GB
    keeps more of it, PANDA_CACHE_SIZE=0 nothing. Piped, there are tabs between
    size, time of the last use, model, range and clip.
    """
    from pandacli.prefix_cache.store import PrefixStore
    from pandacli.terminal.listings import prefixes_json, show_prefixes

    chosen = settings.resolve({"json": json, "cache-size": None, "debug": debug})
    screen = Screen()
    prefixes = PrefixStore(chosen["cache-size"])
    if clear:
        freed = prefixes.bytes
        if not prefixes.clear():
            raise PandaError(f"cannot delete all of {prefixes.folder}")
        screen.notice(f"removed {size(freed)}")
    if chosen["json"]:
        screen.line(prefixes_json(prefixes, pretty=screen.stdout_is_terminal))
    elif not clear:
        show_prefixes(prefixes, screen)
