import json
import math
from pathlib import Path

import pytest

from pandacli.errors import ClipError, UsageError
from pandacli.video import sample_indices

ROWS = json.loads((Path(__file__).parents[1] / "data" / "sampling.json").read_text())["rows"]
RATES_THAT_SAY_NOTHING = [0.5, 0.1, 0.0, math.nan, math.inf]


def test_indices_equal_reference_rows():
    rows = [row for row in ROWS if "index" in row]
    wrong = [
        row
        for row in rows
        if sample_indices(float(row["fps"]), row["frames"], row.get("num_frames", 8))
        != row["index"]
    ]
    assert len(rows) > 500
    assert wrong == []


def test_one_frame_is_sampled_at_any_rate():
    rates = {float(row["fps"]) for row in ROWS if row["frames"] == 1}
    assert all(sample_indices(fps, 1) == [0] for fps in rates)


@pytest.mark.parametrize("fps", RATES_THAT_SAY_NOTHING)
def test_unusable_rate_samples_whole_video_evenly(fps):
    assert sample_indices(fps, 100) == [0, 14, 28, 42, 56, 70, 84, 99]


@pytest.mark.parametrize("fps", RATES_THAT_SAY_NOTHING)
def test_unusable_rate_keeps_short_video_whole(fps):
    assert sample_indices(fps, 5) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("frame_count", [0, -1])
@pytest.mark.parametrize("fps", [25.0, 0.0, math.nan, math.inf, -25.0])
def test_video_without_frames_is_refused(fps, frame_count):
    with pytest.raises(ClipError, match="no frames"):
        sample_indices(fps, frame_count)


def test_half_rate_rounds_to_even():
    assert sample_indices(12.5, 97)[1] == 12


@pytest.mark.parametrize("num_frames", range(1, 17))
def test_indices_are_ascending_and_in_range(num_frames):
    for frame_count in (1, 2, 7, 8, 9, 40, 1000):
        indices = sample_indices(25.0, frame_count, num_frames)
        assert indices == sorted(set(indices))
        assert 0 <= indices[0] <= indices[-1] < frame_count
        assert len(indices) <= num_frames


def test_num_frames_below_one_is_refused():
    with pytest.raises(UsageError, match="0 frames"):
        sample_indices(25.0, 100, 0)
