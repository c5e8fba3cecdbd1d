"""The options of the commands, each declared once; those that `ask`, `chat` and `batch` share."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, wraps
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pandacli.cli import config
from pandacli.cli.config import choice, not_blank, whole_number
from pandacli.errors import UsageError
from pandacli.terminal.console import GRAPHICS
from pandacli.units import byte_count
from pandacli.video.clip import Clip, local_file, parse_length, parse_time, parse_times

if TYPE_CHECKING:
    from pandacli.inference.spec import GenerationOptions, RunSpec
    from pandacli.server.media import Limits

MODEL = "video-panda-7b"  # `checkpoints.DEFAULT_MODEL`, without the import
CACHE_SIZE = 4_000_000_000  # bytes

CLIP, FILES, OUTPUT, CACHE, CHOICES = "Clip", "Files", "Output", "Cache", "Choices"
JUDGE, SEARCH, SERVER, LIMITS = "Judge", "Search", "Server", "Limits"
_MODEL, _SAMPLING, _RUN, _CHAT = "Model", "Sampling", "Run", "Conversation"
_NUMBERS = (None, "N", "X", "P", "PIXELS", "SIZE", "TIME")  # metavars of values that are not text


def argument(metavar: str, text: str) -> Any:
    return typer.Argument(metavar=metavar, show_default=False, help=text)


def plain(panel: str, declaration: str, text: str) -> Any:
    """Declare an option that only the command line sets, such as "-o, --output FILE"."""
    names = declaration.replace(",", "").split()
    metavar = None if names[-1].startswith("-") else names.pop()
    return typer.Option(*names, metavar=metavar, help=text, rich_help_panel=panel)


def parsed(panel: str, declaration: str, read: config.Reader, text: str) -> Any:
    """Declare an option that only the command line sets, and whose text is read."""
    declared = plain(panel, declaration, text)
    declared.parser = lambda value: value
    declared.callback = config.parsed(declaration.split()[0].lstrip("-"), read)
    return declared


def option(
    panel: str, declaration: str, read: config.Reader, text: str, *, repeated: bool = False
) -> Any:
    """Declare an option that a variable and the configuration file can set, too."""
    declared = plain(panel, declaration, text)
    name = max((declared.default, *declared.param_decls), key=len).split("/")[0].lstrip("-")
    config.READERS[name] = read
    if declared.metavar not in _NUMBERS:
        config.TEXT_OPTIONS.add(name)
    if repeated:
        config.LIST_OPTIONS.add(name)
    declared.parser = lambda value: value  # the callback knows where the text is from
    declared.callback = config.callback(name, read)
    return declared


def _flag(panel: str, declaration: str, text: str) -> Any:
    return option(panel, declaration, config.boolean, text)


_clip, _model, _sampling = (partial(option, panel) for panel in (CLIP, _MODEL, _SAMPLING))
_file, _run = partial(option, FILES), partial(option, _RUN)

Video = Annotated[str, argument("VIDEO", "Any video file.")]
From = Annotated[
    float | None, _clip("--from TIME", parse_time, "Start time: seconds, m:ss or h:mm:ss.")
]
To = Annotated[float | None, _clip("--to TIME", parse_time, "End time.")]
_AT = "Times to look at instead of a range, as 3,7.5,0:12."
At = Annotated[Any, parsed(CLIP, "--at TIMES", parse_times, _AT)]  # Typer would count a tuple
_EVERY = "Cut the range into windows of this length, and ask about each."
Every = Annotated[float | None, _clip("--every TIME", parse_length, _EVERY)]
_RECURSIVE = "Look into the folders of a folder, too."
Recursive = Annotated[bool, plain(CLIP, "--recursive", _RECURSIVE)]
_FRAMES = "Frames to sample: 1, or a multiple of 4. [default: 8]"
Frames = Annotated[int, _clip("--frames N", config.frame_count, _FRAMES)]
_CANVAS = "Side of the model canvas; tiny has 168. [default: 448]"
Canvas = Annotated[int, _clip("--canvas PIXELS", config.canvas, _CANVAS)]

_search = partial(option, SEARCH)
_WINDOW = "Length of the windows that are looked at. [default: 2]"
Window = Annotated[float, _search("--window TIME", parse_length, _WINDOW)]
_STRIDE = "Time from one window to the next. [default: half a window]"
Stride = Annotated[float | None, _search("--stride TIME", parse_length, _STRIDE)]
_THRESHOLD = "Probability of yes with which a segment begins. [default: 0.9]"
Threshold = Annotated[float, _search("--threshold P", config.probability, _THRESHOLD)]
_PRECISION = "To which the boundaries are found. [default: 0.5]"
Precision = Annotated[float, _search("--precision TIME", parse_length, _PRECISION)]

ModelArgument = Annotated[str, argument("MODEL", "A name, or a checkpoint folder.")]
Model = Annotated[
    str, _model("-m, --model NAME", not_blank, "A name or a folder. [default: video-panda-7b]")
]
_QUANTS = "auto, 4bit, 8bit or none. [default: auto]"
Quant = Annotated[str, _model("--quant KIND", choice(*config.QUANTS), _QUANTS)]
_ENGINES = "auto, torch, bitsandbytes or llama. [default: auto]"
Engine = Annotated[str, _model("--engine NAME", config.engine, _ENGINES)]
_BATCH_ENGINES = "auto, torch, bitsandbytes, llama or ray (many GPUs). [default: auto]"
BatchEngine = Annotated[str, _model("--engine NAME", config.batch_engine, _BATCH_ENGINES)]
_DEVICES = "auto, cpu, cuda or cuda:N. [default: auto]"
Device = Annotated[str, _model("--device NAME", config.device, _DEVICES)]
Offline = Annotated[bool, _flag(_MODEL, "--offline/--no-offline", "Never touch the network.")]

_SERVER_URL = "Server to ask; auto: one of yours with this model; or none. [default: auto]"
Server = Annotated[str, _model("--server URL", config.server, _SERVER_URL)]

System = Annotated[str | None, _sampling("--system TEXT", str, "Replaces the system prompt.")]
_MAX_TOKENS = "Maximum tokens to generate. [default: 1024]"
MaxTokens = Annotated[int, _sampling("--max-tokens N", whole_number(1, 1_000_000), _MAX_TOKENS)]
_TEMPERATURE = "Above 0, answers vary. [default: 0]"
Temperature = Annotated[float, _sampling("--temperature X", config.temperature, _TEMPERATURE)]
_SEED = "Makes varying answers repeatable."
Seed = Annotated[int | None, _sampling("--seed N", whole_number(0, 2**63 - 1), _SEED)]
_STOP = "Ends an answer before this text; can be repeated."
Stop = Annotated[list[str] | None, _sampling("--stop TEXT", config.not_empty, _STOP, repeated=True)]

_QUESTION = "A question; all other words are videos, folders or patterns. Repeat it."
Question = Annotated[list[str] | None, plain(CLIP, "-q, --question TEXT", _QUESTION)]
_CHOICE = "A possible answer: they are scored, and the likeliest is the answer; repeat it."
Choice = Annotated[list[str] | None, plain(CHOICES, "--choice TEXT", _CHOICE)]
_CHOICES = "All of them at once, as yes|no."
Choices = Annotated[str | None, plain(CHOICES, "--choices TEXTS", _CHOICES)]

_OUTPUT = "Where the answers go; - writes to standard output. [default: questions.answers.jsonl]"
Output = Annotated[str | None, plain(FILES, "-o, --output FILE", _OUTPUT)]
_FORMATS = (
    "auto, jsonl, csv, qa, generic, consistency, openai, charades-sta or qvhighlights. "
    "[default: auto]"
)
Format = Annotated[str, _file("--format NAME", config.input_format, _FORMATS)]
_OUTPUT_FORMATS = (
    "jsonl, csv, qa, generic, consistency (each of the three also as NAME-lines), openai, "
    "for choices nextqa, indices, video-mme, perception-test or letters, for segments "
    "charades-sta or qvhighlights; or same. "
    "[default: by the suffix of -o, or jsonl]"
)
OutputFormat = Annotated[
    str | None, _file("--output-format NAME", config.output_format, _OUTPUT_FORMATS)
]
RightAnswers = Annotated[
    str | None, plain(FILES, "--answers FILE", "Right answers, if not beside a qa file.")
]
_VIDEO_DIR = "Where the videos are. [default: beside the questions]"
VideoDir = Annotated[str | None, _file("--video-dir FOLDER", not_blank, _VIDEO_DIR)]

_BATCH_SIZE = "Questions answered at a time. [default: auto]"
BatchSize = Annotated[int | None, _run("--batch-size N", config.batch_size, _BATCH_SIZE)]
FailFast = Annotated[bool, _flag(_RUN, "--fail-fast/--no-fail-fast", "Stop at the first failure.")]
Shard = Annotated[
    Any,  # a pair; Typer would read two words for a tuple
    _run("--shard I/N", config.shard, "Only this part of the clips, as 1/4; for job arrays."),
]
Workers = Annotated[
    int | None, _run("--workers N", whole_number(1, 10_000), "Workers, with --engine ray.")
]
_ADDRESS = "Ray cluster to join, or auto. [default: this machine]"
Address = Annotated[str | None, _run("--address HOST", not_blank, _ADDRESS)]

_ALL_QUESTIONS = "All questions; those without an answer count as wrong. One, or one for each file."
AllQuestions = Annotated[list[str] | None, plain(FILES, "--questions FILE", _ALL_QUESTIONS)]
_JOIN = "Take the files as shards of one run, rather than a run each."
Join = Annotated[bool, plain(FILES, "--join", _JOIN)]
_REFERENCES = "Right answers, if they are in a file of their own."
References = Annotated[str | None, plain(FILES, "--references FILE", _REFERENCES)]
_BENCHMARK = "Name of a benchmark of the paper. [default: by the name of the file]"
Benchmark = Annotated[str | None, plain(FILES, "--benchmark NAME", _BENCHMARK)]
_COMPARE = "Other answers to the same questions, for the difference."
Compare = Annotated[str | None, plain(FILES, "--compare FILE", _COMPARE)]
_BLIND = "Answers that were given without pixels, for the gain over them."
Blind = Annotated[str | None, plain(FILES, "--blind FILE", _BLIND)]
_REPORT = "Write report.md, results.json and plot.png there."
Report = Annotated[str | None, plain(OUTPUT, "--report FOLDER", _REPORT)]
_JUDGE = "A model that grades the answers."
Judge = Annotated[str | None, option(JUDGE, "--judge MODEL", not_blank, _JUDGE)]
_JUDGE_URL = "An OpenAI-compatible endpoint; the key is in OPENAI_API_KEY. [default: OpenAI's]"
JudgeUrl = Annotated[str | None, option(JUDGE, "--judge-url URL", config.web_address, _JUDGE_URL)]
_JUDGE_PROMPT = "Prompts of your own, in TOML."
JudgePrompt = Annotated[str | None, plain(JUDGE, "--judge-prompt FILE", _JUDGE_PROMPT)]
_JUDGE_JOBS = "Requests at a time. [default: 8]"
JudgeJobs = Annotated[int, option(JUDGE, "--judge-jobs N", whole_number(1, 1000), _JUDGE_JOBS)]
_JUDGE_REPLIES = "Where replies are kept. [default: beside the answers]"
JudgeReplies = Annotated[str | None, plain(JUDGE, "--judge-replies FILE", _JUDGE_REPLIES)]
_JUDGE_TEMPERATURE = "Sampling temperature of the judge. [default: 0]"
JudgeTemperature = Annotated[
    float, option(JUDGE, "--judge-temperature X", config.temperature, _JUDGE_TEMPERATURE)
]
_JUDGE_SEED = "Sent to the judge."
JudgeSeed = Annotated[
    int | None, option(JUDGE, "--judge-seed N", whole_number(0, 2**63 - 1), _JUDGE_SEED)
]

_CHOOSE = "How choices are answered: likelihood or generate. [default: likelihood]"
Choose = Annotated[str, _run("--choose HOW", choice("likelihood", "generate"), _CHOOSE)]
_CHECK = "Only list lines that cannot be read, and clips that are missing or do not decode."
Check = Annotated[bool, plain(_RUN, "--check", _CHECK)]
# no variables: a forgotten one would change all answers
_BLIND_RUN = "Answer from gray frames, to measure what looking adds."
BlindRun = Annotated[bool, plain(_RUN, "--blind", _BLIND_RUN)]
_MIRROR = "Mirror the frames left to right."
Mirror = Annotated[bool, plain(_RUN, "--mirror", _MIRROR)]

Continue = Annotated[bool, plain(_CHAT, "--continue", "Go on with the last conversation.")]
Load = Annotated[str | None, plain(_CHAT, "--load FILE", "Go on with a saved one.")]
NoLog = Annotated[bool, _flag(_CHAT, "--no-log/--log", "Keep nothing of this one.")]

_MEDIA = "Requests may name files in this folder and below; repeat it for more folders."
MediaDir = Annotated[list[str] | None, plain(SERVER, "--media-dir FOLDER", _MEDIA)]
_KEEP_ALIVE = "Free the model after this time without a request, as 10m. [default: never]"
KeepAlive = Annotated[Any, parsed(SERVER, "--keep-alive TIME", config.keep_alive, _KEEP_ALIVE)]
_MEMORY = "Memory for the prefixes of recent clips. [default: 1GB]"
PrefixMemory = Annotated[int, parsed(LIMITS, "--prefix-memory SIZE", byte_count, _MEMORY)]
_LENGTH = "Longest video. [default: 6:00:00]"
MaxLength = Annotated[float, parsed(LIMITS, "--max-length TIME", parse_length, _LENGTH)]
_PIXELS = "Largest picture of a video: width times height. [default: 9437184]"
MaxPixels = Annotated[int, parsed(LIMITS, "--max-pixels N", whole_number(1, 10**9), _PIXELS)]
_READ = "Longest time for reading the frames of a video. [default: 2:00]"
ReadTimeout = Annotated[float, parsed(LIMITS, "--read-timeout TIME", parse_length, _READ)]

_CACHE_SIZE = "Disk space for cached clips; 0 for none. [default: 4GB]"
CacheSize = Annotated[int, option(CACHE, "--cache-size SIZE", byte_count, _CACHE_SIZE)]
_FULL_HASH = "Hash whole files when looking up the cache."
FullHash = Annotated[bool, _flag(CACHE, "--full-hash/--no-full-hash", _FULL_HASH)]

Json = Annotated[bool, _flag(OUTPUT, "--json/--no-json", "One JSON object.")]
JsonRanking = Annotated[bool, _flag(OUTPUT, "--json/--no-json", "A JSON object for each line.")]
_TOP = "How many of the best are shown. [default: 10]"
Top = Annotated[int, option(OUTPUT, "--top N", whole_number(1, 1_000_000), _TOP)]
_TABLE = "csv: a table."
RankingFormat = Annotated[str | None, parsed(OUTPUT, "--format NAME", choice("csv"), _TABLE)]
_LOGPROBS = "In JSON, also the log-probability of each token."
Logprobs = Annotated[bool, _flag(OUTPUT, "--logprobs/--no-logprobs", _LOGPROBS)]
JsonLines = Annotated[bool, _flag(OUTPUT, "--json/--no-json", "The answers on stdout, too.")]
_STATS = "What each answer took: time, tokens, memory."
Stats = Annotated[bool, _flag(OUTPUT, "--stats/--no-stats", _STATS)]
StageStats = Annotated[bool, _flag(OUTPUT, "--stats/--no-stats", "The time that each stage took.")]
_GRAPHICS = "auto, kitty, iterm2, sixel, blocks or none. [default: auto]"
Graphics = Annotated[str, option(OUTPUT, "--graphics KIND", choice(*GRAPHICS), _GRAPHICS)]
NoFrames = Annotated[bool, _flag(OUTPUT, "--no-frames/--show-frames", "Draw no frames.")]
_SAVE = "Also as one picture: PNG, JPEG or WebP."
Save = Annotated[str | None, plain(OUTPUT, "--save FILE", _SAVE)]
_CAPTIONS = "Windows as srt, vtt or csv."
CaptionFormat = Annotated[
    str | None, parsed(OUTPUT, "--format NAME", config.caption_format, _CAPTIONS)
]
_SEGMENTS = "srt, vtt, csv, edl or ffconcat, in place of lines."
SegmentFormat = Annotated[
    str | None,
    parsed(OUTPUT, "--format NAME", config.segment_format, _SEGMENTS),
]
Quiet = Annotated[bool, _flag(OUTPUT, "--quiet/--no-quiet", "No notices; errors still show.")]
Debug = Annotated[bool, _flag(OUTPUT, "--debug/--no-debug", "Tracebacks for errors.")]


@dataclass(frozen=True)
class Looking:
    """The options of commands that score clips: about the clip and the model."""

    start: From = None
    end: To = None
    frames: Frames = 8
    model: Model = MODEL
    quant: Quant = "auto"
    engine: Engine = "auto"
    device: Device = "auto"
    system: System = None
    offline: Offline = False

    def clip(self, video: str | PathLike[str], at: tuple[float, ...] = ()) -> Clip:
        return Clip(local_file(video), self.start, self.end, at=at)

    def spec(self) -> "RunSpec":
        from pandacli.inference.spec import RunSpec

        return RunSpec(self.model, self.quant, self.engine, self.device)


@dataclass(frozen=True)
class Asking(Looking):
    """The same options of commands that can use the model of a server."""

    server: Server = "auto"


@dataclass(frozen=True)
class Answering(Asking):
    """The options of `ask` and `chat` about the clip, the model and its answers."""

    max_tokens: MaxTokens = 1024
    temperature: Temperature = 0.0
    seed: Seed = None
    stop: Stop = None

    def generation(self) -> "GenerationOptions":
        from pandacli.inference.spec import GenerationOptions

        stop = tuple(self.stop or ())
        return GenerationOptions(self.max_tokens, self.temperature, self.seed, stop)


@dataclass(frozen=True)
class BatchAnswering(Answering):
    """The same options of `batch`, which can also use Ray."""

    engine: BatchEngine = "auto"


@dataclass(frozen=True)
class Serving:
    """The options of commands that keep a model for the requests of other programs."""

    media_dir: MediaDir = None
    keep_alive: KeepAlive = None
    model: Model = MODEL
    quant: Quant = "auto"
    engine: Engine = "auto"
    device: Device = "auto"
    offline: Offline = False
    prefix_memory: PrefixMemory = 1_000_000_000
    max_length: MaxLength = 6 * 3600.0
    max_pixels: MaxPixels = 4096 * 2304
    read_timeout: ReadTimeout = 120.0

    def folders(self) -> list[Path]:
        """The media folders; a UsageError if one is none."""
        for name in self.media_dir or ():
            if not Path(name).expanduser().is_dir():
                raise UsageError(f"--media-dir: {name} is not a folder")
        return [Path(name).expanduser() for name in self.media_dir or ()]

    def spec(self) -> "RunSpec":
        from pandacli.inference.spec import RunSpec

        return RunSpec(self.model, self.quant, self.engine, self.device)

    def limits(self) -> "Limits":
        from pandacli.server.media import Limits

        return Limits(self.max_pixels, seconds=self.max_length, read_seconds=self.read_timeout)


def expand(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command with the fields of its parameter `how`, a dataclass, in place of it."""
    signature = inspect.signature(command)
    if "how" not in signature.parameters:
        return command
    group = signature.parameters["how"].annotation
    declared = inspect.signature(group).parameters

    @wraps(command)
    def expanded(**values: Any) -> None:
        how = group(**{name: values.pop(name) for name in declared})
        command(**values, how=how)

    expanded.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[
            parameter.replace(kind=parameter.KEYWORD_ONLY)
            for own in signature.parameters.values()
            for parameter in (declared.values() if own.name == "how" else (own,))
        ]
    )
    return expanded
