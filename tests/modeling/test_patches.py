"""The grid of patches with collapsed bars."""

import pytest
import torch

from pandacli.modeling.patches import Axis, Canvas, PatchBox


@pytest.mark.parametrize(
    ("start", "stop", "counts"),
    [
        (0, 32, [1] * 32),
        (7, 25, [1, 5, 1, *[1] * 18, 1, 5, 1]),
        (3, 28, [1] * 3 + [1] * 25 + [1, 2, 1]),
        (0, 28, [1] * 28 + [1, 2, 1]),
    ],
)
def test_identical_bar_lines_are_collapsed(start: int, stop: int, counts: list[int]) -> None:
    assert Axis(start, stop, 32).counts == counts


def test_places_map_every_canvas_line() -> None:
    axis = Axis(7, 25, 32)
    assert axis.places == [0, 1, 1, 1, 1, 1, 2, *range(3, 21), 21, 22, 22, 22, 22, 22, 23]
    assert axis.content == slice(3, 21)


def test_bars_are_one_patch() -> None:
    canvas = Canvas(PatchBox(7, 25, 0, 32), 32)
    assert canvas.patches(torch.zeros(4, 3, 64, 64), 2).shape == (4, 18 * 32 + 1, 12)


def test_patch_pixels_are_channel_major() -> None:
    frames = torch.arange(48.0).view(1, 3, 4, 4)
    patches = Canvas(PatchBox(0, 2, 0, 2), 2).patches(frames, 2)
    assert patches[0, 1].tolist() == [2, 3, 6, 7, 18, 19, 22, 23, 34, 35, 38, 39]


def test_multiplicities_sum_to_grid() -> None:
    canvas = Canvas(PatchBox(7, 25, 10, 22), 32)
    assert canvas.multiplicity(torch.zeros(1)).sum() == 32 * 32
