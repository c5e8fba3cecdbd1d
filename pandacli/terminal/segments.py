"""Segments of a film: a line each, JSON or a cut list; below them a curve and pictures."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from pandacli.errors import PandaError
from pandacli.terminal.console import Screen
from pandacli.terminal.curve import probability_curve
from pandacli.terminal.report import Record
from pandacli.timeline.formats import CUT_FORMATS, Caption, Source, write_captions, write_cuts
from pandacli.units import size
from pandacli.video.clip import format_time, format_times

if TYPE_CHECKING:
    from pandacli.inference.panda import Panda
    from pandacli.timeline.segments import Segment, Segments, SegmentSearch, WindowScore
    from pandacli.video import Frames, VideoInfo
    from pandacli.video.windows import FilmReader

_PAUSE = 0.05  # seconds between results that are not of one batch
_LONG = 10.0  # seconds of a search from which it is announced
_MAX_RANGES = 3  # named in a notice
_MAX_PICTURES = 12


class SegmentDisplay:
    """Shows the progress of a search and what it finds; `clock` is monotonic."""

    def __init__(
        self,
        screen: Screen,
        search: "SegmentSearch",
        *,
        json: bool = False,
        file_format: str | None = None,
        numbered: bool = False,  # whether lines begin with their numbers, such as #1
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._screen, self._search, self._clock = screen, search, clock
        self._json, self._format, self._numbered = json, file_format, numbered
        self._done, self._seconds = 0, 0.0

    @contextmanager
    def progress(self) -> Iterator[Callable[[int, int], None]]:
        """Show how far the search is; yields what it calls with the windows done and in all."""
        began = last = self._clock()
        announced, rate = False, 0.0
        with self._screen.status("looking at the first windows") as say:

            def report(done: int, total: int) -> None:
                nonlocal announced, last, rate
                now = self._clock()
                if last > began and now - last > _PAUSE:  # those before came in whole batches
                    rate = (done - 1) / (last - began)
                self._done, self._seconds, last = done, now - began, now
                left = round((total - done) / rate) if rate else 0
                if rate:
                    say(f"window {done} of {total}, about {format_time(left)} left")
                if not announced and left >= _LONG and not self._screen.animates:
                    about = f"about {format_time(left)} left"
                    self._screen.notice(f"looking at {total} windows, {about}")
                announced = announced or rate > 0

            yield report

    def show(self, video: str, path: Path, info: "VideoInfo") -> "Segments":
        """Print what has been found so far, and what should be known about it."""
        found, search = self._search.result(), self._search
        if self._json:
            self._screen.json(segments_record(video, search, found))
        elif self._format:
            for piece in self._file(found, path, info):
                self._screen.write(piece)
        else:
            lines = segment_lines(found.segments, search.options.precision)
            for number, line in enumerate(lines, 1):
                self._screen.line(f"#{number}  {line}" if self._numbered else line)
        for sentence in _notices(search, found):
            self._screen.notice(sentence)
        return found

    def _file(self, found: "Segments", path: Path, info: "VideoInfo") -> Iterator[str]:
        question = self._search.question
        captions = (Caption(s.start, s.end, question, s.probability) for s in found.segments)
        if self._format not in CUT_FORMATS:
            return write_captions(captions, str(self._format))
        from pandacli.video.container import clock_start

        return write_cuts(captions, self._format, Source(path, info.fps, clock_start(path)))

    def draw(self, found: "Segments", reader: "FilmReader", *, pictures: bool = True) -> None:
        """Draw the curve on stderr and a picture of each segment, where there are terminals."""
        if self._screen.quiet or self._json or self._format:
            return
        search = self._search
        self._screen.chart(
            lambda columns, blocks: probability_curve(
                found.windows, search.span, search.options.threshold, columns, blocks=blocks
            )
        )
        if pictures and found.segments and self._screen.shows_pictures:
            firsts = self._first_frames(found.segments[:_MAX_PICTURES], reader)
            if firsts is not None:
                self._screen.frames(firsts)

    def _first_frames(self, segments: "Sequence[Segment]", reader: "FilmReader") -> "Frames | None":
        """A frame from the beginning of each segment."""
        from pandacli.video.windows import Span

        # a boundary is known to half the precision: after that the thing is there
        later = self._search.options.precision / 2
        starts = [min(s.start + later, (s.start + s.end) / 2) for s in segments]
        spans = [Span(start, s.end) for start, s in zip(starts, segments, strict=True)]
        looks = [frames for _, frames in reader.read(spans)]
        firsts = [frames for frames in looks if not isinstance(frames, PandaError)]
        if not firsts:
            return None
        import numpy as np

        return replace(
            firsts[0],
            pixels=np.stack([frames.pixels[0] for frames in firsts]),
            indices=tuple(frames.indices[0] for frames in firsts),
            times=tuple(frames.times[0] for frames in firsts),
        )

    def summary(self, panda: "Panda") -> None:
        """Print what the search took."""
        windows = len(self._search.result().windows)
        rate = self._done / self._seconds if self._seconds else 0.0
        rows = [
            ("windows", f"{windows}, and {self._done - windows} at boundaries"),
            ("time", f"{self._seconds:.2f} s after loading, {rate:.1f} windows/s"),
            ("memory", size(panda.peak_memory)),
        ]
        self._screen.table(rows)


def segment_lines(segments: "Sequence[Segment]", precision: float) -> list[str]:
    """Return each segment as `0:21.5 - 0:35.0  0.97`."""
    decimals = 1 if precision >= 0.5 else 2
    times = format_times([round(t, decimals) for s in segments for t in (s.start, s.end)])
    rows = zip(times[::2], times[1::2], segments, strict=True)
    return [f"{start} - {end}  {segment.probability:.2f}" for start, end, segment in rows]


def segments_record(video: str, search: "SegmentSearch", found: "Segments") -> Record:
    """Return the segments and all windows, for JSON; a window that failed has an error."""
    windows: list[Record] = []
    for window in found.windows:
        error = {} if window.error is None else {"error": window.error.message}
        windows.append(_range_record(window) | error)
    return {
        "video": video,
        "model": search.panda.name,
        "question": search.question,
        "segments": [_range_record(segment) for segment in found.segments],
        "windows": windows,
    }


def _range_record(part: "Segment | WindowScore") -> Record:
    share = part.probability
    return {
        "start": round(part.start, 6),
        "end": round(part.end, 6),
        "probability": None if share is None else round(share, 6),
    }


def _notices(search: "SegmentSearch", found: "Segments") -> Iterator[str]:
    yield from found.notices
    if found.failures:
        yield _gaps(found.failures)
    if not found.complete:
        end = format_time(round(search.span.end, 1))
        reached = format_time(round(found.searched_to, 1))
        yield f"stopped at {reached} of {end}; the boundaries are not refined"
    if not found.segments:
        highest = max((window.probability or 0 for window in found.windows), default=0)
        yield f"nothing found: the highest probability of yes is {highest:.2f}"


def _gaps(failures: "Sequence[WindowScore]") -> str:
    """The ranges of windows that could not be looked at."""
    ranges: list[tuple[float, float]] = []
    for window in failures:
        if ranges and window.start <= ranges[-1][1]:
            ranges[-1] = ranges[-1][0], window.end
        else:
            ranges.append((window.start, window.end))
    shown = [f"{format_time(start)} to {format_time(end)}" for start, end in ranges[:_MAX_RANGES]]
    more = f" and {len(ranges) - _MAX_RANGES} more" if len(ranges) > _MAX_RANGES else ""
    count = "1 window" if len(failures) == 1 else f"{len(failures)} windows"
    reason = failures[0].error.message if failures[0].error else "no frames"
    return f"{count} could not be looked at ({', '.join(shown)}{more}): {reason}"
