"""A film that is read window by window, in a worker process.

Its index is read and its end checked once. The pictures of a window come from the first of these
that can decode them; each keeps its state from window to window:

* keyframe seeking, where the index is right; after an error, once more for the window alone;
* in a long film, single-threaded decoding from a margin before each frame, compared with the index;
* single-threaded decoding from the first frame on, after a pass that counts the frames.

So a damaged film is decoded a few times, however many windows it has. The frames are those of
`sample_frames` for a clip of the same range.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pandacli.errors import PandaError, UsageError
from pandacli.video.clip import Clip
from pandacli.video.container import Stream, read_stream
from pandacli.video.decoder import (
    Decoded,
    Source,
    decode,
    is_long,
    sources_for,
    walk_by_seeking,
    walk_sequentially,
)
from pandacli.video.images import Picture
from pandacli.video.prefetch import as_clip_errors, read_fitted
from pandacli.video.preprocessing import fit_to_box
from pandacli.video.sampling import VideoInfo, choose_indices, notices, range_error, video_info
from pandacli.video.seeking import KeyframeSeeker

_MAX_HELD = 256  # pictures that later windows need, too; 150 MB where the model's side is 448

Range = tuple[float, float]  # start and end, in seconds


class Window(NamedTuple):
    """`Frames` without the description of the film."""

    pixels: Picture  # (T, h, w, 3), fitted to the model's square image
    indices: tuple[int, ...]
    times: tuple[float, ...]
    notices: tuple[str, ...]


def read_info(path: Path, num_frames: int, image_size: int) -> VideoInfo:
    """Describe the film that this process has open, opening it first; may raise a PandaError."""
    with as_clip_errors(path):
        return _film(path, num_frames, image_size).info


def read_window(path: Path, num_frames: int, image_size: int, ranges: Sequence[Range]) -> Window:
    """Read the first of these windows; the others come next. May raise a PandaError."""
    with as_clip_errors(path):
        return _film(path, num_frames, image_size).window(ranges)


def _film(path: Path, num_frames: int, image_size: int) -> "Film":
    film = _open(path, num_frames, image_size)
    if isinstance(film, PandaError):
        raise film
    return film


@lru_cache(maxsize=1)
def _open(path: Path, num_frames: int, image_size: int) -> "Film | PandaError":
    try:
        return Film(path, num_frames, image_size)
    except PandaError as error:
        return error


class _Fitted(NamedTuple):
    pixels: Picture
    shape: tuple[int, ...]  # before fitting


class _Walk:
    """One way to decode pictures; it starts again only for those behind the last one decoded.

    `decode` gives pictures in ascending order, and ends early where it fails. If it is sequential,
    numbers may be added to its argument while it runs.
    """

    def __init__(
        self,
        stream: Stream,
        decoded: Decoded,
        info: VideoInfo,
        decode: Callable[[set[int]], Iterator[tuple[int, Picture]]],
        fit: Callable[[Picture], Picture],
        *,
        source: Source | None = None,
        sequential: bool = False,
    ) -> None:
        self.info, self._stream, self._decoded, self._source = info, stream, decoded, source
        self._decode, self._fit, self._sequential = decode, fit, sequential
        self._planned: set[int] = set()
        self._frames: Iterator[tuple[int, Picture]] | None = None
        self._position = -1  # number of the last frame decoded
        self._held: dict[int, _Fitted] = {}
        self._notices: dict[bool, tuple[str, ...]] = {}

    @property
    def is_damaged(self) -> bool:
        return self._decoded.damaged or (self._source is not None and self._source.damaged)

    def notices(self) -> tuple[str, ...]:
        damaged = self.is_damaged
        if damaged not in self._notices:
            found = notices(self._stream, replace(self._decoded, damaged=damaged))
            self._notices[damaged] = tuple(found)
        return self._notices[damaged]

    def read(self, numbers: list[int], later: Iterable[list[int]]) -> "list[_Fitted] | None":
        """The pictures with these ascending numbers; None if decoding fails.

        `later`: the numbers of the next windows, whose pictures are kept where they come earlier.
        """
        self._held = {n: held for n, held in self._held.items() if n >= numbers[0]}
        missing = [n for n in numbers if n not in self._held]
        if missing:
            is_ahead = self._frames is not None and self._position < missing[0]
            if is_ahead and self._sequential:
                self._planned |= self._plan(numbers, later)
            elif not (is_ahead and self._planned.issuperset(missing)):
                self._planned = self._plan(numbers, later)
                self._frames = self._decode(self._planned)
            if not self._decode_to(missing[-1], numbers):
                self._frames = None
                return None
        return [self._held[n] for n in numbers]

    def _plan(self, numbers: list[int], later: Iterable[list[int]]) -> set[int]:
        """The numbers to decode in one walk: of the windows that start in ascending order."""
        planned, start = set(numbers), numbers[0]
        for others in later:
            if others[0] < start:
                break
            planned.update(others)
            start = others[0]
        self._held = {n: held for n, held in self._held.items() if n in planned}
        return planned - self._held.keys()

    def _decode_to(self, last: int, numbers: list[int]) -> bool:
        for number, picture in self._frames or ():
            self._position = number
            if number in numbers or len(self._held) < _MAX_HELD:
                self._held[number] = _Fitted(self._fit(picture), picture.shape)
            if number == last:
                return True
        return False


class Film:
    """A film, opened to read windows of it; see the module."""

    def __init__(self, path: Path, num_frames: int, image_size: int) -> None:
        self._path, self._fitting = path, (num_frames, image_size)
        self._stream = read_stream(path)
        self._decoded = decode(self._stream, {0}, to_end=True)
        self.info = video_info(self._stream, self._decoded)
        trusted = self._decoded.matches_index and bool(self._stream.ticks)
        self._seeks = self._decoded.seekable
        self._seeks_by_margin = trusted and is_long(self._stream, len(self._stream.ticks))

    def window(self, ranges: Sequence[Range]) -> Window:
        """Read the first of these windows; the others are those that come next."""
        clip = Clip(self._path, *ranges[0])
        for walk, later in self._attempts(ranges[1:]):
            numbers = self._numbers(clip, walk.info)
            if not numbers:
                raise range_error(clip, walk.info)
            pictures = walk.read(numbers, self._all_numbers(later, walk.info))
            if pictures is None:
                continue
            if self._seeks and walk is not self._by_key and not walk.is_damaged:
                self._seeks = False  # the stream is whole, but seeking fails
            if len({picture.shape for picture in pictures}) > 1:
                break
            pixels = np.stack([picture.pixels for picture in pictures])
            times = tuple(walk.info.timestamps[number] for number in numbers)
            return Window(pixels, tuple(numbers), times, walk.notices())
        # the size of the frames changes in the window, or one cannot be converted
        frames = read_fitted(clip, *self._fitting)
        return Window(frames.pixels, frames.indices, frames.times, frames.notices)

    def _attempts(self, later: Sequence[Range]) -> Iterator[tuple[_Walk, Sequence[Range]]]:
        if self._seeks:
            yield self._by_key, later
            yield self._by_key, ()  # the error may be in frames for a later window
        if self._seeks_by_margin:
            yield self._by_margin, later
        yield self._from_start, later

    def _numbers(self, clip: Clip, info: VideoInfo) -> list[int]:
        num_frames = self._fitting[0]
        return choose_indices(clip, info.timestamps, info.fps, num_frames, info.duration)

    def _all_numbers(self, ranges: Iterable[Range], info: VideoInfo) -> Iterator[list[int]]:
        for start, end in ranges:
            with suppress(UsageError):  # it is raised when that window is read
                if numbers := self._numbers(Clip(self._path, start, end), info):
                    yield numbers

    @cached_property
    def _by_key(self) -> _Walk:
        seeker = KeyframeSeeker(self._stream)
        return _Walk(self._stream, self._decoded, self.info, seeker.walk, self._fit)

    @cached_property
    def _by_margin(self) -> _Walk:
        _, source = sources_for(self._stream)
        walk = partial(walk_by_seeking, self._stream, source)
        return _Walk(self._stream, self._decoded, self.info, walk, self._fit, source=source)

    @cached_property
    def _from_start(self) -> _Walk:
        decoded, info = self._decoded, self.info
        if self._decoded.seekable or self._seeks_by_margin:  # not yet decoded from start to end
            decoded = decode(self._stream, {0}, to_end=True, trust_index=False)
            info = video_info(self._stream, decoded)
        _, source = sources_for(self._stream)
        walk = partial(walk_sequentially, source)
        return _Walk(self._stream, decoded, info, walk, self._fit, source=source, sequential=True)

    def _fit(self, picture: Picture) -> Picture:
        fitted: Picture = fit_to_box(picture[None], image_size=self._fitting[1])[0]
        return fitted
