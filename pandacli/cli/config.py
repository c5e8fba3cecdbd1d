"""The values of options: readers of their text, and defaults from variables and config.toml.

A value is on the command line, in the environment (`PANDA_MAX_TOKENS`), in the configuration file
or in the signature of the command, in that order. Click knows only the first and the last; the
callback of an option reads the others, after `--help`, which must work with an invalid file.
"""

import math
import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

from pandacli.errors import PandaError, UsageError

QUANTS = ("auto", "4bit", "8bit", "none")

_FLAGS = dict.fromkeys(("1", "true", "yes", "on"), True)
_FLAGS |= dict.fromkeys(("0", "false", "no", "off"), False)
_MAX_FRAMES = 512
_CANVAS_CELL = 28  # pixels: two patches of 14, as in every published model

Reader = Callable[[str], Any]  # raises ValueError or PandaError

READERS: dict[str, Reader] = {}  # of every option that a variable or the file can set
TEXT_OPTIONS: set[str] = set()  # those for which a number in the file is an error
LIST_OPTIONS: set[str] = set()  # those that can be repeated, and may be a list in the file

_used: dict[str, tuple[str, str]] = {}  # text and origin of options not from the command line


@cache
def config_path() -> Path:
    """Return where the configuration file is, on Linux `~/.config/panda/config.toml`."""
    from platformdirs import user_config_path

    return user_config_path("panda") / "config.toml"


def variable(name: str) -> str:
    """Return the environment variable of an option: `PANDA_MAX_TOKENS` for `max-tokens`."""
    return "PANDA_" + name.upper().replace("-", "_")


def reader(name: str) -> Reader:
    """Return the reader of an option's text; its errors name the option."""
    return partial(_read, READERS[name], where=name)


def callback(name: str, read: Reader) -> Callable[[Any, Any, Any], Any]:
    """Return the Click callback that reads the text of an option, wherever it is set."""

    def value_of(context: Any, parameter: Any, value: Any) -> Any:
        if context.get_parameter_source(parameter.name).name == "COMMANDLINE":
            return _read(read, value, f"--{name}") if isinstance(value, str | list) else value
        text, where = _setting(name)
        if text is None:
            return value
        _used[name] = str(text), where.removeprefix(f"{name} in ")
        return _read(read, text, where)

    return value_of


def parsed(name: str, read: Reader) -> Callable[[Any, Any, Any], Any]:
    """Return the Click callback that reads the text of an option of the command line only."""

    def value_of(context: Any, parameter: Any, value: Any) -> Any:  # noqa: ARG001
        return _read(read, value, f"--{name}") if isinstance(value, str) else value

    return value_of


def configured(name: str) -> Any:
    """Return the value that a variable or the configuration file gives an option, or None."""
    text, where = _setting(name)
    return None if text is None else _read(READERS[name], text, where)


def origin(message: str) -> str | None:
    """Return which variable or file set the value that an error is about, if one did."""
    if any(place in message for place in (str(config_path()), *map(variable, READERS))):
        return None
    named = re.findall(r"(?<![\w-])--([a-z][a-z-]*)", message)
    for name, (text, where) in _used.items():
        quoted = name in TEXT_OPTIONS and f"'{text}'".lower() in message.lower()
        if name in named or (quoted and not named):
            return f"{name} = {text} is set by {where}"
    return None


def nearest(word: str, words: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the most similar of `words`; None if none is."""
    from difflib import get_close_matches

    return next(iter(get_close_matches(word, words, n=1, cutoff=cutoff)), None)


def _read(read: Reader, value: str | list[str], where: str) -> Any:
    if isinstance(value, list):
        return [_read(read, text, where) for text in value]
    try:
        return read(value)
    except PandaError as error:
        raise UsageError(f"{where}: {error.message}", error.hint, command=error.command) from error
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from error


def _setting(name: str) -> tuple[Any, str]:
    """Return the text (or texts) of the variable or the file for an option, and where it is."""
    if text := os.environ.get(variable(name)):
        return [text] if name in LIST_OPTIONS else text, variable(name)
    return _file_value(name), f"{name} in {config_path()}"


def _file_value(name: str) -> str | list[str] | None:
    """Return what the configuration file sets an option to, as on the command line."""
    path = config_path()
    value = _config(path).get(name)
    wrong = f"{name} in {path} must be text"
    if name in LIST_OPTIONS and value is not None:
        texts = value if isinstance(value, list) else [value]
        if not all(isinstance(text, str) for text in texts):
            raise UsageError(f"{wrong}, or a list of texts")
        return texts
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, int | float):
        raise UsageError(f"{wrong}, a number or true/false")
    text = str(value).lower()  # of a bool: True
    if name in TEXT_OPTIONS:
        raise UsageError(wrong, f'write it in quotes: {name} = "{text}"')
    return text


@cache
def _config(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        import tomllib  # only where there is such a file

        table = tomllib.loads(text)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:  # not UTF-8, or not TOML
        raise UsageError(f"{path} is not a TOML file: {error}") from error
    if unknown := [key for key in table if key not in READERS]:
        near = nearest(unknown[0], READERS)
        hint = f"did you mean {near!r}?" if near else f"the options are {', '.join(READERS)}"
        raise UsageError(f"{path} sets {unknown[0]!r}, which is not an option", hint)
    return table


# Readers of text


def not_empty(text: str) -> str:
    if not text:
        raise ValueError("is empty")
    return text


def not_blank(text: str) -> str:
    not_empty(text.strip())
    return text


def choice(*choices: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(f"{text!r} is not one of {', '.join(choices)}")
        return text

    return read


def boolean(text: str) -> bool:
    if text.lower() not in _FLAGS:
        raise ValueError(f"{text!r} is neither true nor false")
    return _FLAGS[text.lower()]


def whole_number(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise ValueError(f"{text!r} is not a whole number") from None
        if not least <= number <= most:
            raise ValueError(f"{text} is not between {least} and {most}")
        return number

    return read


def keep_alive(text: str) -> float | None:
    """Seconds; None for never."""
    from pandacli.video.clip import parse_length

    if text.strip().lower() in ("never", "0"):
        return None
    units = {"s": 1, "m": 60, "h": 3600}
    number, unit = text.strip()[:-1], text.strip()[-1:].lower()
    with suppress(ValueError):
        if unit in units and 0 < float(number) < 1e9:
            return float(number) * units[unit]
    return parse_length(text)


def web_address(text: str) -> str:
    if not re.fullmatch(r"https?://[^/\s]+(/\S*)?", text):
        raise ValueError(f"{text!r} is not an address like http://localhost:8000/v1")
    return text


def server(text: str) -> str:
    return text if text in ("auto", "none") else web_address(text)


def frame_count(text: str) -> int:
    from pandacli.inference.spec import check_frame_count

    count = whole_number(-(10**9), 10**9)(text)
    with suppress(UsageError):
        check_frame_count(count)
        if count <= _MAX_FRAMES:
            return count
    raise UsageError(
        f"cannot look at {count} frames",
        f"use 1, or a multiple of 4 up to {_MAX_FRAMES}; 8 is what it was trained with",
    )


def canvas(text: str) -> int:
    side = whole_number(_CANVAS_CELL, 32 * _CANVAS_CELL)(text)
    if rest := side % _CANVAS_CELL:
        near = f"{side - rest} or {side - rest + _CANVAS_CELL}"
        raise ValueError(f"{text} is not a multiple of {_CANVAS_CELL}, like {near}")
    return side


def temperature(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"{text} is not a number from 0 upwards")
    return number


def probability(text: str) -> float:
    number = temperature(text)
    if not 0 < number < 1:
        raise ValueError(f"{text} is not between 0 and 1")
    return number


def engine(text: str) -> str:
    from pandacli.inference.spec import ENGINES, RAY

    if text == RAY:
        raise UsageError("ray is for panda batch", f"choose one of {', '.join(ENGINES)}")
    return choice(*ENGINES)(text)


def batch_engine(text: str) -> str:
    from pandacli.inference.spec import ENGINES, RAY

    return choice(*ENGINES, RAY)(text)


def device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise ValueError(f"{text!r} is not one of auto, cpu, cuda, cuda:N")
    return text


def input_format(text: str) -> str:
    from pandacli.batch.formats import INPUT_FORMATS

    return choice("auto", *INPUT_FORMATS)(text)


def output_format(text: str) -> str:
    from pandacli.batch.formats import OUTPUT_FORMATS

    return choice(*OUTPUT_FORMATS, "same")(text)


def caption_format(text: str) -> str:
    from pandacli.timeline.formats import CAPTION_FORMATS

    return choice(*CAPTION_FORMATS)(text)


def segment_format(text: str) -> str:
    from pandacli.timeline.formats import CAPTION_FORMATS, CUT_FORMATS

    return choice(*CAPTION_FORMATS, *CUT_FORMATS)(text)


def batch_size(text: str) -> int | None:
    return None if text == "auto" else whole_number(1, 4096)(text)


def shard(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= count:
        raise ValueError(f"{text!r} is not like 1/4, the first of four parts")
    return number, count
