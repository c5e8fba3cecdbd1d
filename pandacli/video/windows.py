"""Windows: short clips cut from a longer film, whose frames come from one walk through the file."""

import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent import futures
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from pandacli.errors import PandaError, UsageError
from pandacli.video.clip import Clip, format_time
from pandacli.video.prefetch import Reader, Request, end_readers

if TYPE_CHECKING:
    from pandacli.video import Frames, VideoInfo

_PLANNED = 64  # following windows sent with each request, to decode shared frames once
_GRACE = 1.0  # seconds for a window that is no longer wanted
_MAX_DEATHS = 6  # of processes without a window in between; all windows fail then


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
    # half a window stays one; `round` would take halves to even numbers
    count = max(1, math.floor((span.end - span.start - length) / stride + 0.5) + 1)
    starts = [span.start + number * stride for number in range(count)]
    return [
        *(Span(start, start + length) for start in starts[:-1]),
        Span(starts[-1], span.end),
    ]


class FilmReader:
    """Reads the windows of a film in a process of its own, ahead of need; a context manager.

    The frames are those of `sample_frames` for a clip of the same range, fitted to the model's
    square image. A window in which the decoder crashes or hangs is a ClipError.
    """

    def __init__(
        self,
        path: Path,
        num_frames: int,
        image_size: int,
        ahead: int = 8,
        timeout: float | None = None,  # seconds for a window; None for one by the file's size
    ) -> None:
        self._film = path, num_frames, image_size
        self._timeout = timeout
        self._ahead = ahead  # windows held in memory; as many as are looked at together
        self._queue: SimpleQueue[Request | None] = SimpleQueue()
        self._reader = Reader(self._queue)
        self._opening: Request | None = None
        self._pending: deque[Request] = deque()  # of the iteration that began last
        self._notices: set[str] = set()  # given already

    def __enter__(self) -> Self:
        from pandacli.video.film import read_info

        self._reader.start()
        self._opening = self._submit(read_info)
        return self

    def __exit__(self, *_: object) -> None:
        end_readers([self._reader], self._queue)

    def info(self) -> "VideoInfo":
        """Describe the film, once its index is read and its end checked; may raise a PandaError."""
        info = self._opened()
        if isinstance(info, PandaError):
            raise info
        return info

    def read(self, spans: Iterable[Span]) -> "Iterator[tuple[Span, Frames | PandaError]]":
        """The frames of each window, in order, or why there are none.

        Where spans start in ascending order, no frame is decoded twice. A new iteration ends the
        one before. Notices come once, with the first window that they are about. DeviceError if no
        process can be started.
        """
        from pandacli.video import Frames
        from pandacli.video.film import Window, read_window

        info = self._opened()
        failure = info if isinstance(info, PandaError) else None
        remaining, pending = list(spans), self._begin()
        submitted = 0
        try:
            for number, span in enumerate(remaining):
                while not failure and submitted < min(number + self._ahead, len(remaining)):
                    ahead = remaining[submitted : submitted + 1 + _PLANNED]
                    pending.append(self._submit(read_window, [tuple(other) for other in ahead]))
                    submitted += 1
                window = failure or self._next(pending)
                if isinstance(window, Window) and not isinstance(info, PandaError):
                    pixels, indices, times, notices = window
                    new = tuple(notice for notice in notices if notice not in self._notices)
                    self._notices.update(new)
                    yield span, Frames(pixels, indices, times, info, new)
                else:
                    yield span, window
                    if self._reader.deaths >= _MAX_DEATHS:
                        failure = window
        finally:
            for request in pending:
                request.unwanted = True

    def _opened(self) -> "VideoInfo | PandaError":
        if self._opening is None:
            raise RuntimeError("a FilmReader is used in a with statement")
        info: VideoInfo | PandaError = self._opening.wait(self._timeout)
        return info

    def _submit(self, function: Callable[..., Any], *arguments: object) -> Request:
        request = Request(self._film[0], function, (*self._film, *arguments))
        self._queue.put(request)
        return request

    def _begin(self) -> deque[Request]:
        """End the iteration before; a process that is still busy with it is killed."""
        for request in self._pending:
            request.unwanted = True
        running = [request.result for request in self._pending if request.reader]
        if futures.wait(running, _GRACE).not_done:
            self._reader.kill()
        self._pending = deque()
        return self._pending

    def _next(self, pending: deque[Request]) -> Any:
        if pending is not self._pending:
            raise RuntimeError("another iteration over windows of this film has begun")
        window = pending[0].wait(self._timeout)
        pending.popleft()
        return window


def film_readers(
    paths: Iterable[Path], num_frames: int, image_size: int
) -> Generator[FilmReader, None, None]:
    """A reader for each film, which is open until the next; to be closed.

    The process of the next one starts, and reads the index, while this one is read.
    """
    opened: deque[tuple[FilmReader, ExitStack]] = deque()
    try:
        for path in paths:
            stack = ExitStack()
            opened.append((stack.enter_context(FilmReader(path, num_frames, image_size)), stack))
            if len(opened) > 1:
                yield opened[0][0]
                opened.popleft()[1].close()
        if opened:
            yield opened[0][0]
    finally:
        for _, stack in opened:
            stack.close()
