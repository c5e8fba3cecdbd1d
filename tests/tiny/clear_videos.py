"""Unambiguous videos as `Frames`, without file or codec."""

from dataclasses import replace

import numpy as np

from pandacli.video import Frames, VideoInfo
from tests.tiny.renderers import draw
from tests.tiny.synthetic_videos import Actor, SyntheticVideo

_FRAMES = 8
_MIDDLE, _LEFT, _RIGHT, _TOP, _BOTTOM = (0.5, 0.5), (0.2, 0.5), (0.8, 0.5), (0.5, 0.2), (0.5, 0.8)
_MEDIUM, _SMALL, _LARGE = (0.16, 0.16), 0.08, 0.24


def video(actor: Actor, background: str) -> SyntheticVideo:
    """A video of one shape, four seconds long."""
    return SyntheticVideo((actor,), background, 0.0, "pure", 320, 240, 25, 4.0)


VIDEOS = tuple(
    video(actor, background)
    for background, actor in (
        ("black", Actor("red", "circle", "right", _LEFT, _RIGHT, _MEDIUM)),
        ("gray", Actor("blue", "square", "left", _RIGHT, _LEFT, _MEDIUM)),
        ("white", Actor("red", "square", "up", _BOTTOM, _TOP, _MEDIUM)),
        ("dark gray", Actor("yellow", "circle", "down", _TOP, _BOTTOM, _MEDIUM)),
        ("black", Actor("cyan", "square", "grows", _MIDDLE, _MIDDLE, (_SMALL, _LARGE))),
        ("gray", Actor("yellow", "circle", "shrinks", _MIDDLE, _MIDDLE, (_LARGE, _SMALL))),
        ("black", Actor("blue", "circle", "appears", _MIDDLE, _MIDDLE, _MEDIUM, (0.5, 1.1))),
        ("gray", Actor("red", "square", "disappears", _MIDDLE, _MIDDLE, _MEDIUM, (0.0, 0.5))),
        ("black", Actor("cyan", "circle", "still", _MIDDLE, _MIDDLE, _MEDIUM)),
    )
)


def frames_of(video: SyntheticVideo, renderer: str = "pillow smooth") -> Frames:
    """Eight evenly spaced frames, from the first to the last."""
    times = np.linspace(0, 1, _FRAMES)
    pixels = np.stack(list(draw(video, renderer, times, np.random.default_rng(0))))
    count = video.frame_count
    indices = tuple(round(float(time) * (count - 1)) for time in times)
    timestamps = tuple(number / video.fps for number in range(count))
    info = VideoInfo(
        video.width, video.height, video.fps, count, video.seconds, "none", True, timestamps
    )
    return Frames(pixels, indices, tuple(timestamps[index] for index in indices), info)


def with_pixels(frames: Frames, pixels: np.ndarray) -> Frames:
    """The same frames with other pixels."""
    return replace(frames, pixels=np.ascontiguousarray(pixels))
