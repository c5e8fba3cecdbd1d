"""A batch job: open its files, plan what is open, convert the results at the end."""

import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self, TextIO

from pandacli import checkpoints
from pandacli.batch.clip_worker import Settings
from pandacli.batch.formats import FORMATS, check_output, write_results
from pandacli.batch.ray import RayMap
from pandacli.batch.readers.questions import read_questions
from pandacli.batch.records import Index
from pandacli.batch.results_file import ResultsFile, ResultsStream, writable_file
from pandacli.batch.runner import ClipMap, Runner, answer_locally
from pandacli.errors import ClipError, UsageError
from pandacli.file_io import replace_durably

if TYPE_CHECKING:
    from pandacli.inference.panda import Panda
    from pandacli.inference.planning.planner import Plan

STREAM = "-"  # stands for stdin or stdout in place of a file
JSONL = "jsonl"  # the format of the results file; every other is converted from it at the end


@dataclass(frozen=True)
class Job:
    """What a batch is to do."""

    questions: str  # a file, or "-"
    settings: Settings
    output: str | None = None  # a file, or "-"; None for a name beside the questions
    format: str = "auto"  # of the questions
    output_format: str | None = None  # or "same" as the questions; None to go by the suffix
    right_answers: Path | None = None  # the file of reference answers
    video_dir: Path | None = None  # None for the folder of the questions
    shard: tuple[int, int] = (1, 1)  # of the clips: its number, from 1, and how many there are
    fail_fast: bool = False  # stop at the first failure
    ray: bool = False  # answer on a Ray cluster
    address: str | None = None  # of the cluster; None starts Ray on this machine
    workers: int | None = None  # each with a model; None for one a GPU, or one a machine

    @property
    def piped(self) -> bool:
        """Whether the questions come from stdin."""
        return self.questions == STREAM

    @property
    def source(self) -> Path | BinaryIO:
        """Where the questions are read; a UsageError if that is stdin, and it is closed."""
        if not self.piped:
            return Path(self.questions)
        if sys.stdin is None:
            raise UsageError("standard input is closed")
        return sys.stdin.buffer

    @property
    def videos(self) -> Path:
        """The folder of the videos."""
        return self.video_dir or (Path() if self.piped else Path(self.questions).parent)


class Batch:
    """A job with its files open and its results file locked; a context manager that closes them.

    `confirm` asks the user a yes-or-no question. Raises UsageError where the output cannot go
    where it was asked for, ClipError where a file cannot be read or written.
    """

    output: Path | None  # as it was asked for; None for stdout
    results_path: Path | None  # None where results are not kept to resume from
    settings: Settings  # with "auto" resolved by `plan`; the model must be loaded so
    run_plan: "Plan | None"  # how the model is to be run, set by `plan`; None if elsewhere
    run: Runner  # made by `plan`

    def __init__(self, job: Job, confirm: Callable[[str], bool] = lambda _: False) -> None:
        self.job, self._confirm = job, confirm
        with ExitStack() as opened:
            # the output is checked before the questions are parsed, which takes long for many
            open_output = partial(self._open_output, opened)
            questions = read_questions(job.source, job.format, job.right_answers, open_output)
            self._questions = opened.enter_context(questions)
            check_output(self._questions, self._format)
            self._opened = opened.pop_all()
        self.notices = self._questions.notices

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: Any) -> None:
        self._opened.__exit__(*failure)

    def _open_output(self, opened: ExitStack, format: str, references: Path | None) -> None:  # noqa: A002
        self._format, self.output, self.results_path = choose_output(self.job, format, references)
        # replaced behind a symbolic link, which stays one
        self._converted = writable_file(self.output) if self.output else None
        self._results: ResultsFile | ResultsStream
        if self.results_path:
            self._results = opened.enter_context(ResultsFile(self.results_path, self._may_drop))
        elif self._format == JSONL:
            self._results = ResultsStream(sys.stdout.buffer)
        else:
            folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
            self._results = opened.enter_context(ResultsFile(folder / "answers.jsonl"))

    def _may_drop(self, line: int) -> bool:
        where = f"line {line} of {self.results_path}"
        return self._confirm(f"{where} is torn; drop it, and ask its question again?")

    def plan(self, say: Callable[[str], None] = lambda _: None) -> Runner:
        """Index the records that this model, run in this way, has not answered yet.

        "auto" is resolved here, because quant and engine are part of a record's digest: a batch
        resumed on another machine must not mix precisions under one digest. On a cluster each
        worker resolves it, and all must agree.
        """
        job = self.job
        model = checkpoints.resolve(job.settings.spec.model)
        say(f"identifying {model.name}")
        weights = checkpoints.model_digest(model)
        self.settings, self.run_plan = _resolve_auto(job, model)
        dtype = str(self.run_plan.dtype).removeprefix("torch.") if self.run_plan else None
        how = self.settings, job.videos, checkpoints.read_image_size(model.folder)
        clips: ClipMap = partial(answer_locally, *how)
        if job.ray:
            clips = RayMap(*how, model, weights, job.address, job.workers).results
        return self._index(clips, weights, dtype, say)

    def plan_served(self, panda: "Panda", say: Callable[[str], None] = lambda _: None) -> Runner:
        """As `plan`, for the model of a server; a record's digest is the same as with it here."""
        job, spec = self.job, self.job.settings.spec
        say(f"identifying {panda.name}")
        spec = replace(spec, quant=panda.quant, backend=panda.engine, device=panda.device)
        self.settings, self.run_plan = replace(job.settings, spec=spec), None
        clips = partial(answer_locally, self.settings, job.videos, panda.image_size)
        return self._index(clips, panda.identity, panda.dtype, say)

    def _index(
        self, clips: ClipMap, weights: str, dtype: str | None, say: Callable[[str], None]
    ) -> Runner:
        job = self.job
        say("reading the questions")
        fields = self.settings.digest_fields() | {"weights": weights, "dtype": dtype}
        index = Index(
            self._questions.records,
            fields,
            self._results.done,
            job.shard,
            self.settings.choose,
            asdict(self.settings.search),
        )
        self._digests = index.digests
        self.run = Runner(index, clips, self._results, fail_fast=job.fail_fast)
        return self.run

    def finish(self, show: Callable[[str], object]) -> list[str]:
        """Write all results to disk or to `show` (line by line), in the format asked for.

        Returns notices for a user who scores the answers. Raises BrokenPipeError if stdout is
        closed, UsageError if another file has taken the output's place meanwhile.
        """
        self._results.sync()
        if self._format == JSONL:
            return []
        if self.output and self.results_path:
            refuse_foreign(self.output, self.results_path, self._format)
        try:
            return self._write(self._converted) if self._converted else self._show(show)
        except BrokenPipeError:
            raise
        except OSError as error:
            safe = f"the answers are safe in {self.results_path}" if self.output else None
            message = f"cannot write {self.output or 'the answers'}: {error.strerror}"
            raise ClipError(message, safe) from error

    def _write(self, file: Path) -> list[str]:
        partial_file = file.with_name(f"{file.name}.partial")
        try:
            with partial_file.open("w", encoding="utf-8", newline="") as written:
                notices = self._convert(written)
            replace_durably(partial_file, file)
        finally:
            partial_file.unlink(missing_ok=True)
        return notices

    def _show(self, show: Callable[[str], object]) -> list[str]:
        with tempfile.TemporaryFile("w+", encoding="utf-8", newline="") as file:
            notices = self._convert(file)
            file.seek(0)
            for line in file:
                show(line)
        return notices

    def _convert(self, file: TextIO) -> list[str]:
        assert isinstance(self._results, ResultsFile)  # a stream cannot be read again
        tabs = self.output is not None and self.output.suffix.lower() == ".tsv"
        how = self._questions, self._format, self._digests, self._results.find, file
        return write_results(*how, delimiter="\t" if tabs else None)


def choose_output(
    job: Job, questions: str, references: Path | None
) -> tuple[str, Path | None, Path | None]:
    """The format of the output, and its paths as of `choose_paths`, for questions in a format.

    Raises UsageError where it would go into a file that is not an earlier output.
    """
    chosen = choose_format(job.output_format, job.output, questions)
    output, results = choose_paths(job.output, job.questions, chosen, job.shard, job.settings.view)
    for path in filter(None, (output, results)):
        if not job.piped:
            refuse_same(path, Path(job.questions), "questions")
        if references:
            refuse_same(path, references, "right answers")
    if output and results:
        writable_file(output)
        if chosen != JSONL:
            refuse_foreign(output, results, chosen)
    return chosen, output, results


def choose_format(asked_for: str | None, output: str | None, questions: str) -> str:
    """The format that is asked for ("same" as the questions), or by the suffix of `output`."""
    if asked_for in FORMATS:
        return asked_for
    if asked_for not in (None, "same"):
        formats = f"formats are {', '.join(FORMATS)}"
        raise UsageError(f"there is no output format {asked_for!r}", formats)
    suffix = Path(output or "").suffix.lower()
    if asked_for or (suffix == ".json" and FORMATS[questions].extension == ".json"):
        return questions
    if suffix == ".json":
        message = f"{output} would hold an object a line, which is not JSON"
        raise UsageError(message, "name a .jsonl file, or an --output-format")
    return "csv" if suffix in (".csv", ".tsv") else JSONL


def choose_paths(
    output: str | None,
    questions: str,
    chosen: str,
    shard: tuple[int, int],
    view: str | None = None,
) -> tuple[Path | None, Path | None]:
    """The path of the output in the chosen format, and of the results file it is converted from.

    They are equal for JSON lines, None for stdout, and beside the questions without `output`:
    there the view and the shard are part of the name.
    """
    if output == STREAM or (output is None and questions == STREAM):
        return None, None
    if output == "":
        raise UsageError("-o is empty", "name a file, or - for stdout")
    path = Path(output or questions)
    part = ""
    if output is None:
        part = (f".{view}" if view else "") + (f".{shard[0]}-of-{shard[1]}" * (shard[1] > 1))
    results = path.parent / f"{path.stem}.answers{part}.jsonl"
    if output is None:
        path = results.with_suffix(FORMATS[chosen].extension)
    if chosen == JSONL:
        return path, path
    if os.path.realpath(results) == os.path.realpath(path):
        raise UsageError(f"{path} is where the answers are kept one by one: choose another name")
    return path, results


def refuse_same(path: Path, other: Path, what: str) -> None:
    """Raise UsageError if results would go into the input file of the `what` (a plural)."""
    try:
        same = path.samefile(other)
    except OSError:  # one of them does not exist
        same = os.path.realpath(path) == os.path.realpath(other)
    if same:
        raise UsageError(f"{path} is the file of the {what}", "name another file with -o")


def refuse_foreign(path: Path, results: Path, chosen: str) -> None:
    """Raise UsageError if the output would replace a file that is not an earlier output."""
    try:
        with path.open("rb") as file:
            empty = not os.fstat(file.fileno()).st_size
            if empty or (results.exists() and FORMATS[chosen].is_output(file)):
                return
    except FileNotFoundError:
        return
    except OSError as error:
        raise ClipError(f"cannot read {path}: {error.strerror}") from error
    message = f"{path} already exists and is not an earlier output in the format {chosen}"
    raise UsageError(message, "name another file with -o")


def _resolve_auto(job: Job, model: checkpoints.ResolvedModel) -> "tuple[Settings, Plan | None]":
    """The settings with "auto" resolved for this machine, and the plan they come from."""
    spec = job.settings.spec
    if job.address is not None:  # it depends on the machines of the cluster
        return job.settings, None
    import torch  # takes seconds

    from pandacli.inference.planning.planner import resolve_run

    # a Ray worker has one GPU
    one_gpu = job.ray and spec.device in ("auto", "cuda") and torch.cuda.is_available()
    plan = resolve_run(replace(spec, device="cuda:0") if one_gpu else spec, model)
    device = spec.device if job.ray else plan.device
    spec = replace(spec, quant=plan.quant, backend=plan.backend, device=device)
    return replace(job.settings, spec=spec), plan
