"""The runner: maps the clips of an index to results, writes each, and counts it.

What differs between one machine and a Ray cluster is the map only: `LocalMap` here, or `RayMap`.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Protocol

from pandacli.batch.clip_worker import ClipWorker, Settings
from pandacli.batch.prefetch import FramePrefetcher
from pandacli.batch.records import BadLine, Index, Question, find_video
from pandacli.batch.results import Counters, Outcome, Result, error_line, error_lines
from pandacli.batch.results_file import ResultsFile, ResultsStream
from pandacli.errors import PandaError
from pandacli.video.clip import Clip

if TYPE_CHECKING:
    from pandacli.inference import Panda
    from pandacli.video import Frames

Load = Callable[[], "Panda"]
"""Loads the model: called at most once, when the first frames are there, and not on a cluster."""

Say = Callable[[str], None]
"""Is called with a few words on what is waited for."""


class ClipMap(Protocol):
    """Answers the open questions of an index, clip by clip."""

    @property
    def in_flight(self) -> int:
        """How many questions are being answered."""

    def results(self, run: "Runner", load: Load, say: Say) -> Iterator[Result]:
        """Yield each record of `run.index` with its line; count clips and the time of each stage.

        Once the run is `stopped`, it starts no further question, and ends after those in flight.
        """


class Runner:
    """Answers the open questions of an index."""

    def __init__(
        self, index: Index, clips: ClipMap, writer: ResultsFile | ResultsStream, *, fail_fast: bool
    ) -> None:
        self.index, self._clips, self._writer, self._fail_fast = index, clips, writer, fail_fast
        self.counters = Counters(records=index.total, earlier=index.earlier, clips=index.clips)
        self.stopped = Event()  # once set, no further question is started
        self.failed_fast = False  # whether a failure stopped it

    @property
    def in_flight(self) -> int:
        """How many questions are being answered."""
        return self._clips.in_flight

    def outcomes(self, load: Load, say: Say = lambda _: None) -> Iterator[Outcome]:
        """The outcome of each record, once its line is written.

        Raises a PandaError where the model cannot be loaded, or the results cannot be written.
        """
        say("starting")
        yield from self._record((bad, error_line(bad, bad.error)) for bad in self.index.bad_lines())
        if self.index.clips and not self.stopped.is_set():
            yield from self._record(self._clips.results(self, load, say))

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


class LocalMap:
    """Answers clips one after another in this process; others prefetch their frames."""

    def __init__(self, settings: Settings, videos: Path, image_size: int) -> None:
        self._settings, self._videos = settings, videos
        self._image_size = image_size  # side in pixels of the model's square image
        self._panda: Panda | None = None
        self._current: ClipWorker | None = None

    @property
    def in_flight(self) -> int:
        return self._current.in_flight if self._current else 0

    def results(self, run: Runner, load: Load, say: Say) -> Iterator[Result]:
        groups = run.index.groups()
        clips = ((group, find_clip(group, self._videos, self._settings)) for group in groups)
        with FramePrefetcher(self._settings.frames, self._image_size) as prefetcher:
            prefetched = prefetcher.read(clips)
            while True:
                say("reading frames")
                with run.counters.timed("frames"):
                    clip = next(prefetched, None)
                if clip is None:
                    return
                group, frames = clip
                if isinstance(frames, PandaError):
                    yield from error_lines(group, frames)
                else:
                    yield from self._answer(group, frames, run, load, say)
                if run.stopped.is_set():
                    return
                run.counters.clips_done += 1

    def _answer(
        self, group: Iterable[Question], frames: "Frames", run: Runner, load: Load, say: Say
    ) -> Iterator[Result]:
        if self._panda is None:
            with run.counters.timed("load"):
                self._panda = load()
        say("answering")
        self._current = ClipWorker(self._panda, self._settings, group, run.stopped)
        try:
            yield from self._current.results(frames)
        finally:
            for stage, seconds in self._current.seconds.items():
                run.counters.spend(stage, seconds)
            self._current = None


def find_clip(group: Iterable[Question], videos: Path, settings: Settings) -> Clip | PandaError:
    """The clip that a group of questions is about, or the reason why there is none."""
    record = next(iter(group)).record
    start = settings.start if record.start is None else record.start
    end = settings.end if record.end is None else record.end
    try:
        return Clip(find_video(videos, record.video), start, end)
    except PandaError as error:
        return error
