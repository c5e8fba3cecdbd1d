"""Convert decoded frames to RGB as a player shows them, and read images through Pillow.

Transparency is blended with white, anamorphic video resized to square pixels, and the container's
display matrix or the EXIF orientation applied. Pillow reads animated WebP and AVIF, with ticks of a
millisecond: FFmpeg does not animate WebP, and reads one tile of an AVIF without its transparency.
"""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

Picture = NDArray[np.uint8]

Orientation = tuple[int, int, int, int]
"""(a, b, c, d): pixel (x, y) is shown at (ax + cy, bx + dy), as in ISO/IEC 14496-12."""

_UPRIGHT: Orientation = (1, 0, 0, 1)
_EXIF_ORIENTATIONS: dict[int, Orientation] = {
    **{1: _UPRIGHT, 2: (-1, 0, 0, 1), 3: (-1, 0, 0, -1), 4: (1, 0, 0, -1)},
    **{5: (0, 1, 1, 0), 6: (0, 1, -1, 0), 7: (0, -1, -1, 0), 8: (0, -1, 1, 0)},
}
_EXIF_TAG = 0x0112
_BACKGROUND = 255
# matrix coefficients (ITU-T H.273) that FFmpeg converts to RGB, or that need no conversion
_CONVERTIBLE = {0, 1, 2, 4, 5, 6, 7, 9}
_DERIVED = 12  # matrix coefficients that follow from the colour primaries:
_BY_PRIMARIES = {1: 1, 4: 4, 5: 5, 6: 6, 7: 7, 9: 9}
_WIDE = {9, 10, 13, 14}
_BT709, _BT601, _BT2020 = 1, 5, 9
_HD_HEIGHT = 720
_TINY = 8
# frames of up to 10 ms are shown for 100 ms, as in browsers and in FFmpeg's GIF decoder
_MIN_DURATION, _DEFAULT_DURATION = 10, 100
_WEBP_FLAGS, _WEBP_ALPHA = 20, 0x10
_BOMB = re.compile(r"\((\d+) pixels\)")


class ConversionError(Exception):
    """A decoded picture that may not be what the stream holds."""


def frame_to_rgb(frame: Any, path: Path, pixel_aspect: Fraction) -> Picture:
    """Convert a PyAV frame to uint8 RGB `(H, W, 3)`; may raise a ConversionError."""
    try:
        picture, orientation = _rgb(frame), _orientation(frame, path)
    except (av.error.FFmpegError, OSError, ValueError):
        raise ConversionError("PyAV cannot convert this frame") from None
    if pixel_aspect != 1:
        picture = resize(picture, *square_size(frame.width, frame.height, pixel_aspect))
    return _orient(picture, orientation)


def square_size(width: int, height: int, pixel_aspect: Fraction) -> tuple[int, int]:
    """The size in square pixels: the side that is too short is enlarged."""
    if pixel_aspect > 1:
        return round(width * pixel_aspect), height
    return width, round(height / pixel_aspect)


def resize(picture: Picture, width: int, height: int) -> Picture:
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))


def has_odd_colours(matrix: int, primaries: int) -> bool:
    """Whether colours stored so can only be converted approximately."""
    return matrix not in _CONVERTIBLE and not (matrix == _DERIVED and primaries in _BY_PRIMARIES)


def _rgb(frame: Any) -> Picture:
    matrix, primaries = frame.colorspace, frame.color_primaries
    if matrix == _DERIVED and primaries in _BY_PRIMARIES:
        frame.colorspace = _BY_PRIMARIES[primaries]
    elif matrix not in _CONVERTIBLE:  # the nearest that FFmpeg can convert
        standard = _BT709 if frame.height >= _HD_HEIGHT else _BT601
        frame.colorspace = _BT2020 if {matrix, primaries} & _WIDE else standard
    if frame.format.has_palette or any(part.is_alpha for part in frame.format.components):
        rgba = frame.to_ndarray(format="rgba", interpolation="BICUBIC")
        if rgba[..., 3].min() < 255:
            return _blend(rgba)
    # bicubic chroma, as in FFmpeg's own conversion
    return np.asarray(frame.to_ndarray(format="rgb24", interpolation="BICUBIC"), np.uint8)


def _blend(rgba: Picture) -> Picture:
    """Blend `(H, W, 4)` with the background to `(H, W, 3)`."""
    alpha = rgba[..., 3:].astype(np.uint16)
    mixed = rgba[..., :3] * alpha + _BACKGROUND * (255 - alpha) + 127
    return np.asarray(mixed // 255, np.uint8)


def _orientation(frame: Any, path: Path) -> Orientation:
    # PyAV's side data keeps a frame alive until garbage collection, and how a decoder conceals
    # damage depends on the frames alive; so read the side data of a tiny copy.
    copy = frame.reformat(_TINY, _TINY, "gray8", interpolation="POINT")
    try:
        matrix = copy.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV 18 shows no side data of a frame with EXIF
        with suppress(Exception), _open_image(path) as image:  # it raises all kinds
            return _exif_orientation(image)
        return _EXIF_ORIENTATIONS[(1, 8, 3, 6)[round(frame.rotation / 90) % 4]]
    if matrix is None:
        return _UPRIGHT
    entries = np.frombuffer(matrix, np.int32).tolist()
    return entries[0], entries[1], entries[3], entries[4]


def _exif_orientation(image: Image.Image) -> Orientation:
    return _EXIF_ORIENTATIONS.get(image.getexif().get(_EXIF_TAG, 1), _UPRIGHT)


def _orient(picture: Picture, orientation: Orientation) -> Picture:
    """Rotate and mirror a picture by the one of eight orientations nearest to the given one."""
    a, b, c, d = orientation
    if a * d == b * c:  # singular, such as all zeros
        return picture
    across, down = a, d
    if abs(b) + abs(c) > abs(a) + abs(d):
        picture = picture.transpose(1, 0, 2)
        across, down = c, b
    return np.ascontiguousarray(picture[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1])


@contextmanager
def _open_image(path: Path | BytesIO) -> Iterator[Image.Image]:
    """Open an image in Pillow without its warnings; size and damage are checked elsewhere."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path) as image:
            yield image


def reads_avif() -> bool:
    """Whether this Pillow reads AVIF; its wheels do from version 11.3 on."""
    return bool(features.check("avif"))


def count_pixels(path: Path) -> int:
    """The number of pixels of an image by its header; 0 if Pillow cannot tell."""
    try:
        with _open_image(path) as image:
            return image.width * image.height
    except Image.DecompressionBombError as error:
        counted = _BOMB.search(str(error))
        return int(counted[1]) if counted else 10**9
    except Exception:
        return 0


@dataclass(frozen=True)
class Pages:
    width: int  # in pixels, before rotation
    height: int
    ticks: tuple[int, ...]  # start of each frame
    end: int  # of the last frame; 0 for a still picture
    claimed: int  # number of frames by the file's header


def read_pages(path: Path) -> Pages | None:
    """The frames of an image, up to the first damaged one; None if Pillow cannot read it."""
    ticks: list[int] = []
    with suppress(Exception):  # Pillow raises errors of any kind for damaged images
        for image, start, end in _pages(path):
            ticks.append(start)
            claimed = getattr(image, "n_frames", 1)
            (width, height), last = image.size, end
    if not ticks:
        return None
    return Pages(width, height, tuple(ticks), last if len(ticks) > 1 else 0, claimed)


def _pages(path: Path) -> Iterator[tuple[Image.Image, int, int]]:
    """The image at each of its frames, with the ticks at which the frame starts and ends."""
    end = 0
    with _open_image(_with_alpha(path)) as image:
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            image.load()
            duration = round(image.info.get("duration") or 0)
            start, end = end, end + (duration if duration > _MIN_DURATION else _DEFAULT_DURATION)
            yield image, start, end


def _with_alpha(path: Path) -> Path | BytesIO:
    """An image to open; WebP with its alpha flag set."""
    # without it, Pillow draws parts of an animation that no frame covers in black
    with path.open("rb") as file:
        start = file.read(_WEBP_FLAGS + 1)
    if start[:4] != b"RIFF" or start[8:16] != b"WEBPVP8X":
        return path
    content = bytearray(path.read_bytes())
    content[_WEBP_FLAGS] |= _WEBP_ALPHA
    return BytesIO(content)


class PillowSource:
    """The frames of an image, with the interface of `decoder.PyAVSource`."""

    damaged = interlaced = False

    def __init__(self, path: Path) -> None:
        self._path = path
        self._image: Image.Image | None = None

    def ticks(self, start: int | None = None) -> Iterator[int | None]:
        with suppress(Exception):  # at the first damaged frame
            for image, tick, _ in _pages(self._path):
                self._image = image
                if start is None or tick >= start:
                    yield tick

    def picture(self) -> Picture:
        image = self._image
        assert image is not None, "iterate over ticks first"
        transparent = image.has_transparency_data
        pixels = np.array(image.convert("RGBA" if transparent else "RGB"))
        return _orient(_blend(pixels) if transparent else pixels, _exif_orientation(image))
