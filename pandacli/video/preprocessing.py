"""Frames to the canvas that the model sees: fitted into a square, normalised, with a mask.

The arithmetic is that of Video-Panda's training (arXiv 2412.18609), down to the rounding of
every resized pixel. The original also mirrors half of all videos at random; we never do.
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
    """Where a frame of this size lies on the square canvas: (top, bottom, left, right), half-open.

    The canvas is a grid of cells of two by two patches. The longer side fills it; the shorter
    side is stretched to whole cells, and when the cells left over are odd in number, the extra
    one goes to the bottom or the right.

    Raises:
        ValueError: A side is not positive, or the canvas is no whole number of cells.
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
    frames: NDArray[np.uint8],
    *,
    image_size: int = 448,
    patch_size: int = 14,
    num_frames: int = 8,
) -> "torch.Tensor":
    """The model's input for one video.

    Args:
        frames: uint8 `(T, H, W, 3)`, RGB, `1 <= T <= num_frames`.
        image_size: Side S of the square canvas, in pixels.
        patch_size: Side of a patch, in pixels.
        num_frames: Frames that the model takes; a shorter video is filled up with frames that
            are zero in all four channels.

    Returns:
        float32 `(num_frames, 4, S, S)`: normalised RGB, then the mask, 1 where the picture is.

    Raises:
        ValueError: The frames are not of that form, or are more than `num_frames`.
    """
    import torch  # not above: whoever only looks at frames need not wait for it

    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3:
        raise ValueError(
            f"frames must be uint8 (T, H, W, 3), not {frames.dtype} {tuple(frames.shape)}"
        )
    if not 1 <= len(frames) <= num_frames:
        raise ValueError(f"between 1 and {num_frames} frames can be taken, not {len(frames)}")
    canvases = fit_to_canvas(frames, image_size=image_size, patch_size=patch_size)
    top, bottom, left, right = content_box(
        frames.shape[2], frames.shape[1], image_size=image_size, patch_size=patch_size
    )
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    video = torch.zeros(num_frames, 4, image_size, image_size)  # (T, C, S, S)
    rgb = torch.from_numpy(canvases).permute(0, 3, 1, 2)
    video[: len(frames), :3] = (rgb.float() / 255 - mean) / std
    video[: len(frames), 3, top:bottom, left:right] = 1
    return video


def fit_to_canvas(
    frames: NDArray[np.uint8], *, image_size: int = 448, patch_size: int = 14
) -> NDArray[np.uint8]:
    """Each frame resized into its box on a canvas of the mean colour.

    Args:
        frames: uint8 `(T, H, W, 3)`, RGB.

    Returns:
        uint8 `(T, S, S, 3)`.
    """
    height, width = frames.shape[1:3]
    top, bottom, left, right = content_box(
        width, height, image_size=image_size, patch_size=patch_size
    )
    canvases = np.empty((len(frames), image_size, image_size, 3), np.uint8)
    canvases[:] = _BAR_COLOUR
    canvases[:, top:bottom, left:right] = fit_to_box(
        frames, image_size=image_size, patch_size=patch_size
    )
    return canvases


def fit_to_box(
    frames: NDArray[np.uint8], *, image_size: int = 448, patch_size: int = 14
) -> NDArray[np.uint8]:
    """Each frame as the model sees it, without what surrounds it on the canvas.

    Args:
        frames: uint8 `(T, H, W, 3)`, RGB.

    Returns:
        uint8 `(T, h, w, 3)`, of the size of `content_box`.

    Raises:
        ValueError: The canvas is no whole number of cells.
    """
    height, width = frames.shape[1:3]
    top, bottom, left, right = content_box(
        width, height, image_size=image_size, patch_size=patch_size
    )
    return np.stack([_resize(frame, right - left, bottom - top) for frame in frames])


def _resize(frame: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Antialiased bicubic, width first and height after it, rounded to uint8 in between.

    Two calls, because from Pillow 13 on one call chooses the order of the passes itself, and
    on tall frames comes out up to 22 grey levels away from what the model was trained on.
    """
    image = Image.fromarray(np.ascontiguousarray(frame))
    image = image.resize((width, image.height), Image.Resampling.BICUBIC)
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
