"""The runner: maps the clips of an index, here or on Ray, to results; writes and counts each."""

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from pandacli.batch.clip_worker import ClipWorker, Settings
from pandacli.batch.film_worker import FilmWorker
from pandacli.batch.records import BadLine, Index, Question, find_video
from pandacli.batch.results import Counters, Outcome, Result, error_line, error_lines
from pandacli.batch.results_file import ResultsFile, ResultsStream
from pandacli.errors import PandaError
from pandacli.video.clip import Clip
from pandacli.video.prefetch import FramePrefetcher
from pandacli.video.windows import FilmReader

if TYPE_CHECKING:
    from pandacli.inference import Panda

Load = Callable[[], "Panda"]  # called at most once, after the first frames, not on a cluster
Say = Callable[[str], None]  # is called with a few words on what is waited for
# yields each open record of `run.index` with its line, and counts clips and the time of each stage;
# once the run is `stopped`, it starts no further question, and ends after those in flight
ClipMap = Callable[["Runner", Load, Say], Iterator[Result]]


class Runner:
    """Answers the open questions of an index."""

    def __init__(
        self, index: Index, clips: ClipMap, writer: ResultsFile | ResultsStream, *, fail_fast: bool
    ) -> None:
        self.index, self._clips, self._writer, self._fail_fast = index, clips, writer, fail_fast
        self.counters = Counters(records=index.total, earlier=index.earlier, clips=index.clips)
        self.stopped = Event()  # once set, no further question is started
        self.failed_fast = False  # whether a failure stopped it
        self.in_flight: Callable[[], int] = lambda: 0  # questions being answered, set by the map

    def outcomes(self, load: Load, say: Say = lambda _: None) -> Iterator[Outcome]:
        """The outcome of each record, once written; raises PandaError for the model or the file."""
        say("starting")
        yield from self._record((bad, error_line(bad, bad.error)) for bad in self.index.bad_lines())
        if self.index.clips and not self.stopped.is_set():
            yield from self._record(self._clips(self, load, say))

    def _record(self, results: Iterator[Result]) -> Iterator[Outcome]:
        for question, line in results:
            with self.counters.timed("writing"):
                self._writer.write(line)
            error = line["error"]["message"] if "error" in line else None
            if error is None:
                self.counters.answered += 1
                self.counters.tokens += line["tokens"]
            else:
                self.counters.failed += 1
            if isinstance(question, BadLine):
                yield Outcome(question.line, "", "", None, error, line)
            else:
                asked, answer = question.record, line.get("answer")
                yield Outcome(asked.line, asked.video, asked.question, answer, error, line)
            if self._fail_fast and error is not None:
                self.failed_fast = True
                self.stopped.set()
                return


def answer_locally(
    settings: Settings, videos: Path, image_size: int, run: Runner, load: Load, say: Say
) -> Iterator[Result]:
    """A `ClipMap`: answer one clip after another in this process, and read frames ahead."""

    @cache
    def panda() -> "Panda":
        with run.counters.timed("load"):
            return load()

    yield from _answer_clips(settings, videos, image_size, run, panda, say)
    yield from _answer_films(settings, videos, image_size, run, panda, say)


def _answer_clips(
    settings: Settings, videos: Path, image_size: int, run: Runner, panda: Load, say: Say
) -> Iterator[Result]:
    groups = run.index.groups(films=False)
    clips = ((group, find_clip(group, videos, settings)) for group in groups)
    with FramePrefetcher(settings.frames, image_size) as prefetcher:
        prefetched = prefetcher.read(clips)
        while not run.stopped.is_set():
            say("reading frames")
            with run.counters.timed("frames"):
                clip = next(prefetched, None)
            if clip is None:
                return
            group, frames = clip
            if isinstance(frames, PandaError):
                yield from error_lines(group, frames)
            else:
                worker = ClipWorker(panda(), settings, group, run.stopped)
                say("answering")
                yield from _answer(worker, worker.results(frames), run)
            run.counters.clips_done += not run.stopped.is_set()


def _answer_films(
    settings: Settings, videos: Path, image_size: int, run: Runner, panda: Load, say: Say
) -> Iterator[Result]:
    def progress(done: int, known: int) -> None:
        say(f"answering, window {done:,} of {known:,}")

    for group in run.index.groups(films=True):
        if run.stopped.is_set():
            return
        say("reading frames")
        clip = find_clip(group, videos, settings)
        if isinstance(clip, PandaError):
            yield from error_lines(group, clip)
        else:
            with FilmReader(clip.path, settings.frames, image_size) as reader:
                worker = FilmWorker(panda, settings, group, run.stopped, progress)
                yield from _answer(worker, worker.results(reader, clip), run)
        run.counters.clips_done += not run.stopped.is_set()


def _answer(
    worker: ClipWorker | FilmWorker, results: Iterator[Result], run: Runner
) -> Iterator[Result]:
    run.in_flight = worker.in_flight
    try:
        yield from results
    finally:
        run.in_flight = lambda: 0
        for stage, seconds in worker.seconds.items():
            run.counters.spend(stage, seconds)


def find_clip(group: Iterable[Question], videos: Path, settings: Settings) -> Clip | PandaError:
    """The clip that a group of questions is about, or the reason why there is none."""
    record = next(iter(group)).record
    start = settings.start if record.start is None else record.start
    end = settings.end if record.end is None else record.end
    try:
        path = find_video(videos, record.video)
        return Clip(path, at=record.at) if record.at else Clip(path, start, end)
    except PandaError as error:
        return error
