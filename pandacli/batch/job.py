"""A batch from its file of questions to its file of answers."""

import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, TextIO

from pandacli import checkpoints
from pandacli.batch.clip_worker import Settings
from pandacli.batch.formats import FORMATS, check_output, write_results
from pandacli.batch.output import refuse_foreign, refuse_same, writable_file
from pandacli.batch.ray_run import RayRun
from pandacli.batch.readers.questions import Questions, read_questions
from pandacli.batch.record_index import Index
from pandacli.batch.results_file import ResultsFile
from pandacli.batch.results_stream import ResultsStream
from pandacli.batch.runner import Runner
from pandacli.batch.videos import VideoFolder
from pandacli.errors import ClipError, UsageError
from pandacli.file_io import replace_durably

STREAM = "-"
"""Stands for stdin, or stdout, in place of a file."""

_OURS = "jsonl"  # the shape of the file that answers are written to one by one


@dataclass(frozen=True)
class Job:
    """What a batch is asked to do.

    Attributes:
        questions: The file of questions, or "-".
        settings: How they are asked.
        output: The file of answers, or "-"; None for a name like that of the questions.
        format: The format of the questions, or "auto".
        output_format: The format of the answers, or "same" as the questions; None goes by the
            suffix of `output`.
        right_answers: The file of right answers that belongs to the questions.
        video_dir: What the names of videos are relative to; None for the questions' folder.
        shard: Which part of the clips, from 1, and of how many.
        fail_fast: Stop at the first failure.
        ray: Answer on Ray, by `RayRun`.
        address: Of the Ray cluster, as it takes it; and so are the workers.
        workers: See there.
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
    """A job whose files are open, and the answers locked; a context manager, to let go of them.

    Args:
        job: What is asked for.
        confirm: Asks the user a question that takes a yes or a no.

    Attributes:
        output: The file of answers as it was asked for; None for stdout.
        journal: The file that answers are written to one by one; None where there is none to go
            on from.
        settings: How the questions are asked, set by `plan`: those of the job, with what "auto"
            stands for on this machine. The model must be loaded by these.

    Raises:
        UsageError: The answers cannot go where they were asked to.
        ClipError: The file of questions cannot be used, or the answers cannot be written.
    """

    run: Runner | RayRun
    settings: Settings

    def __init__(self, job: Job, confirm: Callable[[str], bool] = lambda _: False) -> None:
        self.job = job
        self._confirm = confirm
        self._piped = job.questions == STREAM
        with ExitStack() as opened:
            source = _stdin() if self._piped else Path(job.questions)
            self._questions = opened.enter_context(
                read_questions(source, job.format, job.right_answers)
            )
            self._shape = _shape(job, self._questions)
            check_output(self._questions, self._shape)
            self.output, self.journal = _places(job, self._shape)
            for path in filter(None, (self.output, self.journal)):
                self._refuse_what_is_read(path)
            # as asked for, it may be a link, which stays one
            self._shaped = writable_file(self.output) if self.output else None
            self._refuse_foreign()
            self._answers = self._open_answers(opened)
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
        """What the questions have that is not used, a sentence each."""
        return self._questions.notices

    def plan(self, say: Callable[[str], None] = lambda _: None) -> Runner | RayRun:
        """Find out what is open: the records without an answer by this model, run in this way.

        Where quant, engine or device are "auto", it is settled here what they are, because that is
        part of the digest of a record: a batch that is continued on another machine must not mix
        precisions under one digest. Answers of versions whose digests did not say what had run are
        asked again. In a cluster each worker settles it, and all must come to the same.

        Args:
            say: Told, in a few words, what is waited for.

        Returns:
            What answers the open questions; also in `run`.

        Raises:
            ModelError: The model is not on this machine, or damaged.
            DeviceError: The device is not there, or too small.
            ClipError: The file of questions cannot be read.
        """
        job = self.job
        resolved = checkpoints.resolve(job.settings.model)
        say(f"identifying {resolved.name}")
        weights = checkpoints.model_digest(resolved)
        self.settings, dtype = _settled(job, resolved)
        say("reading the questions")
        decisive = self.settings.decisive() | {"weights": weights, "dtype": dtype}
        index = Index(self._questions.records, decisive, self._answers.done, job.shard)
        self._digests = index.digests
        home = Path() if self._piped else Path(job.questions).parent
        how: type[Runner] | partial[RayRun] = Runner
        if job.ray:
            how = partial(RayRun, address=job.address, workers=job.workers, weights=weights)
        self.run = how(
            index,
            self.settings,
            VideoFolder(job.video_dir or home),
            self._answers,
            canvas_side=checkpoints.read_image_size(resolved.folder),
            fail_fast=job.fail_fast,
        )
        return self.run

    def finish(self, show: Callable[[str], object]) -> list[str]:
        """Have all answers on the disk or on stdout, and in the shape that was asked for.

        Args:
            show: Writes a line to stdout, where it is to go there; may raise OSError.

        Returns:
            What a user who scores the answers should know, a sentence each.

        Raises:
            BrokenPipeError: The reader of stdout has closed it.
            ClipError: They cannot be written.
            UsageError: Another file has been put in their place meanwhile.
        """
        self._answers.sync()
        if self._shape == _OURS:
            return []
        if self._shaped is None:
            return self._show(show)
        self._refuse_foreign()
        unfinished = self._shaped.with_name(f"{self._shaped.name}.partial")
        try:
            with unfinished.open("w", encoding="utf-8", newline="") as file:
                notices = self._write_shaped(file)
            replace_durably(unfinished, self._shaped)
        except OSError as error:
            raise ClipError(
                f"cannot write {self.output}: {error.strerror}",
                f"the answers are safe in {self.journal}",
            ) from error
        finally:
            unfinished.unlink(missing_ok=True)
        return notices

    def _show(self, show: Callable[[str], object]) -> list[str]:
        try:
            with tempfile.TemporaryFile("w+", encoding="utf-8", newline="") as file:
                notices = self._write_shaped(file)
                file.seek(0)
                for line in file:
                    show(line)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise ClipError(f"cannot write the answers: {error.strerror}") from error
        return notices

    def _write_shaped(self, file: TextIO) -> list[str]:
        assert isinstance(self._answers, ResultsFile)  # a shape is made of a whole journal
        tabs = self.output is not None and self.output.suffix.lower() == ".tsv"
        return write_results(
            *(self._questions, self._shape, self._digests, self._answers.find, file),
            delimiter="\t" if tabs else None,
        )

    def _refuse_foreign(self) -> None:
        if self._shape != _OURS and self.output and self.journal:
            is_output = FORMATS[self._shape].is_output
            refuse_foreign(self.output, self.journal, self._shape, is_output)

    def _refuse_what_is_read(self, path: Path) -> None:
        if not self._piped:
            refuse_same(path, Path(self.job.questions), "questions")
        if self._questions.references:
            refuse_same(path, self._questions.references, "right answers")

    def _may_drop(self, line: int) -> bool:
        return self._confirm(
            f"line {line} of {self.journal} is torn; drop it, and ask its question again?"
        )

    def _open_answers(self, opened: ExitStack) -> ResultsFile | ResultsStream:
        if self.journal:
            return opened.enter_context(ResultsFile(self.journal, self._may_drop))
        if self._shape == _OURS:
            return opened.enter_context(ResultsStream(sys.stdout.buffer))
        folder = opened.enter_context(tempfile.TemporaryDirectory())
        return opened.enter_context(ResultsFile(Path(folder) / "answers.jsonl"))


def _settled(job: Job, model: checkpoints.ResolvedModel) -> tuple[Settings, str | None]:
    """The settings with what "auto" stands for, and the number format that is computed in.

    Those of a cluster stay as they are: what "auto" stands for depends on its machines.
    """
    settings = job.settings
    if job.address is not None:
        return settings, None
    import torch  # takes seconds

    from pandacli.inference.planning.loader import plan_for

    # a worker of Ray has one card
    one_card = job.ray and settings.device in ("auto", "cuda") and torch.cuda.is_available()
    device = "cuda:0" if one_card else settings.device
    plan = plan_for(model, settings.quant, settings.engine, device)
    settled = replace(settings, quant=plan.quant, engine=plan.engine)
    if not job.ray:
        settled = replace(settled, device=plan.device)
    return settled, str(plan.dtype).removeprefix("torch.")


def _stdin() -> BinaryIO:
    if sys.stdin is None:
        raise UsageError("standard input is closed")
    return sys.stdin.buffer


def _shape(job: Job, questions: Questions) -> str:
    """The format of the answers."""
    if job.output_format == "same":
        return questions.format
    if job.output_format is not None:
        return job.output_format
    suffix = Path(job.output or "").suffix.lower()
    if suffix in (".csv", ".tsv"):
        return "csv"
    if suffix != ".json":
        return _OURS
    if FORMATS[questions.format].extension == ".json":
        return questions.format
    raise UsageError(
        f"{job.output} would hold an object a line, which is not JSON",
        "name a .jsonl file, or an --output-format",
    )


def _places(job: Job, shape: str) -> tuple[Path | None, Path | None]:
    """Where the answers end up, and where they are written one by one."""
    output = STREAM if job.output is None and job.questions == STREAM else job.output
    if output == STREAM:
        return None, None
    if output == "":
        raise UsageError("-o is empty", "name a file, or - for stdout")
    if output is None:
        return _places_beside(Path(job.questions), shape, job.shard)
    path = Path(output)
    if shape == _OURS:
        return path, path
    journal = path.with_name(f"{path.stem}.answers.jsonl")
    if os.path.realpath(journal) == os.path.realpath(path):
        raise UsageError(f"{path} is where the answers are kept one by one: call it otherwise")
    return path, journal


def _places_beside(questions: Path, shape: str, shard: tuple[int, int]) -> tuple[Path, Path]:
    part = f".{shard[0]}-of-{shard[1]}" if shard[1] > 1 else ""
    journal = questions.with_name(f"{questions.stem}.answers{part}.jsonl")
    if shape == _OURS:
        return journal, journal
    name = f"{questions.stem}.answers{part}{FORMATS[shape].extension}"
    return questions.with_name(name), journal
