"""The options that commands share: one name, one help text and one reader of values each."""

import math
import re
from functools import partial
from typing import Annotated, Any

import typer

from pandacli.cli.config import READERS, TEXT_OPTIONS, Reader, read_parameter, read_text, variable
from pandacli.errors import UsageError

MODEL = "video-panda-7b"  # `checkpoints.DEFAULT_MODEL`, without the import
CACHE_SIZE = 4_000_000_000
"""The default of `--cache-size`, in bytes."""

QUANTS = ("auto", "4bit", "8bit", "none")
_MAX_BATCH_SIZE = 4096
_MAX_FRAMES = 512
_CANVAS_CELL = 28  # pixels: two patches of 14, as in every published model


def _text(text: str) -> str:
    return text


def _choose(text: str, *choices: str) -> str:
    if text not in choices:
        raise ValueError(f"{text!r} is not one of {', '.join(choices)}")
    return text


def _quant(text: str) -> str:
    return _choose(text, *QUANTS)


def _not_empty(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty")
    return text


def _boolean(text: str) -> bool:
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise ValueError(f"{text!r} is neither true nor false")


def _whole_number(least: int, most: int) -> Reader:
    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise ValueError(f"{text!r} is not a whole number") from None
        if not least <= number <= most:
            raise ValueError(f"{text} is not between {least} and {most}")
        return number

    return read


def _frame_count(text: str) -> int:
    from pandacli.inference import check_frame_count

    count: int = _whole_number(-(10**9), 10**9)(text)
    try:
        if not 1 <= count <= _MAX_FRAMES:
            raise ValueError
        check_frame_count(count)
    except (UsageError, ValueError):
        raise UsageError(
            f"cannot look at {count} frames",
            f"use 1, or a multiple of 4 up to {_MAX_FRAMES}; 8 is what it was trained with",
        ) from None
    return count


def _temperature(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"{text} is not a number from 0 upwards")
    return number


def _engine(text: str) -> str:
    from pandacli.inference.spec import ENGINES, RAY

    if text == RAY:
        raise UsageError("ray is for panda batch", f"choose one of {', '.join(ENGINES)}")
    return _choose(text, *ENGINES)


def _batch_engine(text: str) -> str:
    from pandacli.inference.spec import ENGINES, RAY

    return _choose(text, *ENGINES, RAY)


def _format(text: str) -> str:
    from pandacli.batch.formats import INPUT_FORMATS

    return _choose(text, "auto", *INPUT_FORMATS)


def _output_format(text: str) -> str:
    from pandacli.batch.formats import OUTPUT_FORMATS

    return _choose(text, *OUTPUT_FORMATS, "same")


def _batch_size(text: str) -> int | None:
    return None if text == "auto" else _whole_number(1, _MAX_BATCH_SIZE)(text)


def _shard(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= count:
        raise ValueError(f"{text!r} is not like 1/4, the first of four parts")
    return number, count


def _byte_count(text: str) -> int:
    from pandacli.units import byte_count

    return byte_count(text)


def _device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise ValueError(f"{text!r} is not one of auto, cpu, cuda, cuda:N")
    return text


def _canvas(text: str) -> int:
    side: int = _whole_number(_CANVAS_CELL, 32 * _CANVAS_CELL)(text)
    if side % _CANVAS_CELL:
        below = side - side % _CANVAS_CELL
        near = f"{below} or {below + _CANVAS_CELL}"
        raise ValueError(f"{text} is not a multiple of {_CANVAS_CELL}, like {near}")
    return side


def _graphics(text: str) -> str:
    from pandacli.terminal.console import GRAPHICS

    return _choose(text, *GRAPHICS)


def _seconds(text: str) -> float:
    from pandacli.video.clip import parse_time

    return parse_time(text)


_TEXT_READERS = {
    *(_text, _not_empty, _quant, _engine, _batch_engine, _device, _format, _output_format),
    *(_graphics, _shard),
}


# Options

FILES, OUTPUT, CACHE = "Files", "Output", "Cache"
_CLIP, _MODEL, _SAMPLING, _RUN, _CHAT = "Clip", "Model", "Sampling", "Run", "Conversation"


def option(panel: str, metavar: str | None, text: str, read: Reader, *declarations: str) -> Any:
    """Declare an option that a variable and the configuration file can set.

    Args:
        panel: The heading in the help.
        metavar: What stands for the value in the help; None for a flag.
        text: The help.
        read: Turns text into the value; raises `ValueError` or `PandaError`.
        declarations: As for `typer.Option`, the long name first.
    """
    name = declarations[0].split("/")[0].lstrip("-")
    READERS[name] = read

    if read in _TEXT_READERS:
        TEXT_OPTIONS.add(name)

    def callback(context: typer.Context, parameter: typer.CallbackParam, value: Any) -> Any:
        return read_parameter(name, read, context, parameter, value)

    return typer.Option(
        *declarations,
        metavar=metavar,
        help=text,
        rich_help_panel=panel,
        envvar=variable(name),
        parser=lambda value: value,  # the callback converts: it knows where the text is from
        callback=callback,
    )


def reader(name: str) -> Reader:
    """Return what reads the value of an option from text; its errors name the option."""
    return partial(read_text, READERS[name], where=name)


def plain(panel: str, metavar: str | None, text: str, *declarations: str) -> Any:
    """Declare an option that only the command line sets."""
    return typer.Option(*declarations, metavar=metavar, help=text, rich_help_panel=panel)


def _flag(panel: str, text: str, declaration: str) -> Any:
    return option(panel, None, text, _boolean, declaration)


# The clip
Video = Annotated[str, typer.Argument(metavar="VIDEO", show_default=False, help="Any video file.")]
From = Annotated[
    float | None,
    option(_CLIP, "TIME", "Start time: seconds, m:ss or h:mm:ss.", _seconds, "--from"),
]
To = Annotated[float | None, option(_CLIP, "TIME", "End time.", _seconds, "--to")]
Frames = Annotated[
    int,
    option(
        _CLIP,
        "N",
        "Frames to sample: 1, or a multiple of 4. [default: 8]",
        _frame_count,
        "--frames",
    ),
]
Canvas = Annotated[
    int,
    option(
        _CLIP,
        "PIXELS",
        "Side of the model canvas; tiny has 168. [default: 448]",
        _canvas,
        "--canvas",
    ),
]

# The model
ModelArgument = Annotated[
    str,
    typer.Argument(metavar="MODEL", show_default=False, help="A name, or a checkpoint folder."),
]
Model = Annotated[
    str,
    option(
        _MODEL,
        "NAME",
        "A name or a folder. [default: video-panda-7b]",
        _not_empty,
        "--model",
        "-m",
    ),
]
Quant = Annotated[
    str, option(_MODEL, "KIND", "auto, 4bit, 8bit or none. [default: auto]", _quant, "--quant")
]
Engine = Annotated[
    str,
    option(
        _MODEL, "NAME", "auto, torch, bitsandbytes or llama. [default: auto]", _engine, "--engine"
    ),
]
BatchEngine = Annotated[
    str,
    option(
        _MODEL,
        "NAME",
        "auto, torch, bitsandbytes, llama or ray (many GPUs). [default: auto]",
        _batch_engine,
        "--engine",
    ),
]
Device = Annotated[
    str, option(_MODEL, "NAME", "auto, cpu, cuda or cuda:N. [default: auto]", _device, "--device")
]
Offline = Annotated[bool, _flag(_MODEL, "Never touch the network.", "--offline/--no-offline")]

# Sampling
System = Annotated[
    str | None, option(_SAMPLING, "TEXT", "Replaces the system prompt.", _text, "--system")
]
MaxTokens = Annotated[
    int,
    option(
        _SAMPLING,
        "N",
        "Maximum tokens to generate. [default: 1024]",
        _whole_number(1, 1_000_000),
        "--max-tokens",
    ),
]
Temperature = Annotated[
    float,
    option(_SAMPLING, "X", "Above 0, answers vary. [default: 0]", _temperature, "--temperature"),
]
Seed = Annotated[
    int | None,
    option(
        _SAMPLING,
        "N",
        "Makes varying answers repeatable.",
        _whole_number(0, 2**63 - 1),
        "--seed",
    ),
]

# The files of a batch
Output = Annotated[
    str | None,
    plain(
        FILES,
        "FILE",
        "Where the answers go; - writes to standard output. [default: questions.answers.jsonl]",
        "--output",
        "-o",
    ),
]
Format = Annotated[
    str,
    option(
        FILES,
        "NAME",
        "auto, jsonl, csv, qa, generic, consistency or openai. [default: auto]",
        _format,
        "--format",
    ),
]
OutputFormat = Annotated[
    str | None,
    option(
        FILES,
        "NAME",
        "jsonl, csv, qa, generic, consistency (each of the three also as NAME-lines), openai "
        "or same. [default: by the suffix of -o, or jsonl]",
        _output_format,
        "--output-format",
    ),
]
RightAnswers = Annotated[
    str | None, plain(FILES, "FILE", "Right answers to a qa file, if not beside it.", "--answers")
]
VideoDir = Annotated[
    str | None,
    option(
        FILES,
        "FOLDER",
        "Where the videos are. [default: beside the questions]",
        _not_empty,
        "--video-dir",
    ),
]

# How a batch runs
BatchSize = Annotated[
    int | None,
    option(_RUN, "N", "Questions answered at a time. [default: auto]", _batch_size, "--batch-size"),
]
FailFast = Annotated[bool, _flag(_RUN, "Stop at the first failure.", "--fail-fast/--no-fail-fast")]
Shard = Annotated[
    Any,  # a pair; Typer would read two words for a tuple
    option(_RUN, "I/N", "Only this part of the clips, as 1/4; for job arrays.", _shard, "--shard"),
]
Workers = Annotated[
    int | None,
    option(_RUN, "N", "Workers, with --engine ray.", _whole_number(1, 10_000), "--workers"),
]
Address = Annotated[
    str | None,
    option(
        _RUN,
        "HOST",
        "Ray cluster to join, or auto. [default: this machine]",
        _not_empty,
        "--address",
    ),
]

# Conversations
Continue = Annotated[bool, plain(_CHAT, None, "Go on with the last conversation.", "--continue")]
Load = Annotated[str | None, plain(_CHAT, "FILE", "Go on with a saved one.", "--load")]
NoLog = Annotated[bool, _flag(_CHAT, "Keep nothing of this one.", "--no-log/--log")]

# The prefix cache
CacheSize = Annotated[
    int,
    option(
        CACHE,
        "SIZE",
        "Disk space for cached clips; 0 for none. [default: 4GB]",
        _byte_count,
        "--cache-size",
    ),
]
FullHash = Annotated[
    bool,
    _flag(CACHE, "Hash whole files when looking up the cache.", "--full-hash/--no-full-hash"),
]

# Output
Json = Annotated[bool, _flag(OUTPUT, "One JSON object.", "--json/--no-json")]
JsonLines = Annotated[bool, _flag(OUTPUT, "The answers on stdout, too.", "--json/--no-json")]
Stats = Annotated[
    bool, _flag(OUTPUT, "What each answer took: time, tokens, memory.", "--stats/--no-stats")
]
StageStats = Annotated[bool, _flag(OUTPUT, "The time that each stage took.", "--stats/--no-stats")]
Graphics = Annotated[
    str,
    option(
        OUTPUT,
        "KIND",
        "auto, kitty, iterm2, sixel, blocks or none. [default: auto]",
        _graphics,
        "--graphics",
    ),
]
NoFrames = Annotated[bool, _flag(OUTPUT, "Draw no frames.", "--no-frames/--show-frames")]
Save = Annotated[
    str | None, plain(OUTPUT, "FILE", "Also as one picture: PNG, JPEG or WebP.", "--save")
]
Quiet = Annotated[bool, _flag(OUTPUT, "No notices; errors still show.", "--quiet/--no-quiet")]
Debug = Annotated[bool, _flag(OUTPUT, "Tracebacks for errors.", "--debug/--no-debug")]
