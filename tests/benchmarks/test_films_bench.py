"""The benchmark of film readers: all of them read the same frames, and the fastest is named."""

import numpy as np
import pytest

from benchmarks.__main__ import films_rows
from benchmarks.films import READERS, measure, times_of
from benchmarks.sample_videos import Sample, write_all
from pandacli.video import Clip, sample_frames


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    options = {"preset": "ultrafast", "g": "20"}
    sample = Sample("libx264", (96, 72), 12, rate=10, repeated=2, options=options)
    return write_all(tmp_path_factory.mktemp("videos"), {"film.mp4": sample})[0]


def test_all_readers_give_the_same_frames(film):
    times = times_of(film)
    assert times == [sample_frames(Clip(film, *span)).times for span in ((0, 10), (10, 24))]
    ours, *others = (list(reader(film, times)) for reader in READERS.values())
    for windows in others:
        assert all(map(np.array_equal, windows, ours))


def test_each_reader_is_measured_on_each_turn(film):
    seconds = measure(film, repeats=1)["seconds"]
    assert {name: len(each) for name, each in seconds.items()} == dict.fromkeys(READERS, 1)


def test_row_has_the_fastest_plain_reader():
    cpu = {"FilmReader": [3, 1, 2], "sequential": [9, 9, 9], "a seek for each frame": [4, 4, 9]}
    seconds = {name: [{"cpu": s, "clock": 1.0} for s in each] for name, each in cpu.items()}
    (row,) = films_rows({"films": [{"film": "a", "seconds": seconds}]})
    assert (row.ours, row.beside, row.theirs) == (2, "a seek for each frame", 4)
