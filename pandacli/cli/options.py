"""The options that commands share, under one name and one help text each.

They arrive as text, or None where the command line is silent: `settings.resolve` gives them their
values, because only there do the variable and the configuration file have their say.
"""

from typing import Annotated

import typer

_CLIP = "Clip"
_MODEL = "Model"
_SAMPLING = "Sampling"
OUTPUT = "Output"
_RECORDS = "Files"
_WORK = "Run"
CACHE = "Cache"

Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME",
        help="A name or a folder. [default: video-panda-7b]",
        rich_help_panel=_MODEL,
    ),
]
Quant = Annotated[
    str | None,
    typer.Option(
        metavar="KIND",
        help="auto, 4bit, 8bit or none. [default: auto]",
        rich_help_panel=_MODEL,
    ),
]
Engine = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="auto, torch, bitsandbytes or llama. [default: auto]",
        rich_help_panel=_MODEL,
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="auto, cpu, cuda or cuda:N. [default: auto]", rich_help_panel=_MODEL
    ),
]
From = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="TIME",
        help="Start time: seconds, m:ss or h:mm:ss.",
        rich_help_panel=_CLIP,
    ),
]
To = Annotated[
    str | None,
    typer.Option("--to", metavar="TIME", help="End time.", rich_help_panel=_CLIP),
]
Frames = Annotated[
    str | None,
    typer.Option(
        metavar="N",
        help="Frames to sample: 1, or a multiple of 4. [default: 8]",
        rich_help_panel=_CLIP,
    ),
]
Canvas = Annotated[
    str | None,
    typer.Option(
        metavar="PIXELS",
        help="Side of the model canvas; tiny has 168. [default: 448]",
        rich_help_panel=_CLIP,
    ),
]
MaxTokens = Annotated[
    str | None,
    typer.Option(
        metavar="N", help="Maximum tokens to generate. [default: 1024]", rich_help_panel=_SAMPLING
    ),
]
Temperature = Annotated[
    str | None,
    typer.Option(
        metavar="X",
        help="Above 0, answers vary. [default: 0]",
        rich_help_panel=_SAMPLING,
    ),
]
Seed = Annotated[
    str | None,
    typer.Option(metavar="N", help="Makes varying answers repeatable.", rich_help_panel=_SAMPLING),
]
System = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="Replaces the system prompt.", rich_help_panel=_SAMPLING),
]
Offline = Annotated[
    bool | None,
    typer.Option("--offline/--no-offline", help="Never touch the network.", rich_help_panel=_MODEL),
]
Json = Annotated[
    bool | None,
    typer.Option("--json/--no-json", help="One JSON object.", rich_help_panel=OUTPUT),
]
Stats = Annotated[
    bool | None,
    typer.Option(
        "--stats/--no-stats",
        help="What each answer took: time, tokens, memory.",
        rich_help_panel=OUTPUT,
    ),
]
Graphics = Annotated[
    str | None,
    typer.Option(
        metavar="KIND",
        help="auto, kitty, iterm2, sixel, blocks or none. [default: auto]",
        rich_help_panel=OUTPUT,
    ),
]
Save = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", help="Also as one picture: PNG, JPEG or WebP.", rich_help_panel=OUTPUT
    ),
]
Quiet = Annotated[
    bool | None,
    typer.Option(
        "--quiet/--no-quiet", help="No notices; errors still show.", rich_help_panel=OUTPUT
    ),
]
Debug = Annotated[
    bool | None,
    typer.Option("--debug/--no-debug", help="Tracebacks for errors.", rich_help_panel=OUTPUT),
]

CacheSize = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Disk space for cached clips; 0 for none. [default: 4GB]",
        rich_help_panel=CACHE,
    ),
]
FullHash = Annotated[
    bool | None,
    typer.Option(
        "--full-hash/--no-full-hash",
        help="Hash whole files when looking up the cache.",
        rich_help_panel=CACHE,
    ),
]

Output = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="Where the answers go; - writes to standard output. "
        "[default: questions.answers.jsonl]",
        rich_help_panel=_RECORDS,
    ),
]
Format = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="auto, jsonl, csv, qa, generic, consistency or openai. [default: auto]",
        rich_help_panel=_RECORDS,
    ),
]
OutputFormat = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="jsonl, csv, qa, generic, consistency (each of the three also as NAME-lines), openai "
        "or same. [default: by the suffix of -o, or jsonl]",
        rich_help_panel=_RECORDS,
    ),
]
RightAnswers = Annotated[
    str | None,
    typer.Option(
        "--answers",
        metavar="FILE",
        help="Right answers to a qa file, if not beside it.",
        rich_help_panel=_RECORDS,
    ),
]
VideoDir = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER",
        help="Where the videos are. [default: beside the questions]",
        rich_help_panel=_RECORDS,
    ),
]
BatchSize = Annotated[
    str | None,
    typer.Option(
        metavar="N",
        help="Questions answered at a time. [default: auto]",
        rich_help_panel=_WORK,
    ),
]
FailFast = Annotated[
    bool | None,
    typer.Option(
        "--fail-fast/--no-fail-fast", help="Stop at the first failure.", rich_help_panel=_WORK
    ),
]
Shard = Annotated[
    str | None,
    typer.Option(
        metavar="I/N",
        help="Only this part of the clips, as 1/4; for job arrays.",
        rich_help_panel=_WORK,
    ),
]
Workers = Annotated[
    str | None,
    typer.Option(metavar="N", help="Workers, with --engine ray.", rich_help_panel=_WORK),
]
Address = Annotated[
    str | None,
    typer.Option(
        metavar="HOST",
        help="Ray cluster to join, or auto. [default: this machine]",
        rich_help_panel=_WORK,
    ),
]
BatchEngine = Annotated[
    str | None,
    typer.Option(
        "--engine",
        metavar="NAME",
        help="auto, torch, bitsandbytes, llama or ray (many GPUs). [default: auto]",
        rich_help_panel=_MODEL,
    ),
]
JsonLines = Annotated[
    bool | None,
    typer.Option("--json/--no-json", help="The answers on stdout, too.", rich_help_panel=OUTPUT),
]
StageStats = Annotated[
    bool | None,
    typer.Option(
        "--stats/--no-stats", help="The time that each stage took.", rich_help_panel=OUTPUT
    ),
]
