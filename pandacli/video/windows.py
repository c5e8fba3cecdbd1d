"""Windows: short clips cut from a longer film, whose frames come from one walk through the file."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

from pandacli.errors import ClipError, PandaError, UsageError
from pandacli.video.clip import Clip, format_time

if TYPE_CHECKING:
    from pandacli.video import Frames, VideoInfo


class Span(NamedTuple):
    """A time range of a film, in seconds."""

    start: float
    end: float


def span_of(clip: Clip, duration: float) -> Span:
    """The range of a clip in a film of this duration; UsageError if it starts past the end."""
    start = clip.start or 0.0
    if start >= duration:
        length = f"the clip is {format_time(duration)} long"
        raise UsageError(f"the range starts at {format_time(start)}, past the end ({length})")
    return Span(start, duration if clip.end is None else min(clip.end, duration))


def cut_windows(span: Span, length: float, stride: float | None = None) -> list[Span]:
    """Cut a range into windows of a length, one every `stride` seconds (as long as they are).

    The last one ends with the range. If it is shorter than half a window, it is joined to the one
    before it.
    """
    stride = stride or length
    if not (length > 0 and stride > 0):
        raise UsageError("windows are longer than 0 seconds, and so is the stride")
    count = max(1, round((span.end - span.start - length) / stride) + 1)
    starts = [span.start + number * stride for number in range(count)]
    return [
        *(Span(start, start + length) for start in starts[:-1]),
        Span(starts[-1], span.end),
    ]


class FilmReader:
    """Reads the windows of a film in a process of its own, ahead of need; a context manager.

    The frames are those of `sample_frames` for a clip of the same range, fitted to the model's
    square image.
    """

    def __init__(self, path: Path, num_frames: int, image_size: int) -> None:
        self._path, self._num_frames, self._image_size = path, num_frames, image_size

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass

    def info(self) -> "VideoInfo":
        """Describe the film, once it is known; may raise a ClipError."""
        from pandacli.video import probe

        return probe(self._path)

    def read(self, spans: Iterable[Span]) -> "Iterator[tuple[Span, Frames | PandaError]]":
        """The frames of each window, in order, or why there are none."""
        from pandacli.video.prefetch import read_fitted

        for span in spans:
            try:
                clip = Clip(self._path, span.start, span.end)
                yield span, read_fitted(clip, self._num_frames, self._image_size)
            except (ClipError, UsageError) as error:
                yield span, error
