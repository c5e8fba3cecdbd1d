"""From a decoded frame to the picture that a player shows: RGB, opaque, in shape and upright.

* Colours that FFmpeg cannot convert are taken for the nearest that it can.
* What is transparent shows white, in every format.
* Pixels that are not square (anamorphic video) are brought into shape.
* The display matrix of the container, or EXIF's orientation, is applied, mirrorings included.

Images through Pillow: animated WebP and AVIF, which FFmpeg does not read or reads in part.

FFmpeg knows no animation in WebP, and of an AVIF it gives one tile of several and no transparency.
A tick is a millisecond. Of what Pillow raises for damaged images nothing is too odd to be expected.
"""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

if TYPE_CHECKING:
    from pandacli.video.stream import Stream

Picture = NDArray[np.uint8]

Turn = tuple[int, int, int, int]
"""(a, b, c, d): what is at (x, y) is shown at (ax + cy, bx + dy), as in ISO/IEC 14496-12."""

UPRIGHT: Turn = (1, 0, 0, 1)
EXIF_TURNS: dict[int, Turn] = {
    1: UPRIGHT,
    2: (-1, 0, 0, 1),
    3: (-1, 0, 0, -1),
    4: (1, 0, 0, -1),
    5: (0, 1, 1, 0),
    6: (0, 1, -1, 0),
    7: (0, -1, -1, 0),
    8: (0, -1, 1, 0),
}
_ORIENTATION = 0x0112
_BACKGROUND = 255
"""White: most of what is drawn on nothing is drawn for a page."""
_CONVERTIBLE = {0, 1, 2, 4, 5, 6, 7, 9}
"""Matrix coefficients (ITU-T H.273) that FFmpeg converts to RGB, or that need no conversion."""
_BY_PRIMARIES = {1: 1, 4: 4, 5: 5, 6: 6, 7: 7, 9: 9}
"""The matrix that follows from colour primaries, for matrix coefficients 12."""
_DERIVED, _WIDE = 12, {9, 10, 13, 14}
_TINY = 8
_BT709, _BT601, _BT2020 = 1, 5, 9
_HD_HEIGHT = 720


class DoubtfulPictureError(Exception):
    """A decoder's picture that may not be what the stream holds."""


def picture_of(frame: Any, stream: "Stream") -> Picture:
    """A frame of PyAV's as a player shows it: uint8 `(H, W, 3)`, RGB.

    Raises:
        DoubtfulPictureError: It cannot be converted.
    """
    try:
        rgb, turn = _rgb(frame), _turn(frame, stream)
    except (av.error.FFmpegError, OSError, ValueError):
        raise DoubtfulPictureError("PyAV cannot convert this frame") from None
    return turned(_in_shape(rgb, stream.pixel_aspect), turn)


def has_odd_colours(matrix: int, primaries: int) -> bool:
    """Whether colours so stored can only be approximated."""
    return matrix not in _CONVERTIBLE and not (matrix == _DERIVED and primaries in _BY_PRIMARIES)


def turned(picture: Picture, turn: Turn) -> Picture:
    """A picture turned and mirrored, by whichever of the eight ways is nearest to `turn`."""
    a, b, c, d = turn
    if a * d == b * c:  # such as all zeros: it says nothing
        return picture
    if abs(b) + abs(c) > abs(a) + abs(d):
        picture = picture.transpose(1, 0, 2)
        across, down = c, b
    else:
        across, down = a, d
    return np.ascontiguousarray(picture[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1])


def on_background(rgba: Picture) -> Picture:
    """(H, W, 4) to (H, W, 3): a picture laid on the background."""
    alpha = rgba[..., 3:].astype(np.uint16)
    mixed = rgba[..., :3] * alpha + _BACKGROUND * (255 - alpha) + 127
    return np.asarray(mixed // 255, np.uint8)


def exif_turn(image: Image.Image) -> Turn:
    """How an image is to be turned according to its EXIF data."""
    return EXIF_TURNS.get(image.getexif().get(_ORIENTATION, 1), UPRIGHT)


@contextmanager
def open_image(path: Path | BytesIO) -> Iterator[Image.Image]:
    """An image in Pillow, without its warnings of size and damage: both are judged elsewhere."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path) as image:
            yield image


def _rgb(frame: Any) -> Picture:
    matrix, primaries = frame.colorspace, frame.color_primaries
    if matrix not in _CONVERTIBLE:
        if matrix == _DERIVED and primaries in _BY_PRIMARIES:
            frame.colorspace = _BY_PRIMARIES[primaries]
        elif matrix in _WIDE or primaries in _WIDE:
            frame.colorspace = _BT2020
        else:
            frame.colorspace = _BT709 if frame.height >= _HD_HEIGHT else _BT601
    if _may_be_clear(frame.format):
        rgba = frame.to_ndarray(format="rgba", interpolation="BICUBIC")
        if rgba[..., 3].min() < 255:
            return on_background(rgba)
    # Bicubic for the colour planes, as in FFmpeg's own conversion.
    return np.asarray(frame.to_ndarray(format="rgb24", interpolation="BICUBIC"), np.uint8)


def _may_be_clear(form: Any) -> bool:
    return form.has_palette or any(component.is_alpha for component in form.components)


def _in_shape(picture: Picture, pixel_aspect: Fraction) -> Picture:
    """A picture with square pixels: drawn out on the side that is too short, so nothing is lost."""
    if pixel_aspect == 1:
        return picture
    height, width = picture.shape[:2]
    size = (
        (round(width * pixel_aspect), height)
        if pixel_aspect > 1
        else (width, round(height / pixel_aspect))
    )
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))


def _turn(frame: Any, stream: "Stream") -> Turn:
    # PyAV's side data keeps a frame alive until garbage is collected, and what a decoder puts into
    # the gaps of damaged frames depends on which are alive. So look at that of a tiny copy.
    copy = frame.reformat(_TINY, _TINY, "gray8", interpolation="POINT")
    try:
        matrix = copy.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV 18 knows no EXIF, and shows none of a frame's side data beside it
        with suppress(Exception), open_image(stream.path) as image:  # it raises all kinds
            return exif_turn(image)
        return EXIF_TURNS[(1, 8, 3, 6)[round(frame.rotation / 90) % 4]]
    if matrix is None:
        return UPRIGHT
    entries = np.frombuffer(matrix, np.int32).tolist()
    return entries[0], entries[1], entries[3], entries[4]


_SHORTEST, _USUAL = 10, 100
"""Frames of up to 10 ms are shown for 100, as browsers do it and FFmpeg does it for GIF."""
_WEBP_FLAGS, _WEBP_ALPHA = 20, 0x10
_BOMB = re.compile(r"\((\d+) pixels\)")


@dataclass(frozen=True)
class Pages:
    """The frames of an image file.

    Attributes:
        width, height: Size in pixels, before any rotation.
        ticks: When each frame begins.
        end: When the last one ends; 0 for a still picture.
        claimed: How many frames the file says that it has.
    """

    width: int
    height: int
    ticks: tuple[int, ...]
    end: int
    claimed: int


def read_pages(path: Path) -> Pages | None:
    """The frames of an image, up to where it is damaged; None where Pillow cannot read it."""
    ticks: list[int] = []
    end = 0
    try:
        with open_image(_with_alpha(path)) as image:
            width, height = image.size
            claimed = getattr(image, "n_frames", 1)
            for number in range(claimed):
                image.seek(number)
                image.load()
                ticks.append(end)
                duration = round(image.info.get("duration") or 0)
                end += duration if duration > _SHORTEST else _USUAL
    except Exception:
        if not ticks:
            return None
    return Pages(width, height, tuple(ticks), end if len(ticks) > 1 else 0, claimed)


def reads_avif() -> bool:
    """Whether this Pillow reads AVIF; the wheels do from version 11.3 on."""
    return bool(features.check("avif"))


def count_pixels(path: Path) -> int:
    """How many pixels an image has, by its header; 0 where Pillow cannot tell."""
    try:
        with open_image(path) as image:
            return image.width * image.height
    except Image.DecompressionBombError as error:
        counted = _BOMB.search(str(error))
        return int(counted[1]) if counted else 10**9
    except Exception:
        return 0


class PillowSource:
    """A decoder (`sources.Source`) of images."""

    def __init__(self, path: Path, ticks: tuple[int, ...]) -> None:
        self._path, self._ticks = path, ticks
        self._image: Image.Image | None = None
        self.damaged = self.interlaced = False

    def walk(self, start: int | None = None) -> Iterator[int | None]:
        with open_image(_with_alpha(self._path)) as image:
            self._image = image
            for number, tick in enumerate(self._ticks):
                try:
                    image.seek(number)
                    image.load()
                except Exception:
                    return
                if start is None or tick >= start:
                    yield tick

    def picture(self) -> Picture:
        if self._image is None:
            raise RuntimeError("walk first")
        image = self._image
        clear = image.has_transparency_data
        pixels = np.array(image.convert("RGBA" if clear else "RGB"))
        return turned(on_background(pixels) if clear else pixels, exif_turn(image))


def _with_alpha(path: Path) -> Path | BytesIO:
    """An image to open; a WebP as one that says that it has transparency.

    Where no frame of an animation has any, what none covers is still transparent, and Pillow would
    make it black.
    """
    with path.open("rb") as file:
        start = file.read(_WEBP_FLAGS + 1)
    if start[:4] != b"RIFF" or start[8:16] != b"WEBPVP8X":
        return path
    content = bytearray(path.read_bytes())
    content[_WEBP_FLAGS] |= _WEBP_ALPHA
    return BytesIO(content)
