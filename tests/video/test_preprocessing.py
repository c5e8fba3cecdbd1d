import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from pandacli.video import content_box, preprocess
from pandacli.video.preprocessing import fit_to_canvas
from tests.parity_weights import raw_frames

VECTORS = sorted((Path(__file__).parents[1] / "data").glob("preproc_*.npz"))
UPRIGHT = [path for path in VECTORS if "flipped" not in path.stem]
MIRRORED = [path for path in VECTORS if "flipped" in path.stem]


def load(path):
    with np.load(path) as vector:
        arrays = dict(vector)
    meta = json.loads(str(arrays.pop("meta")))
    frames = raw_frames(meta["frames"], meta["height"], meta["width"], meta["seed"])
    return meta, frames, arrays


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_canvas_is_bit_equal_to_reference(path):
    meta, frames, arrays = load(path)
    canvases = fit_to_canvas(frames)
    assert [zlib.crc32(canvas.tobytes()) for canvas in canvases] == meta["canvas_crc32"]
    np.testing.assert_array_equal(canvases[:, ::16], arrays["canvas_rows"])


@pytest.mark.parametrize("path", UPRIGHT, ids=lambda path: path.stem)
def test_tensor_equals_reference(path):
    meta, frames, arrays = load(path)
    video = preprocess(frames).numpy()
    top, bottom = meta["box"][:2]
    rows = [top, min(top + 1, 447), (top + bottom) // 2, bottom - 1]
    np.testing.assert_allclose(video[:, :, ::16, ::16], arrays["out_slice"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(video[0][:, rows], arrays["out_rows"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(video.mean(axis=(2, 3)), arrays["out_mean"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("path", MIRRORED, ids=lambda path: path.stem)
def test_mirrored_reference_equals_ours_mirrored_except_mask(path):
    _, frames, arrays = load(path)
    video = preprocess(frames).numpy()
    mirrored = np.concatenate([video[:, :3, :, ::-1], video[:, 3:]], axis=1)
    np.testing.assert_allclose(mirrored[:, :, ::16, ::16], arrays["out_slice"], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((1280, 720), (84, 336, 0, 448)),
        ((640, 480), (56, 392, 0, 448)),
        ((720, 1280), (0, 448, 84, 336)),
        ((480, 640), (0, 448, 56, 392)),
        ((1920, 800), (112, 308, 0, 448)),
        ((448, 448), (0, 448, 0, 448)),
        ((640, 601), (0, 448, 0, 448)),
        ((10000, 1), (196, 224, 0, 448)),
    ],
)
def test_content_box_of_frame_sizes(size, box):
    assert content_box(*size) == box


def test_content_box_scales_with_canvas():
    assert content_box(1280, 720, image_size=112, patch_size=14) == (0, 84, 0, 112)


def test_mask_is_one_inside_box_only():
    video = preprocess(np.zeros((8, 90, 160, 3), np.uint8))
    expected = torch.zeros(448, 448)
    expected[84:336] = 1
    assert torch.equal(video[:, 3], expected.expand(8, -1, -1))


def test_missing_frames_are_zero():
    video = preprocess(np.full((3, 64, 64, 3), 200, np.uint8))
    assert video.shape == (8, 4, 448, 448)
    assert not video[3:].any()
    assert video[:3, 3].all()


def test_shape_follows_canvas_and_frame_count():
    frames = np.zeros((12, 64, 64, 3), np.uint8)
    video = preprocess(frames, image_size=112, patch_size=14, num_frames=16)
    assert video.shape == (16, 4, 112, 112)
    assert video.dtype == torch.float32


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((8, 64, 64, 3), np.float32),
        np.zeros((64, 64, 3), np.uint8),
        np.zeros((8, 64, 64, 4), np.uint8),
        np.zeros((0, 64, 64, 3), np.uint8),
        np.zeros((9, 64, 64, 3), np.uint8),
    ],
    ids=["floats", "one picture", "four channels", "none", "too many"],
)
def test_invalid_frames_are_refused(frames):
    with pytest.raises(ValueError, match="frames"):
        preprocess(frames)


@pytest.mark.parametrize(("image_size", "patch_size"), [(100, 14), (14, 14), (448, 0)])
def test_canvas_not_multiple_of_cell_is_refused(image_size, patch_size):
    with pytest.raises(ValueError, match="multiple"):
        content_box(64, 64, image_size=image_size, patch_size=patch_size)
