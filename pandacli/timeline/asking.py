"""Questions about many clips, or about the windows of films: frames ahead, answers in order."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pandacli.errors import PandaError
from pandacli.video.prefetch import FramePrefetcher
from pandacli.video.windows import Span, cut_windows, film_readers, span_of

if TYPE_CHECKING:
    from pandacli.inference import Answer, GenerationOptions, Panda
    from pandacli.inference.spec import Scores
    from pandacli.video import Clip, Frames


class Look(NamedTuple):
    """What the questions are about: a clip, or a window of it."""

    video: Path
    span: Span | None  # of a window; None for the whole clip
    windows: int  # how many the clip is cut into
    share: float  # of the run, that is done with it: 1.0 for the last one


Looks = Generator[tuple[Look, "Frames | PandaError"], None, None]


@dataclass(frozen=True)
class Asked:
    """Questions, and how they are answered: with choices they are scored."""

    questions: Sequence[str]
    options: "GenerationOptions"
    choices: Sequence[str] = ()
    num_frames: int = 8
    system: str | None = None


@dataclass(frozen=True)
class Outcome:
    look: Look
    frames: "Frames | None"  # None where they could not be read
    results: "Sequence[Answer | Scores | PandaError]"  # of each question


def look_at_clips(clips: "Sequence[Clip]", num_frames: int, image_size: int) -> Looks:
    """The frames of each clip, in order, read ahead in processes; to be closed."""
    with FramePrefetcher(num_frames, image_size) as prefetcher:
        yield from prefetcher.read(
            (Look(clip.path, None, 1, number / len(clips)), clip)
            for number, clip in enumerate(clips, 1)
        )


def look_at_windows(
    clips: "Sequence[Clip]", length: float, num_frames: int, image_size: int
) -> Looks:
    """The frames of the windows of each clip, in order, read ahead in a process; to be closed.

    A film that cannot be read, or does not reach to the range of its clip, is one look without a
    span.
    """
    paths = [clip.path for clip in clips]
    with closing(film_readers(paths, num_frames, image_size)) as readers:
        for number, (clip, reader) in enumerate(zip(clips, readers, strict=False)):
            try:
                windows = cut_windows(span_of(clip, reader.info().duration), length)
            except PandaError as error:
                yield Look(clip.path, None, 0, (number + 1) / len(clips)), error
                continue
            for done, (span, frames) in enumerate(reader.read(windows), 1):
                share = (number + done / len(windows)) / len(clips)
                yield Look(clip.path, span, len(windows), share), frames


def outcomes(looks: Looks, asked: Asked, load: "Callable[[], Panda]") -> Iterator[Outcome]:
    """Answer all questions about each look, in order.

    The model is loaded when the first frames are there; never, if there are none.
    """
    for look, frames in looks:
        if not isinstance(frames, PandaError):
            break
        yield Outcome(look, None, [frames])
    else:
        return
    panda = load()
    from pandacli.timeline.looking import answers, scores_of_all

    remaining = chain([(look, frames)], looks)
    found: Iterator[tuple[Look, Frames | None, Sequence[Answer | Scores | PandaError]]]
    if asked.choices:
        found = scores_of_all(
            panda,
            remaining,
            asked.questions,
            asked.choices,
            num_frames=asked.num_frames,
            system=asked.system,
        )
    else:
        found = answers(
            panda,
            remaining,
            asked.questions,
            asked.options,
            num_frames=asked.num_frames,
            system=asked.system,
        )
    for look, sampled, results in found:
        yield Outcome(look, sampled, results if sampled else results[:1])
