"""Images through Pillow: animated WebP and AVIF, which FFmpeg does not read or reads in part.

FFmpeg knows no animation in WebP, and of an AVIF it gives one tile of several and no transparency.
A tick is a millisecond. Of what Pillow raises for damaged images nothing is too odd to be expected.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, features

from pandacli.video.pictures import (
    Picture,
    exif_turn,
    on_background,
    open_image,
    turned,
)

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
