"""Usage errors in our own short style: what is wrong, and what was perhaps meant.

Plain help: quick to show, and grouped where a command has many options.
"""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from shlex import join
from typing import Any

import typer.core
from typer.exceptions import TyperException

from pandacli.errors import UsageError


class PlainCommand(typer.core.TyperCommand):
    """A command whose help lists its options under the headings that they name."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:  # noqa: ARG002
        """Returns the words of the usage line after the command."""
        return [self.options_metavar or "", *arguments(self)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Writes one definition list for each heading, in the order of the parameters."""
        sections: dict[str, list[tuple[str, str]]] = {}
        parameters: list[Any] = list(self.get_params(ctx))
        for parameter in parameters:
            heading = "Arguments" if is_argument(parameter) else parameter.rich_help_panel
            sections.setdefault(heading or "Other", []).append(_entry(parameter))
        # One width for all lists keeps the second column in line.
        width = max(len(term) for rows in sections.values() for term, _ in rows)
        for heading, rows in sections.items():
            with formatter.section(heading):
                formatter.write_dl([(term.ljust(width), text) for term, text in rows])


def is_argument(parameter: Any) -> bool:
    """Whether `parameter` is given by its place and not by a name."""
    return bool(parameter.param_type_name == "argument")


def arguments(command: Any) -> list[str]:
    """Returns the names of the arguments of `command`, as the user reads them."""
    return [parameter.metavar for parameter in command.params if is_argument(parameter)]


def _entry(parameter: Any) -> tuple[str, str]:
    """The line of a parameter. `--no-…` stays out: it only serves to overrule a default."""
    text = parameter.help or ""
    if is_argument(parameter):
        return parameter.metavar, text
    names = ", ".join(sorted(parameter.opts, key=len))
    return f"{names} {parameter.metavar}" if parameter.metavar else names, text


_TOO_MANY = re.compile(r"unexpected extra argument\S* \((.*)\)", re.DOTALL)


def usage_error(error: TyperException, program: Any, words: Sequence[str]) -> UsageError:
    """Returns the error that Typer's parser raised as one of ours.

    Args:
        error: What was raised.
        program: The command `panda`.
        words: The arguments that it was given.
    """
    # an error in an option does not always know the command that it is of
    name = next((word for word in words if word in program.commands), None)
    command = program if name is None else program.commands[name]
    called = "panda" if name is None else f"panda {name}"
    see = f"see {called} --help"
    usage = f"usage: {' '.join([called, *arguments(command)])}"
    option = getattr(error, "option_name", None)
    parameter = getattr(error, "param", None)
    message = error.format_message().rstrip(".")
    if hasattr(error, "possibilities"):
        context = getattr(error, "ctx", None)
        names = [
            name
            for parameter in command.params
            for name in (*parameter.opts, *parameter.secondary_opts)
        ]
        if name is not None and context is not None and context.parent is None:
            place = words.index(name)
            return UsageError(
                "options come after the command",
                command=join(["panda", name, *words[:place], *words[place + 1 :]]),
            )
        near = get_close_matches(option or "", names, n=1, cutoff=0.7)
        return UsageError(
            f"{called} has no option {option}", f"did you mean {near[0]}?" if near else see
        )
    if option is not None:
        metavar = next((p.metavar for p in command.params if option in p.opts), None)
        if metavar is None:
            return UsageError(f"{option} takes no value", see)
        article = "an" if metavar in ("N", "X", "I/N") else "a"
        return UsageError(f"{option} needs {article} {metavar}", see)
    if parameter is not None and hasattr(error, "param_type"):  # a missing argument
        return UsageError(f"{parameter.metavar.rstrip('.')} is missing", usage)
    if too_many := _TOO_MANY.search(message):
        return UsageError(f"too many arguments: {too_many[1]}", usage)
    return UsageError(message[:1].lower() + message[1:], see)
