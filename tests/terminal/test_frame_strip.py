"""The frame strip in half-blocks."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from pandacli.terminal.frame_strip import FrameStrip


def frames(count=8, height=180, width=320):
    pixels = np.zeros((count, height, width, 3), np.uint8)
    pixels[:, : height // 2] = (255, 0, 0)
    pixels[:, height // 2 :] = (0, 0, 255)
    times = tuple(number * 0.5 for number in range(count))
    return SimpleNamespace(pixels=pixels, times=times)


def drawn(strip, width, color_system=None):
    console = Console(
        file=io.StringIO(), width=width, color_system=color_system, force_terminal=True
    )
    console.print(strip)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [20, 47, 79, 80, 200])
@pytest.mark.parametrize("shape", [(180, 320), (320, 180), (240, 320), (40, 640)])
def test_strip_fits_the_width(width, shape):
    text = drawn(FrameStrip(frames(8, *shape)), width)
    assert max(cell_len(line) for line in text.splitlines()) <= width


def test_two_rows_of_four_at_80_columns():
    captions = [line.split() for line in drawn(FrameStrip(frames()), 80).splitlines()]
    captions = [words for words in captions if ":" in words[0]]
    assert captions == [
        ["0:00.0", "0:00.5", "0:01.0", "0:01.5"],
        ["0:02.0", "0:02.5", "0:03.0", "0:03.5"],
    ]


def test_one_row_on_a_wide_terminal():
    lines = drawn(FrameStrip(frames()), 200).splitlines()
    assert len(lines[-1].split()) == 8


def test_strip_leaves_room_for_answers_on_24_lines():
    for shape in ((180, 320), (240, 320), (320, 180)):
        assert len(drawn(FrameStrip(frames(8, *shape)), 80).splitlines()) <= 16


def test_aspect_ratio_is_kept():
    for height, width in ((180, 320), (320, 180), (200, 200)):
        lines = drawn(FrameStrip(frames(1, height, width)), 80).splitlines()[:-1]
        ratio = lines[0].count("▄") / (2 * len(lines))
        assert ratio == pytest.approx(width / height, rel=0.15)


def test_frame_is_not_upside_down():
    lines = drawn(FrameStrip(frames(1)), 80, "truecolor").splitlines()
    assert "48;2;255;0;0" in lines[0]
    assert "0;0;255" not in lines[0]
    assert "38;2;0;0;255" in lines[-2]
    assert "255;0;0" not in lines[-2]


def test_draws_one_frame_and_odd_counts():
    assert "0:00" in drawn(FrameStrip(frames(1)), 80)
    assert drawn(FrameStrip(frames(5)), 80).count(":") == 5
