"""Frames read by worker processes that may crash, hang or be killed."""

import os
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from random import Random

import cv2
import numpy as np
import psutil
import pytest

from pandacli.errors import ClipError, DeviceError, PandaError
from pandacli.video import Clip, Frames, prefetch, preprocess, sample_frames
from pandacli.video.prefetch import FramePrefetcher, WorkerProcess, read_fitted
from tests.batch import crashing_decoder
from tests.batch.conftest import SIZES
from tests.conftest import frame_readers

SIDE = 112


@pytest.fixture(scope="module")
def ahead() -> Iterator[FramePrefetcher]:
    """One shared worker process; starting it takes longer than reading."""
    with FramePrefetcher(8, SIDE, workers=1) as started:
        yield started


def read(
    ahead: FramePrefetcher, *clips: Clip | PandaError
) -> list[tuple[int, Frames | PandaError]]:
    return list(ahead.read(enumerate(clips)))


def test_frames_equal_those_read_in_process(ahead, clips) -> None:
    wanted = [Clip(clips / name) for name in sorted(SIZES)]
    for (number, frames), clip in zip(read(ahead, *wanted), wanted, strict=True):
        here = read_fitted(clip, 8, SIDE)
        assert isinstance(frames, Frames)
        assert np.array_equal(frames.pixels, here.pixels)
        assert (frames.times, wanted[number]) == (here.times, clip)


def test_errors_equal_those_raised_in_process(ahead, tmp_path) -> None:
    (tmp_path / "text.mp4").write_text("not a video")
    (said,) = read(ahead, Clip(tmp_path / "text.mp4"))[0][1:]
    with pytest.raises(ClipError) as here:
        read_fitted(Clip(tmp_path / "text.mp4"), 8, SIDE)
    assert type(said) is ClipError
    assert (said.message, said.hint) == (here.value.message, here.value.hint)
    assert said.exit_code == ClipError.exit_code


def test_errors_keep_their_positions(ahead, clips) -> None:
    gone = ClipError("gone")
    found = read(ahead, gone, Clip(clips / "tall.avi"), gone)
    assert [number for number, _ in found] == [0, 1, 2]
    assert (found[0][1], found[2][1]) == (gone, gone)
    assert isinstance(found[1][1], Frames)


def test_unexpected_exception_fails_only_its_clip(monkeypatch, clips) -> None:
    monkeypatch.setattr("pandacli.video.sample_frames", _faulty, raising=False)
    with pytest.raises(ClipError, match=r"wide\.avi cannot be read: ZeroDivisionError: a fault"):
        read_fitted(Clip(clips / "wide.avi"), 8, SIDE)


def _faulty(*_: object) -> None:
    raise ZeroDivisionError("a fault")


def test_crashing_decoder_fails_only_its_clip(monkeypatch, clips, tmp_path):
    """Clips read before and after it, in the same process or another, are complete."""
    monkeypatch.setattr(prefetch, "read_fitted", crashing_decoder.read_fitted)
    bad, good = Clip(tmp_path / crashing_decoder.CRASHING), Clip(clips / "wide.avi")
    with FramePrefetcher(8, SIDE, workers=2) as ahead:
        found = [frames for _, frames in read(ahead, good, bad, good, bad, good)]
    kinds = [type(frames) for frames in found]
    assert kinds == [Frames, ClipError, Frames, ClipError, Frames]
    assert str(found[1]) == f"the video decoder crashed on {bad.path}"


def test_killed_worker_is_reported_as_killed(monkeypatch, clips, tmp_path) -> None:
    monkeypatch.setattr(prefetch, "read_fitted", crashing_decoder.read_fitted)
    bad, good = Clip(tmp_path / crashing_decoder.KILLED), Clip(clips / "wide.avi")
    with FramePrefetcher(8, SIDE, workers=1) as ahead:
        found = [frames for _, frames in read(ahead, bad, good)]
    assert str(found[0]) == f"the process reading {bad.path} was killed (out of memory?)"
    assert isinstance(found[1], Frames)


def test_unstartable_worker_is_a_device_error(monkeypatch, clips) -> None:
    monkeypatch.setattr(prefetch, "_program", lambda: "raise SystemExit(3)")
    with (
        FramePrefetcher(8, SIDE, workers=1) as ahead,
        pytest.raises(DeviceError, match="end as soon as they are started") as caught,
    ):
        read(ahead, Clip(clips / "wide.avi"))
    assert "wide.avi" not in str(caught.value)


SCRIPT = """
import sys
from pandacli.video.prefetch import FramePrefetcher
from pandacli.video import Clip
print("begun")
clips = enumerate(map(Clip, sys.argv[1:]))
with FramePrefetcher(8, 112, workers=1) as ahead:
    print([getattr(frames, "indices", frames) for _, frames in ahead.read(clips)])
"""


@pytest.mark.parametrize("given", ["as a file", "through stdin", "by -c"])
def test_script_without_main_guard_runs_once(clips, tmp_path, given) -> None:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    how = {"as a file": [str(path)], "through stdin": ["-"], "by -c": ["-c", SCRIPT]}[given]
    clip = clips / Random(given).choice(sorted(SIZES))
    done = subprocess.run(
        [sys.executable, *how, str(clip)],
        input=SCRIPT if given == "through stdin" else None,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        timeout=120,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["begun", str([read_fitted(Clip(clip), 8, SIDE).indices])]


def test_worker_does_not_turn_warnings_into_errors(monkeypatch) -> None:
    monkeypatch.setattr(sys, "warnoptions", ["error"])
    process = WorkerProcess()
    try:
        assert process.call(warnings.warn, "a library is old") is None
    finally:
        process.close()


@pytest.fixture
def impatient(monkeypatch) -> None:
    """A missing file times out after half a second, any other after hours."""
    monkeypatch.setattr(prefetch, "read_fitted", crashing_decoder.read_fitted)
    monkeypatch.setattr(prefetch, "TIMEOUT", 0.5)
    monkeypatch.setattr(prefetch, "_BYTES_PER_SECOND", 1.0)


@pytest.mark.usefixtures("impatient")
def test_hanging_decoder_fails_only_its_clip(clips, tmp_path) -> None:
    bad, good = Clip(tmp_path / crashing_decoder.ENDLESS), Clip(clips / "wide.avi")
    with FramePrefetcher(8, SIDE, workers=2) as ahead:
        found = [frames for _, frames in read(ahead, bad, good, good)]
    assert [type(frames) for frames in found] == [ClipError, Frames, Frames]
    assert str(found[0]) == f"the video decoder does not finish reading {bad.path}"


def test_exit_does_not_wait_for_a_sending_worker(monkeypatch, tmp_path) -> None:
    """The result is larger than the pipe buffer, so sending blocks until it is read."""
    monkeypatch.setattr(prefetch, "read_fitted", crashing_decoder.read_fitted)
    before = frame_readers()
    with FramePrefetcher(8, SIDE, workers=1) as ahead:
        ahead._submit(Clip(tmp_path / crashing_decoder.LARGE))
        deadline = time.monotonic() + 20
        while not any(map(_is_sending, set(frame_readers()) - set(before))):
            assert time.monotonic() < deadline
        started = time.monotonic()
    assert time.monotonic() - started < 0.9, "it waited for a killed process"
    for reader in ahead._readers:
        reader.join(2)
    assert not any(reader.is_alive() for reader in ahead._readers)
    assert frame_readers() == before


def _is_sending(process: psutil.Process) -> bool:
    return process.io_counters().write_chars > 2**20


def test_killed_worker_is_replaced(clips) -> None:
    with FramePrefetcher(8, SIDE, workers=1) as ahead:
        reading = ahead.read(enumerate([Clip(clips / "wide.avi")] * 4))
        next(reading)
        for worker in frame_readers():
            worker.kill()
        assert all(isinstance(frames, Frames) for _, frames in reading)


def test_exit_leaves_no_process(clips) -> None:
    before = set(frame_readers())
    with FramePrefetcher(8, SIDE, workers=1) as ahead:
        reading = ahead.read(enumerate([Clip(clips / "wide.avi")] * 9))
        next(reading)
        started = set(frame_readers()) - before
        assert started
    assert not any(process.is_running() for process in started)


@pytest.mark.parametrize("ahead_of_need", [None, 5])
def test_clips_are_drawn_only_as_far_as_prefetched(clips, ahead_of_need) -> None:
    drawn = []

    def many() -> Iterator[tuple[int, Clip]]:
        for number in range(100):
            drawn.append(number)
            yield number, Clip(clips / "wide.avi")

    with FramePrefetcher(8, SIDE, workers=1, ahead=ahead_of_need) as ahead:
        next(ahead.read(many()))
    assert len(drawn) == 1 + (ahead_of_need or 1)


@pytest.mark.parametrize(
    ("width", "height"),
    [(640, 480), (480, 640), (131, 77), (77, 131), (1280, 720), (50, 50), (8, 300), (113, 112)],
)
@pytest.mark.parametrize("side", [112, 336])
def test_fitted_frames_preprocess_like_whole_frames(tmp_path, width, height, side) -> None:
    path = tmp_path / "noise.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 8, (width, height))
    rng = np.random.default_rng(width)
    for _ in range(4):
        writer.write(rng.integers(0, 256, (height, width, 3), np.uint8))
    writer.release()
    whole, fitted = sample_frames(Clip(path), 2), read_fitted(Clip(path), 2, side)
    seen = [
        preprocess(frames.pixels, image_size=side, patch_size=14, num_frames=2)
        for frames in (whole, fitted)
    ]
    assert np.array_equal(np.asarray(seen[0]), np.asarray(seen[1]))
