"""Letterbox preprocessing: frames resized into a square canvas and normalised, with a mask.

As in Video-Panda's training (arXiv 2412.18609), to every pixel, but without random mirroring.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    import torch

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
_BAR_COLOUR = tuple(int(255 * mean) for mean in MEAN)


def content_box(
    width: int, height: int, *, image_size: int = 448, patch_size: int = 14
) -> tuple[int, int, int, int]:
    """The box of a frame on the square canvas, in pixels: (top, bottom, left, right), half-open.

    The canvas is a grid of cells of 2x2 patches. The longer side fills it; the shorter side is
    stretched to whole cells. An odd cell left over goes to the bottom or the right. ValueError if
    a side is not positive, or the canvas is not a whole number of cells.
    """
    if width < 1 or height < 1:
        raise ValueError(f"a frame cannot be {width} x {height} pixels")
    cell = 2 * patch_size
    if patch_size < 1 or image_size < cell or image_size % cell:
        raise ValueError(f"a canvas of {image_size} pixels is no multiple of {cell}")
    cells = image_size // cell
    shorter, longer = min(width, height), max(width, height)
    filled = -(-cells * shorter // longer)
    begin = (cells - filled) // 2 * cell
    end = begin + filled * cell
    return (begin, end, 0, image_size) if width > height else (0, image_size, begin, end)


def preprocess(
    frames: NDArray[np.uint8], *, image_size: int = 448, patch_size: int = 14, num_frames: int = 8
) -> "torch.Tensor":
    """The model's input for one video: float32 `(num_frames, 4, S, S)`, with `S = image_size`.

    Its channels are normalised RGB and the mask, 1 inside the content box. `frames` are uint8
    `(T, H, W, 3)`, RGB; up to `num_frames`, frames of zeros in all four channels are added.
    ValueError if the frames have another shape or type, or are more than `num_frames`.
    """
    import torch  # deferred: decoding frames does not need it

    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3:
        given = f"{frames.dtype} {tuple(frames.shape)}"
        raise ValueError(f"frames must be uint8 (T, H, W, 3), not {given}")
    count, height, width, _ = frames.shape
    if not 1 <= count <= num_frames:
        raise ValueError(f"between 1 and {num_frames} frames can be taken, not {count}")
    canvases = fit_to_canvas(frames, image_size=image_size, patch_size=patch_size)
    box = content_box(width, height, image_size=image_size, patch_size=patch_size)
    top, bottom, left, right = box
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    video = torch.zeros(num_frames, 4, image_size, image_size)  # (T, C, S, S)
    video[:count, :3] = (torch.from_numpy(canvases).permute(0, 3, 1, 2).float() / 255 - mean) / std
    video[:count, 3, top:bottom, left:right] = 1
    return video


def fit_to_canvas(
    frames: NDArray[np.uint8], *, image_size: int = 448, patch_size: int = 14
) -> NDArray[np.uint8]:
    """Letterbox uint8 frames `(T, H, W, 3)` to `(T, S, S, 3)`, with bars of the mean colour."""
    count, height, width, _ = frames.shape
    box = content_box(width, height, image_size=image_size, patch_size=patch_size)
    top, bottom, left, right = box
    canvases = np.full((count, image_size, image_size, 3), _BAR_COLOUR, np.uint8)
    content = fit_to_box(frames, image_size=image_size, patch_size=patch_size)
    canvases[:, top:bottom, left:right] = content
    return canvases


def fit_to_box(
    frames: NDArray[np.uint8], *, image_size: int = 448, patch_size: int = 14
) -> NDArray[np.uint8]:
    """Resize uint8 frames `(T, H, W, 3)` to `content_box`, `(T, h, w, 3)`: antialiased bicubic."""
    top, bottom, left, right = content_box(
        frames.shape[2], frames.shape[1], image_size=image_size, patch_size=patch_size
    )
    return np.stack([_resize(frame, right - left, bottom - top) for frame in frames])


def _resize(frame: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    # width first, then height, rounded to uint8 in between: in a single call Pillow 13 chooses the
    # order, which changes tall frames by up to 22 grey levels
    image = Image.fromarray(np.ascontiguousarray(frame))
    image = image.resize((width, image.height), Image.Resampling.BICUBIC)
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
