"""The ranking of `panda find`: a line for each clip or moment, JSON or CSV; progress; pictures."""

import csv
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from io import StringIO
from typing import TYPE_CHECKING, Any

from pandacli.errors import PandaError
from pandacli.terminal.console import Screen
from pandacli.terminal.text import cells, fit, sanitize_line
from pandacli.timeline.find import Failure, Moment, Ranking
from pandacli.video.clip import Clip, format_time, format_times

if TYPE_CHECKING:
    from pandacli.timeline.find import Search
    from pandacli.video import Frames

_LONG = 3.0  # seconds from which the time that is left is announced
_MARGIN = 6  # columns around the words of a spinner
_PICTURE = 336  # pixels across, at most; a multiple of the cells of a canvas


class RankingDisplay:
    """Shows the progress of a search, and its ranking at the end; `clock` is monotonic."""

    def __init__(
        self,
        screen: Screen,
        search: "Search",
        top: int,
        *,
        clips: int,
        unit: str = "clips",  # what is scored: clips or windows
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._screen, self._search, self._clips, self._unit = screen, search, clips, unit
        self._clock = clock
        self._ranking = Ranking(top)
        self._say: Callable[[str], None] = lambda _: None
        self._began: float | None = None  # scoring, with the model loaded
        self._announced = False
        self._files = 0  # that were looked up
        self.failed = 0  # files with an error

    @contextmanager
    def progress(self, words: str) -> Iterator[None]:
        """Show a spinner for the block."""
        with self._screen.status(words) as self._say:
            yield

    def begin(self) -> None:
        """Note that the model is loaded and scoring begins."""
        self._began = self._clock()

    def update(self, found: Moment | Failure | None) -> None:
        """Take what a search yields."""
        if isinstance(found, Moment):
            self._ranking.add(found)
        elif isinstance(found, Failure):
            self.failed += 1
            self._print_failure(found)
        else:
            self._files += 1
        self._say(fit(self._words(), self._width).rstrip())
        if isinstance(found, Moment) and self._began is not None and not self._announced:
            self._announced = True
            if (left := self._seconds_left()) and left >= _LONG and not self._screen.animates:
                self._screen.notice(f"about {format_time(round(left))} left")

    @property
    def _width(self) -> int:
        return max(1, self._screen.err.width - _MARGIN)

    def _words(self) -> str:
        """The progress, and the best so far."""
        search = self._search
        if self._began is None:
            words = f"looking up {self._files} of {self._clips} clips"
        else:
            words = f"{search.scored} {self._unit} scored, {100 * search.share:.0f} %"
            if left := self._seconds_left():
                words += f", {format_time(round(left))} left"
        if not self._ranking.moments:
            return words
        ((share, *where),) = _rows(self._ranking.moments[:1])
        return f"{words}; best {share} {sanitize_line(' '.join(filter(None, where)))}"

    def _seconds_left(self) -> float | None:
        share = self._search.share
        if self._began is None or not share:
            return None
        return (self._clock() - self._began) / share * (1 - share)

    def _print_failure(self, failure: Failure) -> None:
        path, error = str(failure.path), failure.error
        message = error.message if path in error.message else f"{path}: {error.message}"
        self._screen.error(message)

    def show(self, question: str, model: str, *, json: bool, as_csv: bool) -> None:
        """Print the ranking."""
        moments, screen = self._ranking.moments, self._screen
        if json:
            for moment in moments:
                record = moment_record(moment) | {"question": question, "model": model}
                screen.json(record, one_line=True)
        elif as_csv:
            for line in csv_lines(moments):
                screen.write(line)
        else:
            for line in ranking_lines(moments, aligned=screen.stdout_is_terminal):
                screen.line(line)

    def summary(self) -> None:
        """Say how much was computed, and how much was known."""
        search = self._search
        known = f", {search.known} known from before" if search.known else ""
        unit = self._unit.removesuffix("s") if search.scored == 1 else self._unit
        self._screen.notice(f"{search.scored} {unit} scored{known}")

    def draw(self) -> None:
        """Draw a frame of each of the best, where stdout shows pictures."""
        if not self._screen.shows_pictures:
            return
        pictures, captions = [], []
        for rank, moment in enumerate(self._ranking.moments, 1):
            if frames := _middle_frame(moment):
                pictures.append(frames)
                captions.append(f"{rank}: {moment.probability:.2f}")
        if pictures:
            self._screen.frames(_of_one_size(pictures), captions)


def ranking_lines(moments: Sequence[Moment], *, aligned: bool) -> list[str]:
    """Return a line for each: probability, path, times; in columns, or with tabs between them."""
    rows = [[sanitize_line(cell) for cell in row] for row in _rows(moments)]
    if not aligned:
        return ["\t".join(row) for row in rows]
    width = max((cells(path) for _, path, *times in rows if times), default=0)
    return [
        "  ".join((share, fit(path, width) if times else path, *times))
        for share, path, *times in rows
    ]


def _rows(moments: Sequence[Moment]) -> list[list[str]]:
    """The cells of each line; a clip that is whole has no times."""
    shown = format_times([time or 0.0 for each in moments for time in (each.start, each.end)])
    rows = []
    for each, start, end in zip(moments, shown[::2], shown[1::2], strict=True):
        whole = each.start is None and each.end is None
        times = [] if whole else [f"{start} - {'end' if each.end is None else end}"]
        rows.append([f"{each.probability:.3f}", str(each.path), *times])
    return rows


def moment_record(moment: Moment) -> dict[str, Any]:
    """Return a clip or moment for JSON; its times are in seconds, and null for the whole file."""
    times = {"start": moment.start, "end": moment.end}
    return {
        "video": str(moment.path),
        **{name: None if t is None else round(t, 6) for name, t in times.items()},
        "probability": round(moment.probability, 6),
    }


def csv_lines(moments: Sequence[Moment]) -> Iterator[str]:
    """Yield a table with a line of headings."""
    rows: list[dict[str, Any]] = [moment_record(moment) for moment in moments]
    columns = ("probability", "video", "start", "end")
    for row in (columns, *([record[name] for name in columns] for record in rows)):
        line = StringIO()
        csv.writer(line, lineterminator="\n").writerow(row)
        yield line.getvalue()


def _middle_frame(moment: Moment) -> "Frames | None":
    """The frame in the middle of a clip or moment; None if the file cannot be read any more."""
    from pandacli.video import fit_to_box, sample_frames

    try:
        frames = sample_frames(Clip(moment.path, moment.start, moment.end), 3)
    except PandaError:
        return None
    middle = slice(len(frames.times) // 2, len(frames.times) // 2 + 1)
    pixels = fit_to_box(frames.pixels[middle], image_size=_PICTURE)
    return replace(
        frames, pixels=pixels, indices=frames.indices[middle], times=frames.times[middle]
    )


def _of_one_size(pictures: "Sequence[Frames]") -> "Frames":
    """Frames of several videos as those of one: padded to the shape of the first."""
    import numpy as np
    from PIL import Image, ImageOps

    height, width = pictures[0].pixels.shape[1:3]
    padded = [ImageOps.pad(Image.fromarray(each.pixels[0]), (width, height)) for each in pictures]
    return replace(
        pictures[0],
        pixels=np.stack([np.asarray(picture) for picture in padded]),
        indices=tuple(each.indices[0] for each in pictures),
        times=tuple(each.times[0] for each in pictures),
    )
