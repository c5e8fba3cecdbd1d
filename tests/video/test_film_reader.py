"""A film reader: its process works ahead, survives crashes of the decoder, and ends with it."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from pandacli.errors import ClipError, UsageError
from pandacli.video import Clip, Frames, film, prefetch, windows
from pandacli.video.prefetch import Request, read_fitted
from pandacli.video.windows import FilmReader, Span, cut_windows, film_readers
from tests.conftest import frame_readers
from tests.video import crashing_film
from tests.video.clips import cut_short, write_clip

SIDE = 112


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("film")
    return write_clip(folder / "film.mp4", 200, options={"g": "25", "bf": "2"})


def kinds(reader: FilmReader, spans: list[Span]) -> list[type]:
    return [type(frames) for _, frames in reader.read(spans)]


def test_frames_equal_those_of_clips(path):
    spans = [*cut_windows(Span(0, 8), 2.0, 1.0), Span(60, 61), Span(3, 4), Span(1, 1.5)]
    with FilmReader(path, 8, SIDE) as reader:
        assert reader.info().frame_count == 200
        found = dict(reader.read(spans))
        infos = {id(frames.info) for frames in found.values() if isinstance(frames, Frames)}
    assert list(found) == spans
    assert isinstance(found.pop(Span(60, 61)), UsageError)
    assert len(infos) == 1
    for span, frames in found.items():
        clip = read_fitted(Clip(path, *span), 8, SIDE)
        assert (frames.indices, frames.times, frames.info) == (clip.indices, clip.times, clip.info)
        assert np.array_equal(frames.pixels, clip.pixels)


def test_notices_are_given_once(tmp_path):
    muxer, options = {"movflags": "faststart"}, {"bf": "0", "qp": "1"}
    whole = write_clip(tmp_path / "whole.mp4", 200, options=options, muxer=muxer)
    path = cut_short(whole, tmp_path / "part.mp4", 0.5)
    with FilmReader(path, 8, SIDE) as reader:
        spans = cut_windows(Span(0, reader.info().duration), 1.0)
        given = [frames.notices for _ in range(2) for _, frames in reader.read(spans)]
    assert "can be decoded" in given[0][0]
    assert not any(given[1:])


def test_unusable_film_fails_each_window(tmp_path):
    (tmp_path / "text.mp4").write_text("not a video")
    with FilmReader(tmp_path / "text.mp4", 8, SIDE) as reader:
        with pytest.raises(ClipError, match="not a video"):
            reader.info()
        assert kinds(reader, [Span(0, 1), Span(1, 2)]) == [ClipError, ClipError]


@pytest.fixture
def fragile(monkeypatch):
    """The decoder crashes in windows that start at 2 seconds, and hangs at 4."""
    monkeypatch.setattr(film, "read_window", crashing_film.read_window)
    wait = Request.wait

    def impatient_with_hanging(request, timeout=None):
        ranges = request.arguments[-1]
        hangs = isinstance(ranges, list) and ranges[0][0] == crashing_film.HANGS
        monkeypatch.setattr(prefetch, "TIMEOUT", 0.5 if hangs else 600.0)
        return wait(request, timeout)

    monkeypatch.setattr(Request, "wait", impatient_with_hanging)


@pytest.mark.usefixtures("fragile")
def test_crash_or_hang_costs_its_window_only(path):
    with FilmReader(path, 8, SIDE) as reader:
        reader.info()
        found = [frames for _, frames in reader.read([Span(n, n + 1) for n in range(6)])]
    failed = [frames for frames in found if isinstance(frames, ClipError)]
    assert [type(frames) is ClipError for frames in found] == [
        False,
        False,
        True,
        False,
        True,
        False,
    ]
    assert [str(error) for error in failed] == [
        f"the video decoder crashed on {path}",
        f"the video decoder does not finish reading {path}",
    ]


@pytest.mark.usefixtures("fragile")
def test_decoder_that_always_crashes_is_given_up(path, monkeypatch):
    monkeypatch.setattr(windows, "_MAX_DEATHS", 2)
    with FilmReader(path, 8, SIDE) as reader:
        assert kinds(reader, [Span(2, 3)] * 20) == [ClipError] * 20
        assert reader._reader.deaths < 10
        assert kinds(reader, [Span(0, 1)]) == [Frames]


@pytest.mark.usefixtures("fragile")
def test_abandoned_iteration_does_not_delay_the_next(path, monkeypatch):
    monkeypatch.setattr(windows, "_GRACE", 0.1)
    with FilmReader(path, 8, SIDE) as reader:
        abandoned = reader.read([Span(3, 4), *[Span(4, 5)] * 5])  # it hangs in the second
        next(abandoned)
        assert kinds(reader, [Span(5, 6), Span(1, 2)]) == [Frames, Frames]
        with pytest.raises(RuntimeError, match="another iteration"):
            next(abandoned)


def test_windows_are_read_only_as_far_as_ahead(path):
    with FilmReader(path, 8, SIDE, ahead=3) as reader:
        reading = reader.read(cut_windows(Span(0, 8), 0.2))
        next(reading)
        assert len(reader._pending) == 2
        next(reading)
        assert len(reader._pending) == 2


def test_exit_leaves_no_process(path):
    before = set(frame_readers())
    with FilmReader(path, 8, SIDE) as reader:
        next(reader.read(cut_windows(Span(0, 8), 0.2)))
        started = set(frame_readers()) - before
        assert len(started) == 1
    assert not any(process.is_running() for process in started)


SCRIPT = """
import sys, time
from pathlib import Path
from pandacli.video.windows import FilmReader, Span, cut_windows, film_readers
with FilmReader(Path(sys.argv[1]), 8, 112) as reader:
    for span, frames in reader.read(cut_windows(Span(0, 8), 0.5)):
        print(span.start, flush=True)
        time.sleep(60)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_interrupt_ends_both_processes_at_once(path):
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", SCRIPT, str(path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=variables) as main:
        assert main.stdout.readline() == "0.0\n"
        (worker,) = psutil.Process(main.pid).children()
        main.send_signal(signal.SIGINT)
        main.wait(20)  # it would sleep for a minute
        assert main.stderr.read().strip().endswith("KeyboardInterrupt")
    psutil.wait_procs([worker], 5)
    assert not worker.is_running()


def test_next_film_is_opened_while_one_is_read(path, tmp_path):
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    readers = film_readers([path, text, path], 8, SIDE)
    first = next(readers)
    assert first.info().frame_count == 200
    deadline = time.monotonic() + 60
    while len(frame_readers()) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with pytest.raises(ClipError):
        next(readers).info()
    assert kinds(next(readers), [Span(0, 1)]) == [Frames]
    assert list(readers) == []
    assert frame_readers() == []


def test_films_opened_ahead_are_closed_with_the_iteration(path):
    readers = film_readers([path] * 3, 8, SIDE)
    assert next(readers).info().frame_count == 200
    readers.close()
    assert frame_readers() == []


def test_no_films_give_no_readers():
    assert list(film_readers([], 8, SIDE)) == []
