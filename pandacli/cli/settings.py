"""One table of every option, and the one way an option gets its value.

The order is: the option on the command line, its variable `PANDA_…`, the configuration file, the
built-in value. All four go through the same reader, so a value that is refused in one place is
refused in all, and the complaint names the place.
"""

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from pandacli.cli.config_file import config_path, read_table
from pandacli.errors import PandaError, UsageError

QUANTS = ("auto", "4bit", "8bit", "none")
_TRUE = ("1", "true", "yes", "on")
_FALSE = ("0", "false", "no", "off")
_DEFAULT_MODEL = "video-panda-7b"  # of the store, which takes longer to import than all this
_MOST_AT_ONCE = 4096  # questions; more were never worth their memory
_MOST_FRAMES = 512
_CANVAS_CELL = 28  # pixels; two patches of 14, as in every model that panda knows


def _text(value: str) -> str:
    return value


def _name(value: str) -> str:
    if not value.strip():
        raise ValueError("is empty")
    return value


def _flag(value: str) -> bool:
    if value.lower() in _TRUE:
        return True
    if value.lower() in _FALSE:
        return False
    raise ValueError(f"{value!r} is neither true nor false")


def _whole(least: int, most: int) -> Callable[[str], int]:
    def read(value: str) -> int:
        try:
            number = int(value)
        except ValueError:
            raise ValueError(f"{value!r} is not a whole number") from None
        if not least <= number <= most:
            raise ValueError(f"{value} is not between {least} and {most}")
        return number

    return read


def _frame_count(value: str) -> int:
    from pandacli.inference import check_frame_count

    count = _whole(-(10**9), 10**9)(value)
    try:
        if not 1 <= count <= _MOST_FRAMES:
            raise ValueError
        check_frame_count(count)
    except (UsageError, ValueError):
        raise UsageError(
            f"cannot look at {count} frames",
            f"use 1, or a multiple of 4 up to {_MOST_FRAMES}; 8 is what it was trained with",
        ) from None
    return count


def _temperature(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        raise ValueError(f"{value!r} is not a number") from None
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"{value} is not a number from 0 upwards")
    return number


def _quant(value: str) -> str:
    return _one_of(QUANTS, value)


def _engine(value: str) -> str:
    from pandacli.inference.spec import ENGINES, RAY

    return _one_of((*ENGINES, RAY), value)


def _engine_here(value: str) -> str:
    from pandacli.inference.spec import ENGINES, RAY

    if value == RAY:
        raise UsageError("ray is for panda batch", f"choose one of {', '.join(ENGINES)}")
    return _one_of(ENGINES, value)


def _format(value: str) -> str:
    from pandacli.batch.formats import INPUT_FORMATS

    return _one_of(("auto", *INPUT_FORMATS), value)


def _output_format(value: str) -> str:
    from pandacli.batch.formats import OUTPUT_FORMATS

    return _one_of((*OUTPUT_FORMATS, "same"), value)


def _one_of(choices: Sequence[str], value: str) -> str:
    if value not in choices:
        raise ValueError(f"{value!r} is not one of {', '.join(choices)}")
    return value


def _batch_size(value: str) -> int | None:
    return None if value == "auto" else _whole(1, _MOST_AT_ONCE)(value)


def _shard(value: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", value, re.ASCII)
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= count:
        raise ValueError(f"{value!r} is not like 1/4, the first of four parts")
    return number, count


def _byte_count(value: str) -> int:
    from pandacli.units import byte_count

    return byte_count(value)


def _device(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", value):
        raise ValueError(f"{value!r} is not one of auto, cpu, cuda, cuda:N")
    return value


def _canvas(value: str) -> int:
    side = _whole(_CANVAS_CELL, 32 * _CANVAS_CELL)(value)
    if side % _CANVAS_CELL:
        below = side - side % _CANVAS_CELL
        raise ValueError(
            f"{value} is not a multiple of {_CANVAS_CELL}, like {below} or {below + _CANVAS_CELL}"
        )
    return side


def _graphics(value: str) -> str:
    from pandacli.terminal.capabilities import GRAPHICS

    return _one_of(GRAPHICS, value)


def _seconds(value: str) -> float:
    from pandacli.video.clip import parse_time

    return parse_time(value)


_TEXT_READERS = (
    *(_text, _name, _quant, _engine, _engine_here, _device, _format, _output_format, _graphics),
    _shard,
)


@dataclass(frozen=True)
class Setting:
    """One option: its name (as in the file and, with dashes, on the command line) and reader."""

    name: str
    read: Callable[[str], Any]
    built_in: Any = None

    @property
    def variable(self) -> str:
        """The environment variable, `PANDA_MAX_TOKENS` for `max-tokens`."""
        return "PANDA_" + self.name.upper().replace("-", "_")

    @property
    def is_text(self) -> bool:
        """Whether only text can be right, and no number."""
        return self.read in _TEXT_READERS


SETTINGS = {
    setting.name: setting
    for setting in (
        Setting("model", _name, _DEFAULT_MODEL),
        Setting("quant", _quant, "auto"),
        Setting("engine", _engine, "auto"),
        Setting("device", _device, "auto"),
        Setting("from", _seconds),
        Setting("to", _seconds),
        Setting("frames", _frame_count, 8),
        Setting("canvas", _canvas, 448),
        Setting("max-tokens", _whole(1, 1_000_000), 1024),
        Setting("temperature", _temperature, 0.0),
        Setting("seed", _whole(0, 2**63 - 1)),
        Setting("system", _text),
        Setting("offline", _flag, False),
        Setting("format", _format, "auto"),
        Setting("output-format", _output_format),
        Setting("video-dir", _name),
        Setting("batch-size", _batch_size),
        Setting("fail-fast", _flag, False),
        Setting("shard", _shard, (1, 1)),
        Setting("workers", _whole(1, 10_000)),
        Setting("address", _name),
        Setting("cache-size", _byte_count, 4_000_000_000),
        Setting("full-hash", _flag, False),
        Setting("no-frames", _flag, False),
        Setting("no-log", _flag, False),
        Setting("json", _flag, False),
        Setting("stats", _flag, False),
        Setting("graphics", _graphics, "auto"),
        Setting("quiet", _flag, False),
        Setting("debug", _flag, False),
    )
}
HERE = SETTINGS | {"engine": Setting("engine", _engine_here, "auto")}
"""The options of commands that do not spread their work over a cluster."""


def read_config(path: Path) -> dict[str, object]:
    """Returns the defaults that the file at `path` sets; none if there is no file.

    Raises:
        UsageError: The file cannot be read, is not TOML, or holds a key that is no option.
    """
    table = read_table(path)
    for key in table:
        if key not in SETTINGS:
            near = get_close_matches(key, SETTINGS, n=1)
            raise UsageError(
                f"{path} sets {key!r}, which is not an option",
                f"did you mean {near[0]!r}?" if near else f"the options are {', '.join(SETTINGS)}",
            )
    return table


def _config_text(path: Path, key: str, value: object) -> str:
    """A value as it would be written on the command line."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if isinstance(value, int | float) and SETTINGS[key].is_text:
        raise UsageError(f"{key} in {path} must be text", f'write it in quotes: {key} = "{text}"')
    if isinstance(value, str | int | float):
        return text
    raise UsageError(f"{key} in {path} must be text, a number or true/false")


def resolve(
    given: Mapping[str, str | bool | None],
    options: Mapping[str, Setting] = SETTINGS,
    *,
    notices: bool = True,
) -> dict[str, Any]:
    """Returns the value of every option named in `given`.

    Args:
        given: What the command line says, by option name; None where it says nothing.
        options: How they are read: `SETTINGS`, or `HERE`.
        notices: Whether to tell of variables that are misspelt, unless `quiet` is set.

    Raises:
        UsageError: A value cannot be right; the message names the option, the variable or the
            file and key that it came from. Of the file, the keys are checked, and the values of
            the options in `given`.
    """
    path = config_path()
    config = read_config(path)
    values: dict[str, Any] = {}
    for name, option in given.items():
        _elsewhere.pop(name, None)
        setting = options[name]
        variable = os.environ.get(setting.variable, "")
        default = setting.built_in
        if in_file := name in config:
            written = _config_text(path, name, config[name])
            default = _read(setting, written, f"{name} in {path}")
        if isinstance(option, bool):
            values[name] = option
        elif option is not None:
            values[name] = _read(setting, option, f"--{name}")
        elif variable:
            values[name] = _read(setting, variable, setting.variable)
            _elsewhere[name] = variable, setting.variable
        else:
            values[name] = default
            if in_file:
                _elsewhere[name] = written, str(path)
    if notices and not values.get("quiet"):
        _tell_misspelt_variables()
    return values


_elsewhere: dict[str, tuple[str, str]] = {}
"""Of the options that no command line has set: their text, and the variable or file it is from."""


def origin(message: str) -> str | None:
    """Returns where a value came from that an error names, if not from the command line."""
    if _says_where(message):
        return None
    named = re.findall(r"(?<![\w-])--([a-z][a-z-]*)", message)
    for name, (text, where) in _elsewhere.items():
        quoted = SETTINGS[name].is_text and f"'{text}'".lower() in message.lower()
        if name in named or (quoted and not named):
            return f"{name} = {text} is set by {where}"
    return None


def _says_where(message: str) -> bool:
    """Whether an error names the variable or the file that it is about."""
    places = (str(config_path()), *(setting.variable for setting in SETTINGS.values()))
    return any(place in message for place in places)


@cache
def _tell_misspelt_variables() -> None:
    """Says, once, which variable was perhaps meant by one that nothing reads."""
    known = {setting.variable for setting in SETTINGS.values()} | {"PANDA_HOME"}
    for variable in os.environ:
        if not variable.startswith("PANDA_") or variable in known:
            continue
        if near := get_close_matches(variable, known, n=1, cutoff=0.85):
            from pandacli.terminal.console import Screen

            Screen().notice(f"{variable} has no meaning; did you mean {near[0]}?")


def reader(name: str) -> Callable[[str], Any]:
    """Returns what reads the value of an option out of a text, and complains as for the option.

    Raises:
        UsageError: By what is returned: the value cannot be right.
    """
    return lambda text: _read(SETTINGS[name], text, name)


def _read(setting: Setting, text: str, where: str) -> Any:
    try:
        return setting.read(text)
    except PandaError as error:
        raise UsageError(f"{where}: {error.message}", error.hint, command=error.command) from error
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from error
