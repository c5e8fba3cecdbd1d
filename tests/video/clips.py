"""Small clips for the tests, each frame of which shows its number as a pattern of blocks.

PyAV writes them, so that the tests need no ffmpeg. A number survives compression, rotation (once
the frame is upright again) and any decoder's idea of colour.
"""

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import features

Picture = NDArray[np.uint8]

needs_avif = pytest.mark.skipif(not features.check("avif"), reason="this Pillow knows no AVIF")

COLUMNS, ROWS = 4, 3
WIDTH, HEIGHT = 96, 72


def numbered_picture(number: int, width: int = WIDTH, height: int = HEIGHT) -> Picture:
    """A picture of 4 by 3 blocks, dark or light: the bits of `number`, lowest first."""
    bits = np.array([number >> bit & 1 for bit in range(COLUMNS * ROWS)]).reshape(ROWS, COLUMNS)
    rows = np.arange(height) * ROWS // height
    columns = np.arange(width) * COLUMNS // width
    grey = np.where(bits[rows][:, columns], 220, 30).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def number_in(picture: Picture) -> int:
    """The number shown by an upright picture."""
    height, width = picture.shape[:2]
    y = (2 * np.arange(ROWS) + 1) * height // (2 * ROWS)
    x = (2 * np.arange(COLUMNS) + 1) * width // (2 * COLUMNS)
    bits = picture[y][:, x].mean(axis=2) > 125
    return sum(1 << bit for bit, light in enumerate(bits.reshape(-1)) if light)


def numbers_in(pictures: Iterable[Picture]) -> list[int]:
    """The number shown by each picture."""
    return [number_in(picture) for picture in pictures]


def write_clip(
    path: Path,
    count: int = 30,
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    rate: Fraction | int = 25,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    numbers: Sequence[int] | None = None,
    noise: bool = False,
    ticks: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, 1000),
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
    rotation: int = 0,
    interlaced: bool = False,
    prepare: Callable[[Any], None] | None = None,
) -> Path:
    """Write frames 0 to `count - 1` and return `path`.

    Args:
        numbers: What each frame carries instead of its own number.
        noise: Whether to strew the pictures with noise, so that every frame takes many bytes.
        ticks: When each frame is shown, in units of `time_base`; None for a constant rate.
        options: Of the encoder.
        muxer: Options of the container.
        rotation: What the file tells players to turn the frames by, in degrees.
        prepare: Called with the stream before the first frame.
    """
    with av.open(str(path), "w", options=muxer or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height = size
        stream.pix_fmt = pix_fmt
        if interlaced:
            stream.codec_context.flags |= 1 << 18 | 1 << 29  # interlaced DCT and motion
        if ticks is not None:
            stream.codec_context.time_base = time_base
        if rotation:
            stream.set_display_rotation(rotation)
        if prepare is not None:
            prepare(stream)
        for number in range(count):
            carried = number if numbers is None else numbers[number]
            picture = numbered_picture(carried, *size)
            if noise:
                grain = np.random.default_rng(number).integers(0, 30, picture.shape, np.uint8)
                picture = picture // 2 + grain
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if ticks is not None:
                frame.pts, frame.time_base = ticks[number], time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_sound(path: Path) -> Path:
    """Write a tenth of a second of silence."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 4800), np.float32), "fltp", "stereo")
        frame.sample_rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def copy_from(source: Path, target: Path, first_packet: int, *, before: int = 0) -> Path:
    """Copy the packets from number `first_packet` on, as `ffmpeg -c copy` cuts.

    Args:
        before: How many frames at the front are to be hidden by giving them negative times.
    """
    with av.open(str(source)) as whole, av.open(str(target), "w") as cut:
        stream = whole.streams.video[0]
        copy = cut.add_stream_from_template(stream)
        packets = [packet for packet in whole.demux(stream) if packet.size][first_packet:]
        shift = sorted(packet.pts for packet in packets)[before]
        for packet in packets:
            packet.pts -= shift
            packet.dts -= shift
            packet.stream = copy
            cut.mux(packet)
    return target


def cut_short(source: Path, target: Path, share: float) -> Path:
    """Copy the first `share` of a file's bytes, as in an incomplete download."""
    content = source.read_bytes()
    target.write_bytes(content[: int(len(content) * share)])
    return target


def damage(path: Path) -> Path:
    """Change some bytes in the middle third of a file."""
    content = bytearray(path.read_bytes())
    for at in range(len(content) // 3, len(content) * 2 // 3, 2999):
        content[at] ^= 0x55
    path.write_bytes(content)
    return path
