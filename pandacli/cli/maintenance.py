"""`panda cache`, `doctor` and `completions`: about this installation."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pandacli.cli import config, options
from pandacli.errors import PandaError, UsageError
from pandacli.terminal.console import Screen
from pandacli.units import size

if TYPE_CHECKING:
    from pandacli.diagnostics import Section

SHELLS = ("bash", "zsh", "fish")


def cache(
    clear: Annotated[bool, options.plain("Removal", "--clear", "Remove all of it.")] = False,
    json: options.Json = False,
    _debug: options.Debug = False,
) -> None:
    """Show or clear cached clips and scores.

    What the model has read of a clip is kept after panda ask and panda chat,
    and the next question about it is answered sooner. PANDA_CACHE_SIZE=8GB
    keeps more of it, PANDA_CACHE_SIZE=0 nothing. Piped, there are tabs between
    size, time of the last use, model, range and clip. The scores of panda find
    are kept as well, up to 100 MB of them.
    """
    from pandacli.prefix_cache.store import PrefixStore
    from pandacli.terminal.listings import (
        prefixes_record,
        scores_record,
        show_prefixes,
        show_scores,
    )
    from pandacli.timeline.scores import ScoreStore

    screen = Screen()
    budget = config.configured("cache-size")
    prefixes = PrefixStore(options.CACHE_SIZE if budget is None else budget)
    with ScoreStore(prefixes.budget, notice=screen.notice) as scores:
        if clear:
            freed, count = prefixes.bytes, scores.count
            if not prefixes.clear():
                raise PandaError(f"cannot delete all of {prefixes.folder}")
            if not scores.clear():
                raise PandaError(f"cannot delete {scores.path}")
            screen.notice(f"removed {size(freed)}" + (f" and {count:,} scores" if count else ""))
        if json:
            screen.json(prefixes_record(prefixes) | {"scores": scores_record(scores)})
        elif not clear:
            show_prefixes(prefixes, screen)
            show_scores(scores, screen)


# without defaults from variables and the file, which doctor reports even if they are not valid
_JSON = options.plain(options.OUTPUT, "--json/--no-json", "One JSON object.")
_DEBUG = options.plain(options.OUTPUT, "--debug/--no-debug", "Tracebacks for errors.")


def doctor(
    json: Annotated[bool | None, _JSON] = None, _debug: Annotated[bool, _DEBUG] = False
) -> None:
    """Check this installation.

    Versions, devices, memory, engines, places of files and the terminal. What
    is wrong is marked PROBLEM, and makes the exit code 1. At the end stands how
    video-panda-7b is best run on this machine. Tokens and passwords are never
    shown.
    """
    from pandacli.diagnostics import examine
    from pandacli.terminal.listings import report_record, show_report, terminal_section

    screen = Screen()
    with screen.status("examining"):
        shown_variables = {config.variable(name) for name in config.READERS}
        sections = examine(shown_variables, [_defaults(), terminal_section()])
    if json is None:
        try:
            json = bool(config.configured("json"))
        except UsageError:
            json = False
    if json:
        screen.json(report_record(sections))
    else:
        show_report(sections, screen)
    if any(fact.problem for section in sections for fact in section.facts):
        raise typer.Exit(1)


def _defaults() -> "Section":
    """The configuration file, and the options that it or the variables set."""
    from pandacli.diagnostics import Fact, Section, find
    from pandacli.diagnostics.software import without_logins

    def options_set() -> list[str]:
        values = {name: config.configured(name) for name in config.READERS}
        return [f"{n} = {without_logins(str(v))}" for n, v in values.items() if v is not None]

    path = config.config_path()
    there = str(path) if path.exists() else {"path": str(path), "state": "not there"}
    return Section("Defaults", [Fact("file", there), find("set", options_set)])


def completions(shell: Annotated[str, options.argument("SHELL", "bash, zsh or fish.")]) -> None:
    """Print the completion file of a shell.

    Append it to ~/.bashrc, save it as _panda in a folder of zsh's fpath, or
    save it as panda.fish in ~/.config/fish/completions.
    """
    if shell not in SHELLS:
        raise UsageError(f"there are no completions for {shell}", f"choose {', '.join(SHELLS)}")
    package = Path(__file__).parents[1]
    installed = package / "assets" / "completions"  # in a wheel; a checkout has them at its top
    folder = installed if installed.is_dir() else package.parent / "completions"
    Screen().write((folder / f"panda.{shell}").read_text("utf-8"))
