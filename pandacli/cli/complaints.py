"""Usage errors in our own short style: what is wrong, and what was perhaps meant."""

from difflib import get_close_matches
from typing import Any

from typer.exceptions import TyperException

from pandacli.cli.help import arguments
from pandacli.errors import UsageError


def usage_error(error: TyperException) -> UsageError:
    """Returns the error that Typer's parser raised as one of ours."""
    context: Any = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "panda"
    see = f"see {command} --help"
    option = getattr(error, "option_name", None)
    if hasattr(error, "possibilities"):
        names = [name for parameter in context.command.params for name in parameter.opts]
        near = get_close_matches(option or "", names, n=1, cutoff=0.7)
        return UsageError(
            f"{command} has no option {option}", f"did you mean {near[0]}?" if near else see
        )
    parameter = getattr(error, "param", None)
    if parameter is not None and hasattr(error, "param_type"):  # a missing argument
        words = " ".join([command, *arguments(context.command)])
        return UsageError(f"{parameter.metavar.rstrip('.')} is missing", f"usage: {words}")
    message = error.format_message().rstrip(".")
    return UsageError(message[:1].lower() + message[1:], see)
