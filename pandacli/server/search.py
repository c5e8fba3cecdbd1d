"""Searches for the segments of a film in which the answer to a question is yes, as events.

A search has a thread of its own, which waits for the film's windows; only scoring them is work of
the engine, in turn with the answers about other clips.
"""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

from pandacli.errors import PandaError, UsageError
from pandacli.inference.panda import Panda
from pandacli.inference.spec import Scores
from pandacli.server.engine import BusyError, Engine
from pandacli.server.protocol import ClipRequest, Fields, RequestError, error_object
from pandacli.timeline.looking import as_question
from pandacli.timeline.segments import Segment, SegmentOptions, SegmentSearch, WindowScore
from pandacli.video.windows import FilmReader, Span

if TYPE_CHECKING:
    from pandacli.inference.windows import WindowBatch
    from pandacli.video import Frames

_MOST = 4  # at a time: each has a process that reads a film
_INTERVAL = 0.2  # seconds from one report of the progress to the next
_SHORTEST = 0.1  # seconds of a window, a stride and the precision
_MOST_WINDOWS = 100_000

_log = logging.getLogger(__name__)
Event = dict[str, Any]


@dataclass(frozen=True)
class SearchRequest(ClipRequest):
    """A search that is asked for, with a question that the model is asked about each window."""

    question: str
    options: SegmentOptions

    def check_windows(self, span: Span) -> None:
        """Raise a RequestError if a range has more windows than one request may ask about."""
        stride = self.options.stride or self.options.window / 2
        if (span.end - span.start) / stride > _MOST_WINDOWS:
            raise RequestError(f"a search has at most {_MOST_WINDOWS:,} windows", param="stride")


def parse_search(body: object) -> SearchRequest:
    """Parse the JSON of a search; a RequestError if anything is not understood.

    `video` is as in a part of a chat's message (`url`, `data` or `file_id`); `from`, `to`, `frames`
    and `system` are those of a chat completion; `window`, `stride`, `threshold` and `precision` are
    the options of `panda when`.
    """
    if not isinstance(body, dict):
        raise RequestError("the body must be a JSON object")
    fields = Fields(body)
    video = fields.take_video()
    times, at, num_frames = fields.take_times()
    if at:
        raise RequestError("a search is of a range", param="at")
    question = fields.take("question", str)
    if not (question or "").strip():
        raise RequestError("question is missing", param="question")
    numbers = {
        name: value
        for name in ("window", "stride", "threshold", "precision")
        if (value := fields.take(name, float)) is not None
    }
    system = fields.take("system", str)
    fields.refuse_the_rest()
    for name in numbers.keys() - {"threshold"}:
        if not _SHORTEST <= numbers[name] <= 1e9:
            raise RequestError(f"{name} is {_SHORTEST} seconds or more", param=name)
    try:
        asked, options = as_question(question), SegmentOptions(**numbers)
    except UsageError as error:
        raise RequestError(error.message) from error
    return SearchRequest(video, times, at, num_frames, system, asked, options)


class Searches:
    """The searches that run now."""

    def __init__(self, engine: Engine, image_size: int, timeout: float | None) -> None:
        self._engine, self._reading = engine, (image_size, timeout)
        self._running: set[Search] = set()

    def begin(self, path: Path, span: Span, asked: SearchRequest, shown: str) -> "Search":
        """Begin a search on the event loop; `shown` stands for the path in errors.

        Raises:
            BusyError: Too many run.
            RequestError: The range has too many windows.
        """
        asked.check_windows(span)
        if len(self._running) >= _MOST:
            raise BusyError(f"{_MOST} searches are running", "try again later")
        search = Search(self._engine, path, span, asked, self._reading, shown)
        self._running.add(search)
        search.start(lambda: self._running.discard(search))
        return search


class Search:
    """A search whose events are awaited on the event loop.

    They are objects: `panda.search`, with the question and the range; `panda.search.progress`, with
    the windows scored since the last one and the segments found so far; `panda.search.result`.
    """

    def __init__(
        self,
        engine: Engine,
        path: Path,
        span: Span,
        asked: SearchRequest,
        reading: tuple[int, float | None],  # the model's image size, and seconds for a window
        shown: str,
    ) -> None:
        self._engine, self._path, self._span, self._asked = engine, path, span, asked
        self._image_size, self._timeout = reading
        self._shown = shown
        self._events: asyncio.Queue[Event | PandaError | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._cancelled = threading.Event()
        self._sent, self._last = 0, 0.0  # windows sent, and when
        self._progress = 0, 0  # windows scored, and all that are known to be needed

    def start(self, on_end: Callable[[], None]) -> None:
        """Begin; `on_end` is called on the event loop, once the search has ended."""

        def run() -> None:
            try:
                self._search()
            except _CancelledError:
                pass
            except PandaError as error:
                self._put(error)
            except Exception:
                _log.exception("a search failed")
                self._put(PandaError("the server failed to search; its log says why"))
            finally:
                self._put(None)
                self._call(on_end)

        threading.Thread(target=run, name="panda search", daemon=True).start()

    def cancel(self) -> None:
        """End the search before its next window."""
        self._cancelled.set()

    async def first(self) -> Event:
        """The first event; an error is raised, as nothing has been sent yet."""
        event = await self._events.get()
        if isinstance(event, PandaError):
            raise event
        assert event is not None
        return event

    async def events(self, first: Event) -> AsyncIterator[Event]:
        """All events; an error is the last one."""
        event: Event | PandaError | None = first
        while event is not None:
            yield error_object(event)[1] if isinstance(event, PandaError) else event
            event = await self._events.get()

    def _search(self) -> None:
        asked, span = self._asked, self._span
        reader = FilmReader(self._path, asked.num_frames, self._image_size, timeout=self._timeout)
        with reader, self._engine.hold() as panda:
            search = SegmentSearch(
                _SharedPanda(self._engine, panda, self._check),
                reader,
                span,
                asked.question,
                asked.options,
                num_frames=asked.num_frames,
                system=asked.system,
            )
            about = {"question": asked.question, "threshold": asked.options.threshold}
            self._put({"object": "panda.search", **about, "start": span.start, "end": span.end})
            search.run(lambda done, total: self._report(search, done, total))
            found = search.result()
            self._put_progress(search)
            notices = [self._hide(notice) for notice in found.notices]
            result = {"object": "panda.search.result", "notices": notices}
            self._put(result | {"segments": [_record(each) for each in found.segments]})

    def _report(self, search: SegmentSearch, done: int, total: int) -> None:
        self._check()
        self._progress = done, total
        if monotonic() - self._last >= _INTERVAL:
            self._put_progress(search)

    def _put_progress(self, search: SegmentSearch) -> None:
        (done, total), windows = self._progress, search.windows(self._sent)
        self._sent, self._last = self._sent + len(windows), monotonic()
        found = {"segments": [_record(segment) for segment in search.result().segments]}
        found["windows"] = [_record(each) | self._error(each) for each in windows]
        self._put({"object": "panda.search.progress", "done": done, "total": total, **found})

    def _check(self) -> None:
        if self._cancelled.is_set():
            raise _CancelledError

    def _error(self, window: WindowScore) -> Event:
        return {"error": self._hide(window.error.message)} if window.error else {}

    def _hide(self, text: str) -> str:
        return text.replace(str(self._path), self._shown)

    def _put(self, event: Event | PandaError | None) -> None:
        if isinstance(event, PandaError):
            event.message = self._hide(event.message)
        self._call(self._events.put_nowait, event)

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        with suppress(RuntimeError):  # the loop is closed: the server has stopped
            self._loop.call_soon_threadsafe(function, *arguments)


class _CancelledError(Exception):
    """The client of a search has gone."""


class _SharedPanda(Panda):
    """The engine's model as a search uses it, on a thread of its own."""

    def __init__(self, engine: Engine, panda: Panda, check: Callable[[], None]) -> None:
        self._engine, self._panda, self._check = engine, panda, check
        self.name = panda.name

    @property
    def windows_at_once(self) -> int:
        """One while there are other requests, as these wait for all windows that are scored."""
        return 1 if self._engine.requests > 1 else self._panda.windows_at_once

    def look_together(
        self, clips: "Sequence[Frames]", num_frames: int = 8, system: str | None = None
    ) -> "WindowBatch":
        batch = self._panda.look_together(clips, num_frames, system)
        return cast("WindowBatch", _SharedWindows(self._engine, batch, self._check))


class _SharedWindows:
    """Windows that are scored on the engine's thread, unless the search is cancelled before."""

    def __init__(self, engine: Engine, batch: "WindowBatch", check: Callable[[], None]) -> None:
        self._engine, self._batch, self._check = engine, batch, check

    def score_all(
        self, questions: Sequence[str], choices: Sequence[str]
    ) -> list[list[Scores | PandaError]]:
        self._check()
        return self._engine.run(lambda _: self._batch.score_all(questions, choices))


def _record(part: Segment | WindowScore) -> Event:
    share = part.probability
    probability = None if share is None else round(share, 6)
    return {"start": round(part.start, 6), "end": round(part.end, 6), "probability": probability}
