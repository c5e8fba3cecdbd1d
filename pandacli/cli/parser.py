"""A command as a Typer parser: imported on use, with plain help and short usage errors."""

import os
import re
import sys
from importlib import import_module
from shlex import join, quote
from typing import Any

import typer
import typer.core
from typer.exceptions import TyperException

from pandacli.cli.config import READERS, nearest, variable
from pandacli.cli.help import COMMANDS, OPTIONS, coloured, examples
from pandacli.cli.options import expand
from pandacli.errors import UsageError

_SETTINGS = {"help_option_names": ["--help", "-h"], "max_content_width": 80}


def run_command(words: list[str]) -> int:
    """Parse and run a command; return the exit code."""
    name, *arguments = words
    if name not in COMMANDS:
        raise _not_a_command(name, arguments)
    command = load_command(name)
    try:
        with command.make_context(f"panda {name}", arguments) as context:
            command.invoke(context)
    except typer.Exit as done:
        return int(done.exit_code)
    except TyperException as error:
        raise _usage_error(error, command) from error
    return 0


def load_command(name: str) -> Any:
    """Import the module of a command and return its parser."""
    function = getattr(import_module(f"pandacli.cli.{COMMANDS[name].module}"), name)
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(name, cls=_Command, context_settings=_SETTINGS)(expand(function))
    return typer.main.get_command(app)


class _AsGiven:
    """Stands in for Typer's conversion of values; importing what that uses takes 0.1 s.

    All values are flags or texts, which callbacks read.
    """

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:  # noqa: ARG002
        if not (param.multiple or param.nargs == -1):
            return value
        return () if value is None else list(value)


class _Command(typer.core.TyperCommand):
    """A command with plain help in sections."""

    def get_params(self, ctx: Any) -> list[Any]:
        parameters = super().get_params(ctx)
        for parameter in parameters:
            parameter.get_runtime_param = _AsGiven  # type: ignore[attr-defined]
        return parameters

    def invoke(self, ctx: Any) -> Any:
        if not ctx.params.get("quiet"):
            _notice_misspelt_variables()
        return super().invoke(ctx)

    def get_help(self, ctx: Any) -> str:
        text = f"{super().get_help(ctx)}\n\n{examples(COMMANDS[str(self.name)].examples)}"
        return coloured(text, sys.stdout)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:  # noqa: ARG002
        return [self.options_metavar or "", *_arguments(self)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write a list for each panel of options, in the order of the parameters."""
        sections: dict[str, list[tuple[str, str]]] = {}
        parameters: list[Any] = list(self.get_params(ctx))
        for parameter in parameters:
            names = ", ".join(sorted(parameter.opts, key=len))  # without --no-...
            term = f"{names} {parameter.metavar or ''}".rstrip()
            heading = parameter.rich_help_panel or "Other"
            if parameter.param_type_name == "argument":
                heading, term = "Arguments", parameter.metavar
            sections.setdefault(heading, []).append((term, parameter.help or ""))
        # the same width in all sections keeps the second column in line
        width = max(len(term) for rows in sections.values() for term, _ in rows)
        for heading, rows in sections.items():
            with formatter.section(heading):
                formatter.write_dl([(term.ljust(width), text) for term, text in rows])


def _notice_misspelt_variables() -> None:
    known = {*map(variable, READERS), "PANDA_HOME", "PANDA_API_KEY"}
    for name in os.environ:
        if name.startswith("PANDA_") and name not in known and (near := nearest(name, known, 0.85)):
            from pandacli.terminal.console import Screen

            Screen().notice(f"{name} has no meaning; did you mean {near}?")


def _arguments(command: Any) -> list[str]:
    return [p.metavar for p in command.params if p.param_type_name == "argument"]


def _not_a_command(word: str, others: list[str]) -> UsageError:
    if word.startswith("-"):
        name = next((other for other in others if other in COMMANDS), None)
        if name is None:
            return _no_such_option("panda", word.split("=")[0], ", ".join(OPTIONS).split(", "))
        others.remove(name)
        command = join(["panda", name, word, *others])
        return UsageError("options come after the command", command=command)
    if os.path.isfile(word):  # noqa: PTH113  (pathlib raises for a long question)
        command = f'panda ask {quote(word)} "what happens?"'
        return UsageError(f"{word} is a file, not a command", "to ask about it:", command=command)
    near = nearest(word, COMMANDS)
    hint = f"did you mean panda {near}?" if near else "see panda --help"
    return UsageError(f"{word} is not a command", hint)


def _no_such_option(called: str, option: str, names: list[str]) -> UsageError:
    near = nearest(option, names, 0.7)
    hint = f"did you mean {near}?" if near else f"see {called} --help"
    return UsageError(f"{called} has no option {option}", hint)


def _usage_error(error: Any, command: Any) -> UsageError:
    """Return an error of Typer's parser as one of ours."""
    called = f"panda {command.name}"
    see = f"see {called} --help"
    usage = f"usage: {' '.join([called, *_arguments(command)])}"
    message = error.format_message().rstrip(".")
    if hasattr(error, "possibilities"):
        names = [name for p in command.params for name in (*p.opts, *p.secondary_opts)]
        return _no_such_option(called, error.option_name, names)
    if option := getattr(error, "option_name", None):
        metavar = next((p.metavar for p in command.params if option in p.opts), None)
        if metavar is None:
            return UsageError(f"{option} takes no value", see)
        article = "an" if metavar in ("N", "X", "I/N") else "a"
        return UsageError(f"{option} needs {article} {metavar}", see)
    if hasattr(error, "param_type"):  # a missing argument
        return UsageError(f"{error.param.metavar.rstrip('.')} is missing", usage)
    if extra := re.search(r"unexpected extra argument\S* \((.*)\)", message, re.DOTALL):
        return UsageError(f"too many arguments: {extra[1]}", usage)
    return UsageError(message[:1].lower() + message[1:], see)
