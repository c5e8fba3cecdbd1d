"""The table of frame readers: what counts as right, and what is made of the seconds."""

import json

import numpy as np
import pytest
from rich.console import Console

from benchmarks.frames import Row, as_json, in_order, ratio, right_ones, table_of
from benchmarks.sample_videos import Sample, write_all
from pandacli.video import read_frames


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    options = {"preset": "ultrafast"}
    sample = Sample("libx264", (96, 72), 1, rate=10, repeated=2, options=options)
    return write_all(tmp_path_factory.mktemp("videos"), {"clip.mp4": sample})[0]


def test_a_repeated_video_has_the_frames_of_all_turns(clip):
    assert len(in_order(clip, range(25))) == 20


def test_frames_with_their_own_numbers_are_right(clip):
    numbers = [0, 7, 13]
    truth = in_order(clip, numbers)
    assert right_ones(read_frames(clip, numbers), numbers, truth) == 3


def test_frames_of_their_neighbours_are_wrong(clip):
    truth = in_order(clip, [0, 7, 13])
    assert right_ones(read_frames(clip, [0, 8, 12]), [0, 7, 13], truth) == 1


def test_pictures_of_another_size_are_wrong(clip):
    truth = in_order(clip, [3])
    assert right_ones(np.zeros((1, 8, 8, 3), np.uint8), [3], truth) == 0


def test_the_ratio_is_that_of_turns_side_by_side():
    row = Row("a.mp4", 8, {"ours": [1.0, 10.0, 3.0], "decord": [2.0, 20.0, 3.0]}, {})
    assert ratio(row, "decord") == 0.5
    assert ratio(row, "pyav") is None


def test_a_reader_that_cannot_has_a_dash():
    row = Row("a.gif", 8, {"ours": [0.25], "pyav": [0.5]}, {"ours": 8, "pyav": 7})
    console = Console(width=120)
    with console.capture() as shown:
        console.print(table_of([row], ["ours", "decord", "pyav"]))
    cells = shown.get().splitlines()[-1].split()
    assert cells == ["a.gif", "0.25", "8/8", "-", "-", "0.5", "7/8", "-", "x0.50"]


def test_every_number_is_in_the_json():
    row = Row("a.mp4", 8, {"ours": [1.0], "decord": [2.0]}, {"ours": 8, "decord": 8})
    found = json.loads(as_json([row], ["ours", "decord"]))["files"][0]
    assert found["seconds"] == {"ours": [1.0], "decord": [2.0]}
    assert found["ratios"] == {"decord": 0.5}
