"""Check a file of questions and its clips: all that can fail before a model is loaded.

A clip is decoded as a run would, to the frames that the model would be shown.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pandacli.batch.formats import check_output
from pandacli.batch.job import Job, choose_output
from pandacli.batch.readers.questions import read_questions
from pandacli.batch.records import Index, Record, shown_name
from pandacli.batch.results import Line, error_fields
from pandacli.batch.runner import find_clip
from pandacli.batch.writers import ids_repeat
from pandacli.errors import PandaError
from pandacli.video.clip import Clip
from pandacli.video.prefetch import FramePrefetcher, available_cores

if TYPE_CHECKING:
    from pandacli.video import Frames

_IMAGE_SIZE = 28  # pixels: the smallest, because the frames are dropped
_MAX_WORKERS = 8
_AHEAD = 256  # clips: they go on being read while one hangs


@dataclass(frozen=True)
class Problem:
    """Why questions cannot be answered: a line that cannot be read, or the clip of a few."""

    error: PandaError
    where: str  # as "questions.jsonl:17", or the path of the clip, or its name if it was not found
    line: int  # of the first question
    questions: int = 1  # how many it concerns
    video: str | None = None  # as the first question names it; None for a line
    path: Path | None = None  # of the clip; None if it was not found

    @property
    def sentence(self) -> str:
        """What is wrong and where, in one line."""
        message = self.error.message
        if self.video is None:
            return f"{self.where}: {message}"
        message = message.replace(f"no file {self.where}", "no such file")
        message = message.removeprefix(f"{self.where} ")
        if self.path and self.path.suffix:  # one without may be called "a"
            message = message.replace(f" {self.where}", " it")
        return f"{self.where}: {message} ({_count(self.questions, 'question')})"

    @property
    def record(self) -> Line:
        """The same as JSON."""
        path = None if self.path is None else str(self.path)
        where = {"line": self.line, "video": self.video, "path": path}
        return where | {"questions": self.questions, "error": error_fields(self.error)}


@dataclass
class Counts:
    """How far a check has come."""

    questions: int  # in the file or its shard, with lines that cannot be read
    clips: int  # each range of a file is one
    checked: int = 0  # clips
    unanswerable: int = 0  # questions
    bad_lines: int = 0
    bad_clips: int = 0

    @property
    def summary(self) -> str:
        """How many questions can be answered, or cannot, once all is checked."""
        whole = _count(self.questions, "question")
        if not self.unanswerable:
            return f"{whole} on {_count(self.clips, 'clip')} can be answered"
        why = [f"{_count(self.bad_lines, 'line')} cannot be read"] * (self.bad_lines > 0)
        if self.bad_clips:
            why.append(f"{self.bad_clips:,} of {_count(self.clips, 'clip')} cannot be used")
        return f"{self.unanswerable:,} of {whole} cannot be answered: {', '.join(why)}"


@dataclass
class _Asked:
    """A clip, or the name of one that was not found, and the questions about it."""

    video: str  # as the first question names it
    line: int  # of that
    path: Path | None  # None if it was not found
    questions: int = 0

    def problem(self, error: PandaError) -> Problem:
        where = shown_name(self.video) if self.path is None else str(self.path)
        return Problem(error, where, self.line, self.questions, self.video, self.path)


_Problems = dict[str, tuple[_Asked, PandaError]]  # by their messages


class Check:
    """The questions of a job, to be checked; a context manager. Nothing is written.

    Raises UsageError if the output could not go where it was asked for, ClipError if the file of
    questions cannot be used.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        with ExitStack() as opened:
            questions = read_questions(job.source, job.format, job.right_answers, self._detected)
            opened.enter_context(questions)
            check_output(questions, self._format)
            self._index = Index(questions.records, {}, shard=job.shard)
            self._name = questions.name
            self.notices = [*questions.notices]  # of damaged clips, too, once they are checked
            if ids_repeat(r for r in questions.records if isinstance(r, Record)):
                repeat = "ids of questions repeat: the format qa puts the video before them"
                self.notices.append(repeat)
            self._files: dict[Path, dict[Clip, _Asked]] = {}
            self._missing: dict[str, _Problems] = {}  # by the name of the video
            self._find_clips()
            if self._missing and job.video_dir is None:
                self.notices.append("if the videos are in another folder, name it with --video-dir")
            self._opened = opened.pop_all()
        found = sum(map(len, self._files.values()))
        clips = found + sum(map(len, self._missing.values()))
        self.counts = Counts(self._index.total, clips)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: Any) -> None:
        self._opened.__exit__(*failure)

    def _detected(self, layout: str, references: Path | None) -> None:
        self._format, _, _ = choose_output(self._job, layout, references)

    def _find_clips(self) -> None:
        """Group the questions by clip, whatever names it has in them."""
        for group in self._index.groups():
            first = next(iter(group)).record
            clip = find_clip(group, self._job.videos, self._job.settings)
            if isinstance(clip, PandaError):
                missing = self._missing.setdefault(first.video, {})
                new = _Asked(first.video, first.line, None)
                asked, _ = missing.setdefault(clip.message, (new, clip))
            else:
                file = self._files.setdefault(clip.path, {})
                asked = file.setdefault(clip, _Asked(first.video, first.line, clip.path))
            asked.questions += len(group)

    def problems(self) -> Iterator[Problem]:
        """Each problem, as it is found; may raise DeviceError, as `FramePrefetcher.read`."""
        for problem in self._problems():
            self.counts.unanswerable += problem.questions
            yield problem

    def _problems(self) -> Iterator[Problem]:
        for bad in self._index.bad_lines():
            self.counts.bad_lines += 1
            yield Problem(bad.error, f"{self._name}:{bad.line}", bad.line)
        for asked, error in chain.from_iterable(each.values() for each in self._missing.values()):
            self.counts.checked += 1
            self.counts.bad_clips += 1
            yield asked.problem(error)
        clips = ((asked, clip) for file in self._files.values() for clip, asked in file.items())
        workers = min(_MAX_WORKERS, available_cores())
        how = self._job.settings.frames, _IMAGE_SIZE, workers, _AHEAD
        with FramePrefetcher(*how) as prefetcher:
            for _, results in groupby(prefetcher.read(clips), key=lambda result: result[0].path):
                yield from self._file(results)

    def _file(self, results: "Iterable[tuple[_Asked, Frames | PandaError]]") -> Iterator[Problem]:
        """The problems of a file, where one may concern several ranges of it."""
        problems: _Problems = {}
        notices: dict[str, None] = {}
        for asked, frames in results:
            self.counts.checked += 1
            if not isinstance(frames, PandaError):
                notices |= dict.fromkeys(frames.notices)
                continue
            self.counts.bad_clips += 1
            first, _ = problems.setdefault(frames.message, (replace(asked, questions=0), frames))
            first.questions += asked.questions
        self.notices += notices
        yield from (asked.problem(error) for asked, error in problems.values())


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + "s" * (number != 1)
