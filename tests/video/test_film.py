"""Windows of a film are those that `sample_frames` gives for clips of the same ranges."""

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from pandacli.errors import PandaError
from pandacli.video import Clip, decoder, film
from pandacli.video.film import Film, Window
from pandacli.video.prefetch import read_fitted
from pandacli.video.seeking import KeyframeSeeker
from pandacli.video.windows import Span, cut_windows
from tests.video.clips import cut_short, damage, numbers_in, write_clip

SIDE = 112
LENGTH = 200
B_FRAMES = {"g": "30", "bf": "3"}
OPEN_GOP = {"x264-params": "open-gop=1:keyint=30:bframes=3:b-adapt=0:scenecut=0"}
X265 = {"x265-params": "log-level=none:keyint=30"}
UNEVEN = [n * 40 + n * n // 4 + 17 * (n % 3) for n in range(LENGTH)]
FORMS = {
    "constant.mp4": {"options": B_FRAMES},
    "uneven.mkv": {"options": B_FRAMES, "ticks": UNEVEN},
    "hevc.mp4": {"codec": "libx265", "options": X265},
    "open_gop.mkv": {"options": OPEN_GOP},
    "interlaced.ts": {"interlaced": True, "options": {"x264-params": "tff=1"}},
    "mpeg2.ts": {"codec": "mpeg2video", "options": {"q": "3", "g": "15", "bf": "2"}},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"q": "3", "g": "30", "bf": "2"}},
    "animated.gif": {"codec": "gif", "pix_fmt": "rgb8"},
}
BROKEN = ["damaged.mp4", "damaged.ts", "truncated.mp4", "truncated.mkv", "truncated.ts"]
FAST = {"constant.mp4", "uneven.mkv", "open_gop.mkv", "animated.gif", "damaged.ts", "mpeg4.avi"}


def write(folder: Path, name: str) -> Path:
    if name in FORMS:
        return write_clip(folder / name, LENGTH, **FORMS[name])
    muxer = {"movflags": "faststart"} if name.endswith(".mp4") else None
    whole = write_clip(folder / name, LENGTH, options=B_FRAMES, muxer=muxer, noise=True)
    if name.startswith("damaged"):
        return damage(whole)
    return cut_short(whole, folder / f"part-{name}", 0.6)


def spans_of(duration: float, random: Random) -> list[Span]:
    """Overlapping windows over all of a film, then ranges at random and wrong ones."""
    length = random.uniform(0.7, 3)
    spans = cut_windows(Span(0, duration), length, length / random.choice([1, 2, 3]))
    for _ in range(4):
        start = random.uniform(0, duration)
        spans.append(Span(start, start + random.uniform(0.01, duration / 2)))
    return [*spans, Span(duration + 1, duration + 2), Span(3, 2), Span(0, 1)]


def read(opened: Film, spans: list[Span]) -> list[Window | str]:
    found: list[Window | str] = []
    for number in range(len(spans)):
        try:
            found.append(opened.window(spans[number:]))
        except PandaError as error:
            found.append(error.message)
    return found


def expected(path: Path, span: Span, num_frames: int) -> Window | str:
    try:
        frames = read_fitted(Clip(path, *span), num_frames, SIDE)
    except PandaError as error:
        return error.message
    return Window(frames.pixels, frames.indices, frames.times, frames.notices)


def equal(windows: list[Window], others: list[Window]) -> bool:
    """Whether two films have the same frames in some windows."""
    pairs = list(zip(windows, others, strict=True))
    return all(np.array_equal(a.pixels, b.pixels) and a[1:3] == b[1:3] for a, b in pairs)


def marked(name: str) -> Any:
    return pytest.param(name, marks=() if name in FAST else pytest.mark.slow)


@pytest.mark.parametrize("name", [marked(name) for name in (*FORMS, *BROKEN)])
def test_windows_equal_clips_of_their_ranges(tmp_path, name):
    random = Random(name)
    path, num_frames = write(tmp_path, name), random.choice([4, 8])
    opened = Film(path, num_frames, SIDE)
    spans = spans_of(opened.info.duration, random)
    for span, window in zip(spans, read(opened, spans), strict=True):
        clip = expected(path, span, num_frames)
        if isinstance(clip, str):
            assert window == clip
            continue
        assert isinstance(window, Window)
        assert window[1:3] == clip[1:3], span
        if name in BROKEN:  # how decoders conceal damage may vary from run to run
            difference = np.abs(window.pixels.astype(int) - clip.pixels).mean()
            assert difference < 2, span
        else:
            assert np.array_equal(window.pixels, clip.pixels), span


def test_each_frame_of_overlapping_windows_is_decoded_once(tmp_path, monkeypatch):
    path = write(tmp_path, "constant.mp4")
    opened, decoded = Film(path, 8, SIDE), []
    frames = KeyframeSeeker.frames

    def counting(self, key, numbers):
        for frame in frames(self, key, numbers):
            decoded.append(frame.pts)
            yield frame

    monkeypatch.setattr(KeyframeSeeker, "frames", counting)
    windows = read(opened, cut_windows(Span(0, 8), 5.0, 0.56))
    assert len({n for w in windows for n in w.indices}) < sum(len(w.indices) for w in windows)
    assert len(decoded) == len(set(decoded)) <= LENGTH


def test_index_and_end_are_read_once(tmp_path, monkeypatch):
    opened = Film(write(tmp_path, "uneven.mkv"), 8, SIDE)
    monkeypatch.setattr(film, "read_stream", None)
    monkeypatch.setattr(film, "decode", None)
    spans = [Span(6, 7), Span(2, 3), Span(5, 5.5), Span(2, 4)]
    windows = read(opened, spans)
    assert all(numbers_in(w.pixels) == list(w.indices) for w in windows)


def test_damaged_film_is_decoded_a_few_times_at_most(tmp_path, monkeypatch):
    """However many windows there are: once to count the frames, once for the pictures."""
    path = damage(write_clip(tmp_path / "film.mkv", LENGTH, options=B_FRAMES, noise=True))
    ticks, begun = decoder.PyAVSource.ticks, []

    def counting(self, start=None):
        begun.append(start)
        return ticks(self, start)

    monkeypatch.setattr(decoder.PyAVSource, "ticks", counting)
    opened = Film(path, 8, SIDE)
    windows = read(opened, cut_windows(Span(0, opened.info.duration), 0.4))
    assert len(windows) > 15
    assert not any(isinstance(window, str) for window in windows)
    assert 1 <= len(begun) <= 3


def test_damage_in_one_place_costs_no_other_window(tmp_path):
    path = write_clip(tmp_path / "film.mp4", LENGTH, options=B_FRAMES, noise=True)
    spans = cut_windows(Span(0, LENGTH / 25), 1.0)
    whole = read(Film(path, 8, SIDE), spans)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 300] = bytes(300)
    path.write_bytes(content)
    windows = read(Film(path, 8, SIDE), spans)
    assert equal(windows[:2], whole[:2])
    assert equal(windows[-2:], whole[-2:])
    assert not equal(windows, whole)
    assert windows[0].notices == ()
    assert any("damaged" in n or "can be decoded" in n for w in windows for n in w.notices)


def test_long_truncated_film_is_read_by_seeking(tmp_path, monkeypatch):
    monkeypatch.setattr(decoder, "_SEQUENTIAL_PIXELS", 0)
    options, muxer = {"g": "12", "bf": "0", "preset": "ultrafast"}, {"movflags": "faststart"}
    whole = write_clip(tmp_path / "whole.mp4", 1000, size=(48, 36), options=options, muxer=muxer)
    opened = Film(cut_short(whole, tmp_path / "part.mp4", 0.8), 8, SIDE)
    monkeypatch.setattr(film, "walk_sequentially", None)
    spans = cut_windows(Span(0, 28), 4.0)
    windows = read(opened, [*spans, *reversed(spans)])
    assert equal(windows, read(Film(whole, 8, SIDE), [*spans, *reversed(spans)]))
    assert "can be decoded" in windows[0].notices[0]


def test_held_pictures_are_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(film, "_MAX_HELD", 12)
    opened = Film(write(tmp_path, "constant.mp4"), 8, SIDE)
    spans = cut_windows(Span(0, opened.info.duration), 6.0, 0.25)
    for number in range(len(spans)):
        window = opened.window(spans[number:])
        assert numbers_in(window.pixels) == list(window.indices)
        assert len(opened._by_key._held) <= 12 + 8


def test_window_in_which_the_size_changes_is_read(tmp_path):
    small = write_clip(tmp_path / "a.ts", 50, size=(96, 72), options={"g": "25", "bf": "0"})
    large = write_clip(tmp_path / "b.ts", 50, size=(192, 144), options={"g": "25", "bf": "0"})
    path = tmp_path / "film.ts"
    path.write_bytes(small.read_bytes() + large.read_bytes())
    opened = Film(path, 8, SIDE)
    spans = cut_windows(Span(0, opened.info.duration), 0.8)
    for span, window in zip(spans, read(opened, spans), strict=True):
        assert np.array_equal(window.pixels, expected(path, span, 8).pixels)
