"""Four renderers of synthetic videos, and four video writers."""

from collections.abc import Callable, Iterator
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tests.tiny.synthetic_videos import BACKGROUNDS, PALETTES, RGB, SyntheticVideo

Picture = NDArray[np.uint8]
Renderer = Callable[[Picture, str, RGB, float, float, float], Picture]


def draw(
    video: SyntheticVideo, renderer: str, times: NDArray[np.float64], rng: Generator
) -> Iterator[Picture]:
    """Render RGB frames, uint8 (H, W, 3), at times from 0 to 1."""
    backdrop = _backdrop(video)
    for time in times:
        picture = backdrop
        for actor in video.actors:
            x, y, radius = actor.at(float(time))
            if radius:
                place = (x * video.width, y * video.height, radius * video.height)
                colour = PALETTES[video.palette][actor.colour]
                picture = RENDERERS[renderer](picture, actor.kind, colour, *place)
        if video.noise:
            grain = rng.normal(0, video.noise, picture.shape[:2])[..., None]
            picture = np.clip(picture + grain, 0, 255).astype(np.uint8)
        yield picture


def all_times(video: SyntheticVideo) -> NDArray[np.float64]:
    """The time of each frame of a video, from 0 to 1."""
    return np.linspace(0, 1, video.frame_count)


def _backdrop(video: SyntheticVideo) -> Picture:
    top, bottom, _ = BACKGROUNDS[video.background]
    share = np.linspace(0, 1, video.height)[:, None, None]
    column = np.asarray(top) * (1 - share) + np.asarray(bottom) * share
    return np.broadcast_to(column, (video.height, video.width, 3)).astype(np.uint8)


def _pillow(p: Picture, kind: str, colour: RGB, x: float, y: float, r: float) -> Picture:
    image = Image.fromarray(p)
    _pillow_shape(ImageDraw.Draw(image), kind, colour, x, y, r)
    return np.asarray(image)


def _pillow_smooth(p: Picture, kind: str, colour: RGB, x: float, y: float, r: float) -> Picture:
    """Antialiased by a mask of four times the size."""
    height, width = p.shape[:2]
    left, top = max(0, int(x - r - 2)), max(0, int(y - r - 2))
    right, bottom = min(width, int(x + r + 3)), min(height, int(y + r + 3))
    size = (right - left, bottom - top)
    mask = Image.new("L", (size[0] * 4, size[1] * 4), 0)
    _pillow_shape(ImageDraw.Draw(mask), kind, 255, (x - left) * 4, (y - top) * 4, r * 4)
    image = Image.fromarray(p)
    image.paste(colour, (left, top, right, bottom), mask.resize(size, Image.Resampling.LANCZOS))
    return np.asarray(image)


def _pillow_shape(
    pen: ImageDraw.ImageDraw, kind: str, fill: RGB | int, x: float, y: float, r: float
) -> None:
    if kind == "circle":
        pen.ellipse((x - r, y - r, x + r, y + r), fill=fill)
    elif kind == "square":
        pen.rectangle((x - r, y - r, x + r, y + r), fill=fill)
    elif kind == "triangle":  # fills its box
        pen.polygon([(x, y - r), (x + r, y + r), (x - r, y + r)], fill=fill)
    else:
        pen.polygon(_star(x, y, r, 0.45), fill=fill)


def _opencv(p: Picture, kind: str, colour: RGB, x: float, y: float, r: float) -> Picture:
    """Whole pixels, no antialiasing."""
    canvas = p.copy()
    cx, cy, size = int(x), int(y), int(r)
    if kind == "circle":
        cv2.circle(canvas, (cx, cy), size, colour, -1)
    elif kind == "square":
        cv2.rectangle(canvas, (cx - size, cy - size), (cx + size, cy + size), colour, -1)
    else:
        corners = _star(cx, cy, size, 0.4) if kind == "star" else _triangle(cx, cy, size)
        cv2.fillPoly(canvas, [np.array(corners, np.int32)], colour)
    return canvas


def _distance(p: Picture, kind: str, colour: RGB, x: float, y: float, r: float) -> Picture:
    """Blend by the signed distance from the outline, as shaders do."""
    v, u = np.mgrid[: p.shape[0], : p.shape[1]].astype(np.float64)
    u, v = u + 0.5 - x, v + 0.5 - y
    if kind == "circle":
        distance = np.hypot(u, v) - r
    elif kind == "square":
        distance = np.maximum(np.abs(u), np.abs(v)) - 0.88 * r
    elif kind == "triangle":
        distance = np.maximum(np.abs(u) * 0.866 - v * 0.5, v) - 0.5 * r
    else:
        sector = np.pi / 5
        angle = np.abs((np.arctan2(u, -v) + sector) % (2 * sector) - sector)
        length = np.hypot(u, v)
        tip, notch = r, 0.4 * r
        # the straight line from a tip to the notch beside it
        edge = np.array([notch * np.cos(sector) - tip, notch * np.sin(sector)])
        normal = np.array([edge[1], -edge[0]]) / np.hypot(*edge)
        distance = (length * np.cos(angle) - tip) * normal[0] + length * np.sin(angle) * normal[1]
        distance = -distance if normal[0] < 0 else distance
    cover = np.clip(0.5 - distance, 0, 1)[..., None]
    blended: Picture = np.rint(p * (1 - cover) + np.asarray(colour) * cover).astype(np.uint8)
    return blended


def _star(x: float, y: float, r: float, inner: float) -> list[tuple[float, float]]:
    turns = np.arange(10) * np.pi / 5
    reach = np.where(np.arange(10) % 2 == 0, r, r * inner)
    return list(zip(x + reach * np.sin(turns), y - reach * np.cos(turns), strict=True))


def _triangle(x: float, y: float, r: float) -> list[tuple[float, float]]:
    return [(x + r * np.sin(a), y - r * np.cos(a)) for a in (0, 2 * np.pi / 3, 4 * np.pi / 3)]


RENDERERS: dict[str, Renderer] = {
    "pillow": _pillow,
    "pillow smooth": _pillow_smooth,
    "opencv": _opencv,
    "distance": _distance,
}

WRITERS = ("mp4v", "libx264", "libx264", "libvpx-vp9")


def save(pictures: Iterator[Picture], video: SyntheticVideo, writer: str, stem: Path) -> Path:
    """Write a video at `stem` plus the suffix of the format."""
    if writer == "mp4v":
        path = stem.with_suffix(".mp4")
        fourcc = cv2.VideoWriter.fourcc(*writer)
        out = cv2.VideoWriter(str(path), fourcc, video.fps, (video.width, video.height))
        assert out.isOpened()
        for picture in pictures:
            out.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        out.release()
        return path
    path = stem.with_suffix(".mp4" if writer == "libx264" else ".webm")
    with av.open(str(path), "w") as container:
        fast = {"preset": "veryfast"} if writer == "libx264" else {"deadline": "realtime"}
        stream = container.add_stream(writer, rate=video.fps, options={"crf": "25", **fast})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = video.width, video.height, "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path
