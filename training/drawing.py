"""Render scenes, as frames with the artefacts of cameras and codecs, or as a video file."""

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from training.scenes import Background, Scene, Shape

Frame = NDArray[np.uint8]

_SUBPIXEL_BITS = 4  # cv2 draws with coordinates in sixteenths of a pixel


def draw_frames(
    scene: Scene, times: list[float], rng: Generator, *, smooth: bool | None = None
) -> Frame:
    """Render a scene at some times.

    Args:
        scene: What to draw.
        times: Times, as fractions of the clip.
        rng: For the noise of the background.
        smooth: Whether edges are anti-aliased; random by default.

    Returns:
        uint8 (T, H, W, 3), RGB.
    """
    line = cv2.LINE_AA if (rng.random() < 0.6 if smooth is None else smooth) else cv2.LINE_8
    canvas = _draw_background(scene.background, scene.width, scene.height)
    still_noise = rng.random() < 0.5
    grain = _draw_grain(scene, rng) if scene.background.noise else None
    frames = []
    for time in times:
        frame = canvas.copy()
        if grain is not None:
            if not still_noise:
                grain = _draw_grain(scene, rng)
            frame = np.clip(frame.astype(np.int16) + grain, 0, 255).astype(np.uint8)
        for shape in scene.shapes:
            _draw_shape(frame, shape, time, line)
        frames.append(frame)
    return np.stack(frames)


def degrade(frames: Frame, rng: Generator) -> Frame:
    """Add random artefacts of cameras and codecs: blur, noise, exposure, block artefacts."""
    if rng.random() < 0.25:
        sigma = float(rng.uniform(0.4, 1.2)) * frames.shape[2] / 320
        frames = np.stack([cv2.GaussianBlur(frame, (0, 0), sigma) for frame in frames])
    if rng.random() < 0.25:
        gain, offset = rng.uniform(0.9, 1.05), rng.uniform(-8, 8)
        frames = np.clip(frames * np.float32(gain) + np.float32(offset), 0, 255).astype(np.uint8)
    if rng.random() < 0.2:
        noise = rng.normal(0, rng.uniform(1, 8), frames.shape).astype(np.int16)
        frames = np.clip(frames + noise, 0, 255).astype(np.uint8)
    if rng.random() < 0.7:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(18, 92))]
        frames = np.stack([_through_jpeg(frame, quality) for frame in frames])
    return frames


def write_clip(
    scene: Scene,
    path: Path,
    rng: Generator,
    *,
    codec: str = "libx264",
    quality: int = 23,
) -> None:
    """Render a whole scene and encode it.

    Args:
        scene: What to draw.
        path: The file; its suffix decides the container.
        rng: For the noise of the background.
        codec: libx264, libvpx-vp9 or mpeg4.
        quality: CRF for the first two, quantiser for mpeg4.
    """
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(scene.fps).limit_denominator(1001))
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height = scene.width // 2 * 2, scene.height // 2 * 2
        stream.pix_fmt = "yuv420p"
        stream.options = (
            {"qmin": str(quality), "qmax": str(quality)}
            if codec == "mpeg4"
            else {"crf": str(quality), "b": "0", "cpu-used": "8", "deadline": "realtime"}
            if codec == "libvpx-vp9"
            else {"crf": str(quality), "preset": "veryfast"}
        )
        every = scene.times(list(range(scene.frame_count)))
        smooth = bool(rng.random() < 0.6)
        noise_seed = int(rng.integers(2**32))
        for time in every:
            drawn = draw_frames(scene, [time], np.random.default_rng(noise_seed), smooth=smooth)[0]
            even = drawn[: stream.height, : stream.width]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(even))))
        container.mux(stream.encode())


def _draw_background(background: Background, width: int, height: int) -> Frame:
    if background.rgb == background.other:
        return np.full((height, width, 3), background.rgb, np.uint8)
    x = np.linspace(-0.5, 0.5, width, dtype=np.float32) * np.cos(background.angle)
    y = np.linspace(-0.5, 0.5, height, dtype=np.float32) * np.sin(background.angle)
    ramp = y[:, None] + x[None, :]
    ramp = (ramp - ramp.min()) / max(1e-6, float(ramp.max() - ramp.min()))
    near, far = (np.array(rgb, np.float32) for rgb in (background.rgb, background.other))
    blended: Frame = (near + ramp[..., None] * (far - near)).round().astype(np.uint8)
    return blended


def _draw_grain(scene: Scene, rng: Generator) -> NDArray[np.int16]:
    grain, background = scene.background.grain, scene.background
    size = (-(-scene.height // grain), -(-scene.width // grain), 3)
    noise = (rng.standard_normal(size, np.float32) * background.noise).astype(np.int16)
    if grain > 1:
        noise = noise.repeat(grain, 0).repeat(grain, 1)
    return noise[: scene.height, : scene.width]


def _draw_shape(frame: Frame, shape: Shape, time: float, line: int) -> None:
    opacity = shape.opacity(time)
    if opacity == 0:
        return
    height, width = frame.shape[:2]
    x, y, radius = shape.at(time)
    radius *= min(width, height)
    target = frame if opacity == 1 else frame.copy()
    points = outline_of(shape) * radius + (x * width, y * height)
    polygon = (points * 2**_SUBPIXEL_BITS).round().astype(np.int32)
    cv2.fillPoly(target, [polygon], shape.rgb, line, _SUBPIXEL_BITS)
    if shape.outline is not None:
        thickness = max(1, round(radius * 0.06))
        cv2.polylines(target, [polygon], True, shape.outline, thickness, line, _SUBPIXEL_BITS)
    if opacity < 1:
        cv2.addWeighted(target, opacity, frame, 1 - opacity, 0, frame)


def outline_of(shape: Shape) -> NDArray[np.float64]:
    """The corners of a shape of about unit radius, (points, 2), y pointing down."""
    kind, tallness = shape.kind, 1.0
    if kind == "circle":
        angles, radii = np.linspace(0, 2 * np.pi, 72, endpoint=False), np.ones(72)
    elif kind == "square":
        angles, radii = np.arange(4) * np.pi / 2 + np.pi / 4, np.ones(4)
    elif kind == "triangle":
        angles, radii = np.arange(3) * 2 * np.pi / 3 - np.pi / 2, np.ones(3)
        tallness = 0.8 + 0.45 * shape.form
    else:
        angles = np.arange(10) * np.pi / 5 - np.pi / 2
        radii = np.where(np.arange(10) % 2 == 0, 1.0, 0.36 + 0.2 * shape.form)
    x, y = radii * np.cos(angles), radii * np.sin(angles) * tallness
    cos, sin = np.cos(shape.turn), np.sin(shape.turn)
    return np.stack((x * cos - y * sin, x * sin + y * cos), 1)


def _through_jpeg(frame: Frame, quality: list[int]) -> Frame:
    _, encoded = cv2.imencode(".jpg", frame, quality)
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    if decoded is None:
        raise RuntimeError("a JPEG just written could not be read")
    return np.asarray(decoded, np.uint8)
