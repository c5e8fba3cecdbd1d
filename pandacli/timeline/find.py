"""Find clips, or moments of films: they are ranked by the probability that the answer is yes.

A score that an earlier search computed is looked up, without the model and without decoding.
"""

from bisect import insort
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pandacli.errors import ClipError, PandaError
from pandacli.inference.spec import check_frame_count
from pandacli.prefix_cache.clip_cache import COMPUTATION_VERSION
from pandacli.timeline.looking import NO, YES, probability_of_yes, scores
from pandacli.timeline.scores import ScoreStore, file_state, score_key
from pandacli.video.clip import Clip
from pandacli.video.windows import FilmReader, Span, cut_windows, film_readers, span_of

if TYPE_CHECKING:
    from pandacli.inference.panda import Panda
    from pandacli.inference.planning.planner import Plan
    from pandacli.video import Frames

_SCORING_VERSION = 1
"""Increment it with every change that gives other probabilities for the same keys and values."""


@dataclass(frozen=True)
class Wanted:
    """What is looked for, and how.

    Attributes:
        question: A question whose answer is yes or no.
        every: Seconds of the windows that films are cut into; None to look at clips as a whole.
        start: Of the range that is looked at, in seconds; None is the beginning.
        end: Its end.
        frames: That the model is shown of each clip or window.
        system: The system prompt; None for that of training.
    """

    question: str
    every: float | None = None
    start: float | None = None
    end: float | None = None
    frames: int = 8
    system: str | None = None


class Moment(NamedTuple):
    """A clip or window with its probability; without times it is the whole file."""

    path: Path
    start: float | None
    end: float | None
    probability: float


class Failure(NamedTuple):
    """A file with a clip or window that could not be scored."""

    path: Path
    error: PandaError


class Ranking:
    """The best moments, best first; of equal ones in the order in which they came."""

    def __init__(self, top: int) -> None:
        self._top = top
        self.moments: list[Moment] = []

    def add(self, moment: Moment) -> None:
        insort(self.moments, moment, key=lambda each: -each.probability)
        del self.moments[self._top :]


@dataclass
class _Film:
    """A file with windows that have no score yet."""

    path: Path
    digest: str | None  # None without a store
    state: tuple[int, ...]  # of the file when it was hashed
    weight: int  # about how much work it is
    windows: list[Span] = field(default_factory=list)  # with --every; empty: its length is unknown
    failed: bool = False


_Item = tuple[_Film, Span | None]


class Search:
    """A search through files: `look_up` what is known, then `score` what is missing.

    Attributes:
        known: How many scores were looked up.
        scored: How many were computed.
        share: How much of what is missing has been read, from 0 to 1.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        wanted: Wanted,
        plan: "Plan",
        store: ScoreStore | None = None,
        *,
        whole: bool = False,  # hash whole files, as of `clip_digest`
    ) -> None:
        check_frame_count(wanted.frames, plan.config.num_frames)
        self._paths, self._wanted, self._store, self._whole = paths, wanted, store, whole
        self._image_size = int(plan.config.image_size)
        self._facts = self._model_facts(plan) if store else {}
        self._missing: list[_Film] = []
        self._left = self._total = 0.0  # weights
        self.known = self.scored = 0

    @property
    def is_complete(self) -> bool:
        """Whether nothing that has been looked up so far has to be scored."""
        return not self._missing

    @property
    def share(self) -> float:
        return 1 - self._left / self._total if self._total else 1.0

    def look_up(self) -> Iterator[Moment | Failure | None]:
        """Yield the known scores and what is no video, and None after each file."""
        from pandacli.video.container import check_file

        for path in self._paths:
            try:
                check_file(path)
                yield from self._look_up(path)
            except PandaError as error:
                yield Failure(path, error)
            except OSError as error:
                message = f"{path} cannot be read: {error.strerror or error}"
                yield Failure(path, ClipError(message))
            yield None

    def score(self, panda: "Panda") -> Iterator[Moment | Failure]:
        """Score what is missing; each score is stored before it is yielded."""
        self._left = self._total = sum(film.weight for film in self._missing)
        wanted = self._wanted
        with closing(self._looks()) as looks:
            for (film, span), _, found in scores(
                panda,
                looks,
                wanted.question,
                (*YES, *NO),
                num_frames=wanted.frames,
                system=wanted.system,
            ):
                if not isinstance(found, PandaError):
                    self.scored += 1
                    yield self._keep(film, span, probability_of_yes(found))
                elif not film.failed:  # once, not for each window
                    film.failed = True
                    yield Failure(film.path, found)

    def _look_up(self, path: Path) -> Iterator[Moment]:
        wanted, digest = self._wanted, None
        state = file_state(path)
        if self._store:
            digest = self._store.digest(path, whole=self._whole)
        film = _Film(path, digest, state, state[0] if wanted.every else 1)
        if wanted.every is None:
            windows: list[Span | None] = [None]
        else:
            length = self._store.length(digest) if self._store and digest else None
            windows = [*self._cut(length)] if length else []
        missing = []
        for window in windows:
            key = self._key(film, window)
            probability = self._store.find(key) if self._store and key else None
            if probability is None:
                missing.append(window)
            else:
                self.known += 1
                yield self._moment(film, window, probability)
        if missing or not windows:
            film.windows = [window for window in missing if window]
            self._missing.append(film)

    def _cut(self, length: float) -> list[Span]:
        wanted = self._wanted
        clip = Clip(Path(), wanted.start, wanted.end)
        return cut_windows(span_of(clip, length), wanted.every or length)

    def _looks(self) -> "Generator[tuple[_Item, Frames | PandaError]]":
        """The frames of what is missing, read ahead."""
        wanted = self._wanted
        if wanted.every is None:
            from pandacli.video.prefetch import FramePrefetcher

            clips = (
                ((film, None), Clip(film.path, wanted.start, wanted.end)) for film in self._missing
            )
            with FramePrefetcher(wanted.frames, self._image_size) as prefetcher:
                for look in prefetcher.read(clips):
                    self._left -= 1
                    yield look
            return
        paths = [film.path for film in self._missing]
        with closing(film_readers(paths, wanted.frames, self._image_size)) as readers:
            for film, reader in zip(self._missing, readers, strict=False):
                try:
                    film.windows = film.windows or self._cut(self._length(film, reader))
                except PandaError as error:
                    self._left -= film.weight
                    yield (film, None), error
                    continue
                for span, frames in reader.read(film.windows):
                    self._left -= film.weight / len(film.windows)
                    yield (film, span), frames

    def _length(self, film: _Film, reader: FilmReader) -> float:
        seconds = reader.info().duration
        if self._store and film.digest and _is_current(film):
            self._store.keep_length(film.digest, seconds)
        return seconds

    def _keep(self, film: _Film, window: Span | None, probability: float) -> Moment:
        if self._store and (key := self._key(film, window)) and _is_current(film):
            self._store.keep(key, probability)
        return self._moment(film, window, probability)

    def _moment(self, film: _Film, window: Span | None, probability: float) -> Moment:
        start, end = window or (self._wanted.start, self._wanted.end)
        return Moment(film.path, start, end, probability)

    def _key(self, film: _Film, window: Span | None) -> bytes | None:
        if film.digest is None:
            return None
        start, end = window or (self._wanted.start, self._wanted.end)
        return score_key(**self._facts, clip=film.digest, start=start, end=end)

    def _model_facts(self, plan: "Plan") -> dict[str, Any]:
        """All that a score depends on, besides the clip."""
        from pandacli import checkpoints

        wanted = self._wanted
        return {
            "model": checkpoints.model_digest(plan.model),
            "numerics": plan.numerics,
            "maths": [COMPUTATION_VERSION, _SCORING_VERSION],
            "choices": [*YES, *NO],
            "question": wanted.question,
            "frames": wanted.frames,
            "system": wanted.system,
        }


def _is_current(film: _Film) -> bool:
    """Whether the file has not changed since it was hashed."""
    with suppress(OSError):
        return file_state(film.path) == film.state
    return False
