"""Defaults for the options, from the environment and the configuration file.

Click looks for a value on the command line, in the environment (`PANDA_MAX_TOKENS`), in the
configuration file (its `default_map`) and in the signature of the command, in that order. Text
from the first three goes through the same reader, whose error names the place.
"""

import os
import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from pandacli.cli.help import config_path
from pandacli.errors import PandaError, UsageError

Reader = Callable[[str], Any]

READERS: dict[str, Reader] = {}
"""Every option that a variable or the file can set, and what turns its text into a value."""

TEXT_OPTIONS: set[str] = set()
"""Those for which a number in the file is an error."""

_used: dict[str, tuple[str, str]] = {}
"""The text and the origin of each option of this command that the command line does not set."""


def read_text(read: Reader, text: str, where: str) -> Any:
    try:
        return read(text)
    except PandaError as error:
        raise UsageError(f"{where}: {error.message}", error.hint, command=error.command) from error
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from error


def variable(name: str) -> str:
    """Return the environment variable of an option: `PANDA_MAX_TOKENS` for `max-tokens`."""
    return "PANDA_" + name.upper().replace("-", "_")


@cache
def _config(path: Path) -> dict[str, Any]:
    """Parse the configuration file; {} if there is none.

    Raises:
        UsageError: The file cannot be read, is not TOML, or sets an unknown option.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:  # not UTF-8
        raise UsageError(f"{path} is not a TOML file: {error}") from error
    import tomllib  # only where there is such a file

    try:
        table = tomllib.loads(text)
    except ValueError as error:
        raise UsageError(f"{path} is not a TOML file: {error}") from error
    for key in table:
        if key not in READERS:
            near = get_close_matches(key, READERS, n=1)
            raise UsageError(
                f"{path} sets {key!r}, which is not an option",
                f"did you mean {near[0]!r}?" if near else f"the options are {', '.join(READERS)}",
            )
    return table


def file_value(name: str) -> str | None:
    """Return what the configuration file sets an option to, as on the command line.

    Raises:
        UsageError: The file is not valid, or has a value of another type.
    """
    path = config_path()
    value = _config(path).get(name)
    if value is None:
        return None
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if not isinstance(value, str | int | float):
        raise UsageError(f"{name} in {path} must be text, a number or true/false")
    if name in TEXT_OPTIONS and not isinstance(value, str):
        raise UsageError(f"{name} in {path} must be text", f'write it in quotes: {name} = "{text}"')
    return text


def configured(name: str) -> Any:
    """Return the value that a variable or the configuration file gives an option, or None.

    Raises:
        UsageError: The value or the file is not valid.
    """
    if text := os.environ.get(variable(name)):
        return read_text(READERS[name], text, variable(name))
    text = file_value(name)
    return None if text is None else read_text(READERS[name], text, f"{name} in {config_path()}")


class FileDefaults(dict[str, Any]):
    """Click's `default_map` for the parameters of a command; reads the file when looked at.

    So the help of a command works with a file that is not valid.
    """

    def __init__(self, parameters: Iterable[Any]) -> None:
        super().__init__((p.name, option_name(p)) for p in parameters if p.envvar)

    def get(self, key: str, default: Any = None) -> Any:
        """Return what the file sets the parameter `key` to, as text."""
        return file_value(self[key]) if key in self else default


def option_name(parameter: Any) -> str:
    """Return the name of an option as in the configuration file, such as `max-tokens`."""
    return str(max(parameter.opts, key=len).lstrip("-"))


def from_command_line(context: Any, name: str) -> bool:
    """Whether the command line sets the parameter `name`."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def read_parameter(name: str, read: Reader, context: Any, parameter: Any, value: Any) -> Any:
    """Read the text of an option; a Click callback once `name` and `read` are bound."""
    source = context.get_parameter_source(parameter.name).name
    if not isinstance(value, str) or source == "DEFAULT":
        return value
    if source == "COMMANDLINE":
        return read_text(read, value, f"--{name}")
    if source == "ENVIRONMENT":
        _used[name] = value, variable(name)
        return read_text(read, value, variable(name))
    _used[name] = value, str(config_path())
    return read_text(read, value, f"{name} in {config_path()}")


def origin(message: str) -> str | None:
    """Return which variable or file set the value that an error is about, if one did."""
    places = (str(config_path()), *map(variable, READERS))
    if any(place in message for place in places):
        return None
    named = re.findall(r"(?<![\w-])--([a-z][a-z-]*)", message)
    for name, (text, where) in _used.items():
        quoted = name in TEXT_OPTIONS and f"'{text}'".lower() in message.lower()
        if name in named or (quoted and not named):
            return f"{name} = {text} is set by {where}"
    return None


@cache
def notice_misspelt_variables() -> None:
    """Print, once, a suggestion for each PANDA_ variable that is nearly that of an option."""
    known = {*map(variable, READERS), "PANDA_HOME"}
    for name in os.environ:
        if not name.startswith("PANDA_") or name in known:
            continue
        if near := get_close_matches(name, known, n=1, cutoff=0.85):
            from pandacli.terminal.console import Screen

            Screen().notice(f"{name} has no meaning; did you mean {near[0]}?")
