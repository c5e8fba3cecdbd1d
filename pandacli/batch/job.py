"""A batch job: open its files, plan what is open, convert the results at the end."""

import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self, TextIO

from pandacli import checkpoints
from pandacli.batch.clip_worker import Settings
from pandacli.batch.formats import FORMATS, check_output, write_results
from pandacli.batch.output import (
    JSONL,
    STREAM,
    choose_format,
    choose_paths,
    refuse_foreign,
    refuse_same,
    writable_file,
)
from pandacli.batch.ray import RayMap
from pandacli.batch.readers.questions import read_questions
from pandacli.batch.records import Index, VideoFolder
from pandacli.batch.results_file import ResultsFile, ResultsStream
from pandacli.batch.runner import ClipMap, LocalMap, Runner
from pandacli.errors import ClipError, UsageError
from pandacli.file_io import replace_durably

if TYPE_CHECKING:
    from pandacli.inference.planning.planner import Plan


@dataclass(frozen=True)
class Job:
    """What a batch is to do.

    Attributes:
        questions: The file of questions, or "-".
        settings: How they are answered.
        output: The file of the output, or "-"; None for a name beside the questions.
        format: The format of the questions, or "auto".
        output_format: The format of the output, or "same" as the questions; None to go by the
            suffix of `output`.
        right_answers: The file of reference answers to the questions.
        video_dir: The folder that video names are relative to; None for that of the questions.
        shard: The number of the shard of clips, from 1, and the number of shards.
        fail_fast: Stop at the first failure.
        ray: Answer on a Ray cluster.
        address: Address of the cluster; None starts Ray on this machine.
        workers: How many Ray workers, each with a model; None for one a GPU, or one a machine.
    """

    questions: str
    settings: Settings
    output: str | None = None
    format: str = "auto"
    output_format: str | None = None
    right_answers: Path | None = None
    video_dir: Path | None = None
    shard: tuple[int, int] = (1, 1)
    fail_fast: bool = False
    ray: bool = False
    address: str | None = None
    workers: int | None = None


class Batch:
    """A job with its files open and its results file locked; a context manager that closes them.

    Args:
        job: What to do.
        confirm: Asks the user a yes-or-no question.

    Attributes:
        output: The file of the output, as it was asked for; None for stdout.
        results_path: The results file; None where the results are not kept to resume from.
        settings: Those of the job, with "auto" resolved by `plan`; the model must be loaded so.
        run_plan: How the model is to be run, set by `plan`; None on a cluster.
        run: The runner that `plan` has made.

    Raises:
        UsageError: The output cannot go where it was asked for.
        ClipError: The file of questions cannot be read, or the output cannot be written.
    """

    run: Runner
    settings: Settings
    run_plan: "Plan | None"

    def __init__(self, job: Job, confirm: Callable[[str], bool] = lambda _: False) -> None:
        self.job = job
        self._confirm = confirm
        self._piped = job.questions == STREAM
        with ExitStack() as opened:
            source = _stdin() if self._piped else Path(job.questions)
            self._questions = opened.enter_context(
                read_questions(source, job.format, job.right_answers)
            )
            self._format = choose_format(job.output_format, job.output, self._questions.format)
            check_output(self._questions, self._format)
            self.output, self.results_path = choose_paths(
                job.output, job.questions, self._format, job.shard
            )
            for path in filter(None, (self.output, self.results_path)):
                self._refuse_inputs(path)
            # replaced behind a symbolic link, which stays one
            self._converted = writable_file(self.output) if self.output else None
            self._refuse_foreign()
            self._results = self._open_results(opened)
            self._opened = opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._opened.__exit__(kind, error, traceback)

    @property
    def notices(self) -> list[str]:
        """What in the questions is not used, a sentence each."""
        return self._questions.notices

    def plan(self, say: Callable[[str], None] = lambda _: None) -> Runner:
        """Index the records that this model, run in this way, has not answered yet.

        "auto" is resolved here, because quant and engine are part of a record's digest: a batch
        resumed on another machine must not mix precisions under one digest. On a cluster each
        worker resolves it, and all must agree. Answers of old versions, whose digests do not say
        what ran, are asked again.

        Args:
            say: Called with a few words on what is waited for.

        Raises:
            ModelError: The model is not on this machine, or damaged.
            DeviceError: The device does not exist, or is too small.
            ClipError: The file of questions cannot be read.
        """
        job = self.job
        model = checkpoints.resolve(job.settings.model)
        say(f"identifying {model.name}")
        weights = checkpoints.model_digest(model)
        self.settings, self.run_plan = _resolve_auto(job, model)
        dtype = str(self.run_plan.dtype).removeprefix("torch.") if self.run_plan else None
        say("reading the questions")
        fields = self.settings.digest_fields() | {"weights": weights, "dtype": dtype}
        index = Index(self._questions.records, fields, self._results.done, job.shard)
        self._digests = index.digests
        home = Path() if self._piped else Path(job.questions).parent
        videos = VideoFolder(job.video_dir or home)
        image_size = checkpoints.read_image_size(model.folder)
        clips: ClipMap = LocalMap(self.settings, videos, image_size)
        if job.ray:
            clips = RayMap(
                self.settings, model, weights, videos, image_size, job.address, job.workers
            )
        self.run = Runner(index, clips, self._results, fail_fast=job.fail_fast)
        return self.run

    def finish(self, show: Callable[[str], object]) -> list[str]:
        """Write all results to disk or stdout, converted to the format asked for.

        Args:
            show: Writes a line to stdout; may raise OSError.

        Returns:
            Notices for a user who scores the answers, a sentence each.

        Raises:
            BrokenPipeError: The reader of stdout has closed it.
            ClipError: The output cannot be written.
            UsageError: Another file has taken its place meanwhile.
        """
        self._results.sync()
        if self._format == JSONL:
            return []
        if self._converted is None:
            return self._show(show)
        self._refuse_foreign()
        partial_file = self._converted.with_name(f"{self._converted.name}.partial")
        try:
            with partial_file.open("w", encoding="utf-8", newline="") as file:
                notices = self._convert(file)
            replace_durably(partial_file, self._converted)
        except OSError as error:
            raise ClipError(
                f"cannot write {self.output}: {error.strerror}",
                f"the answers are safe in {self.results_path}",
            ) from error
        finally:
            partial_file.unlink(missing_ok=True)
        return notices

    def _show(self, show: Callable[[str], object]) -> list[str]:
        try:
            with tempfile.TemporaryFile("w+", encoding="utf-8", newline="") as file:
                notices = self._convert(file)
                file.seek(0)
                for line in file:
                    show(line)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise ClipError(f"cannot write the answers: {error.strerror}") from error
        return notices

    def _convert(self, file: TextIO) -> list[str]:
        assert isinstance(self._results, ResultsFile)  # a stream cannot be read again
        tabs = self.output is not None and self.output.suffix.lower() == ".tsv"
        return write_results(
            *(self._questions, self._format, self._digests, self._results.find, file),
            delimiter="\t" if tabs else None,
        )

    def _refuse_foreign(self) -> None:
        if self._format != JSONL and self.output and self.results_path:
            is_output = FORMATS[self._format].is_output
            refuse_foreign(self.output, self.results_path, self._format, is_output)

    def _refuse_inputs(self, path: Path) -> None:
        if not self._piped:
            refuse_same(path, Path(self.job.questions), "questions")
        if self._questions.references:
            refuse_same(path, self._questions.references, "right answers")

    def _may_drop(self, line: int) -> bool:
        return self._confirm(
            f"line {line} of {self.results_path} is torn; drop it, and ask its question again?"
        )

    def _open_results(self, opened: ExitStack) -> ResultsFile | ResultsStream:
        if self.results_path:
            return opened.enter_context(ResultsFile(self.results_path, self._may_drop))
        if self._format == JSONL:
            return ResultsStream(sys.stdout.buffer)
        folder = opened.enter_context(tempfile.TemporaryDirectory())
        return opened.enter_context(ResultsFile(Path(folder) / "answers.jsonl"))


def _resolve_auto(job: Job, model: checkpoints.ResolvedModel) -> "tuple[Settings, Plan | None]":
    """Return the settings with "auto" resolved for this machine, and the plan they come from.

    Those of a cluster stay as they are: they depend on its machines.
    """
    settings = job.settings
    if job.address is not None:
        return settings, None
    import torch  # takes seconds

    from pandacli.inference.planning.planner import resolve_run
    from pandacli.inference.spec import RunSpec

    # a Ray worker has one GPU
    one_gpu = job.ray and settings.device in ("auto", "cuda") and torch.cuda.is_available()
    device = "cuda:0" if one_gpu else settings.device
    plan = resolve_run(RunSpec(settings.model, settings.quant, settings.engine, device), model)
    settings = replace(settings, quant=plan.quant, engine=plan.backend)
    if not job.ray:
        settings = replace(settings, device=plan.device)
    return settings, plan


def _stdin() -> BinaryIO:
    if sys.stdin is None:
        raise UsageError("standard input is closed")
    return sys.stdin.buffer
