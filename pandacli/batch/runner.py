"""A run: the clips of an index one after the other, each with all its questions."""

from collections.abc import Callable, Iterable, Iterator
from threading import Event
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

from pandacli.batch.clip_worker import ClipWorker, Done, Line, Settings, failures
from pandacli.batch.counters import Counters, Outcome
from pandacli.batch.prefetch import FramePrefetcher
from pandacli.batch.record_index import Group, Index
from pandacli.batch.records import BadLine, Question
from pandacli.batch.videos import VideoFolder
from pandacli.errors import PandaError
from pandacli.video.clip import Clip

if TYPE_CHECKING:
    from pandacli.inference import Panda
    from pandacli.video import Frames


class Answers(Protocol):
    """Where lines go."""

    def write(self, line: Line) -> None:
        """Write a line; once this returns, it is not lost when the process is killed."""
        ...


class Runner:
    """Answers what is open in an index, on this machine.

    Args:
        index: What is to be answered.
        settings: How it is asked.
        videos: The folder of the videos.
        answers: Where the answers go.
        canvas_side: The side in pixels of the square that the model sees.
        fail_fast: Stop at the first failure.

    Attributes:
        counters: How far it is.
        stopped: Once set, no question is begun any more; those under way are answered.
        failed_fast: Whether it was a failure that stopped it.
    """

    def __init__(
        self,
        index: Index,
        settings: Settings,
        videos: VideoFolder,
        answers: Answers,
        *,
        canvas_side: int,
        fail_fast: bool = False,
    ) -> None:
        self._index, self._settings, self._videos = index, settings, videos
        self._answers, self._side, self._fail_fast = answers, canvas_side, fail_fast
        self._say: Callable[[str], None] = lambda _: None
        self._panda: Panda | None = None
        self._current: ClipWorker | None = None
        self.stopped = Event()
        self.failed_fast = False
        self.counters = Counters(records=index.total, earlier=index.earlier, clips=index.clips)

    @property
    def in_flight(self) -> int:
        """How many questions are being answered at this moment."""
        return self._current.in_flight if self._current else 0

    def outcomes(
        self, load: "Callable[[], Panda]", say: Callable[[str], None] = lambda _: None
    ) -> Iterator[Outcome]:
        """What becomes of each record, once it is on the disk.

        Args:
            load: Loads the model; called once, when frames are there to look at.
            say: Told, in a few words, what is waited for.

        Raises:
            PandaError: The model cannot be loaded, or the answers cannot be written.
        """
        self._load, self._say = load, say
        say("starting")
        yield from self._write(failures(self._index.bad_lines(), PandaError("")))
        if self.stopped.is_set() or not self._index.clips:
            return
        with FramePrefetcher(self._settings.frames, self._side) as ahead:
            for group, frames in self._waited(ahead.read(self._clips())):
                yield from self._write(self._lines(group, frames))
                if self.stopped.is_set():
                    return
                self.counters.clips_done += 1

    def _clips(self) -> Iterator[tuple[Group, Clip | PandaError]]:
        for group in self._index.groups():
            yield group, find_clip(group, self._videos, self._settings)

    def _waited(
        self, read: "Iterable[tuple[Group, Frames | PandaError]]"
    ) -> "Iterator[tuple[Group, Frames | PandaError]]":
        """The same, with the time that was spent waiting counted."""
        reading = iter(read)
        while True:
            self._say("reading frames")
            started = perf_counter()
            following = next(reading, None)
            self.counters.spend("frames", perf_counter() - started)
            if following is None:
                return
            yield following

    def _lines(self, group: Group, frames: "Frames | PandaError") -> Iterator[Done]:
        if isinstance(frames, PandaError):
            yield from failures(group, frames)
            return
        if self._panda is None:
            started = perf_counter()
            self._panda = self._load()
            self.counters.spend("load", perf_counter() - started)
        self._say("answering")
        self._current = ClipWorker(self._panda, self._settings, group, self.stopped)
        try:
            yield from self._current.lines(frames)
        finally:
            for stage, seconds in self._current.seconds.items():
                self.counters.spend(stage, seconds)
            self._current = None

    def _write(self, done: Iterable[Done]) -> Iterator[Outcome]:
        for question, line in done:
            yield record_outcome(question, line, self._answers, self.counters)
            if self._fail_fast and "error" in line:
                self.failed_fast = True
                self.stopped.set()
                return


def find_clip(
    group: Iterable[Question | BadLine], videos: VideoFolder, settings: Settings
) -> Clip | PandaError:
    """The clip that a group asks about, or why there is none."""
    error: PandaError = PandaError("it has no questions any more")
    for question in group:
        if isinstance(question, BadLine):
            error = question.error
            continue
        record = question.record
        start = settings.start if record.start is None else record.start
        end = settings.end if record.end is None else record.end
        try:
            return Clip(videos.find(record.video), start, end)
        except PandaError as wrong:
            return wrong
    return error


def record_outcome(
    question: Question | BadLine, line: Line, answers: Answers, counters: Counters
) -> Outcome:
    """Write what has become of a record, and count it.

    Raises:
        PandaError: It cannot be written.
    """
    started = perf_counter()
    answers.write(line)
    counters.spend("writing", perf_counter() - started)
    if "error" in line:
        counters.failed += 1
    else:
        counters.answered += 1
        counters.tokens += line["tokens"]
    asked = question.record if isinstance(question, Question) else None
    return Outcome(
        line=question.line if isinstance(question, BadLine) else question.record.line,
        video=asked.video if asked else "",
        question=asked.question if asked else "",
        answer=None if "error" in line else line["answer"],
        error=line["error"]["message"] if "error" in line else None,
        written=line,
    )
