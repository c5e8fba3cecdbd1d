"""`panda doctor`: what matters about this machine and installation when something is wrong."""

from typing import TYPE_CHECKING

import typer

from pandacli.cli import options, settings
from pandacli.cli.config_file import config_path
from pandacli.errors import UsageError
from pandacli.terminal.console import Screen

if TYPE_CHECKING:
    from pandacli.diagnostics.facts import Section

_PROBLEMS = 1  # the exit code where something is wrong


def doctor(json: options.Json = None, debug: options.Debug = None) -> None:
    """Check this installation.

    Versions, devices, memory, engines, places of files and the terminal. What
    is wrong is marked PROBLEM, and makes the exit code 1. At the end stands how
    video-panda-7b is best run on this machine. Tokens and passwords are never
    shown.
    """
    from pandacli.diagnostics import examine
    from pandacli.terminal.capabilities import terminal
    from pandacli.terminal.doctor import report_json, show_report

    screen = Screen()
    with screen.status("examining"):
        sections = examine([_defaults(), terminal()])
    if _wants_json(json, debug):
        screen.line(report_json(sections, pretty=screen.stdout_is_terminal))
    else:
        show_report(sections, screen)
    if any(fact.problem for section in sections for fact in section.facts):
        raise typer.Exit(_PROBLEMS)


def _wants_json(json: bool | None, debug: bool | None) -> bool:
    """Whether to print JSON; defaults that cannot be read are among the findings, not an error."""
    try:
        return bool(settings.resolve({"json": json, "debug": debug})["json"])
    except UsageError:
        return bool(json)


def _defaults() -> "Section":
    """The configuration file, and the options that it or the variables set."""
    from pandacli.diagnostics.facts import Fact, Section, find

    path = config_path()
    there = str(path) if path.exists() else {"path": str(path), "state": "not there"}
    return Section("Defaults", [Fact("file", there), find("set", _options_set)])


def _options_set() -> list[str]:
    from pandacli.diagnostics.software import without_logins

    values = settings.resolve(dict.fromkeys(settings.SETTINGS))
    return [
        f"{name} = {without_logins(str(value))}"
        for name, value in values.items()
        if value != settings.SETTINGS[name].built_in
    ]
