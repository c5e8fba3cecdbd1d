"""The options that commands share, under one name and one help text each.

They arrive as text, or None where the command line is silent: `settings.resolve` gives them their
values, because only there do the variable and the configuration file have their say.
"""

from typing import Annotated

import typer

_LOOK = "What it looks at"
_ANSWER = "How it answers"
_OUTPUT = "What it prints"

Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME",
        help="A name or a folder. [default: video-panda-7b]",
        rich_help_panel=_ANSWER,
    ),
]
Quant = Annotated[
    str | None,
    typer.Option(
        metavar="KIND",
        help="auto, 4bit, 8bit or none. [default: auto]",
        rich_help_panel=_ANSWER,
    ),
]
Engine = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="auto, torch, bitsandbytes or llama. [default: auto]",
        rich_help_panel=_ANSWER,
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="auto, cpu, cuda or cuda:N. [default: auto]", rich_help_panel=_ANSWER
    ),
]
From = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="TIME",
        help="Start at seconds, m:ss or h:mm:ss.",
        rich_help_panel=_LOOK,
    ),
]
To = Annotated[
    str | None,
    typer.Option("--to", metavar="TIME", help="Stop there.", rich_help_panel=_LOOK),
]
Frames = Annotated[
    str | None,
    typer.Option(metavar="N", help="Frames to sample. [default: 8]", rich_help_panel=_LOOK),
]
Canvas = Annotated[
    str | None,
    typer.Option(
        metavar="PIXELS",
        help="Side of the model canvas; tiny has 168. [default: 448]",
        rich_help_panel=_LOOK,
    ),
]
MaxTokens = Annotated[
    str | None,
    typer.Option(metavar="N", help="Longest answer. [default: 1024]", rich_help_panel=_ANSWER),
]
Temperature = Annotated[
    str | None,
    typer.Option(
        metavar="X",
        help="Above 0, answers vary. [default: 0]",
        rich_help_panel=_ANSWER,
    ),
]
Seed = Annotated[
    str | None,
    typer.Option(metavar="N", help="Makes varying answers repeatable.", rich_help_panel=_ANSWER),
]
System = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="Replaces the system prompt.", rich_help_panel=_ANSWER),
]
Offline = Annotated[
    bool | None,
    typer.Option(
        "--offline/--no-offline", help="Never touch the network.", rich_help_panel=_ANSWER
    ),
]
Json = Annotated[
    bool | None,
    typer.Option("--json/--no-json", help="One JSON object.", rich_help_panel=_OUTPUT),
]
Stats = Annotated[
    bool | None,
    typer.Option(
        "--stats/--no-stats",
        help="Frames, tokens, speed and memory as well.",
        rich_help_panel=_OUTPUT,
    ),
]
Graphics = Annotated[
    str | None,
    typer.Option(
        metavar="KIND",
        help="auto, kitty, iterm2, sixel, blocks or none. [default: auto]",
        rich_help_panel=_OUTPUT,
    ),
]
Save = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", help="Also as one picture: PNG, JPEG or WebP.", rich_help_panel=_OUTPUT
    ),
]
Quiet = Annotated[
    bool | None,
    typer.Option(
        "--quiet/--no-quiet", help="No notices; errors still show.", rich_help_panel=_OUTPUT
    ),
]
Debug = Annotated[
    bool | None,
    typer.Option("--debug/--no-debug", help="Tracebacks for errors.", rich_help_panel=_OUTPUT),
]
