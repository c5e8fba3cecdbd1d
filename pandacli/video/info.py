"""The facts about a video: how long, how large, how many frames, and when each is shown."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from pandacli.video.reader import Reading, decode
from pandacli.video.stream import Stream, read_stream


@dataclass(frozen=True)
class VideoInfo:
    """Facts about a video file.

    Attributes:
        width, height: Size of a frame in pixels, upright.
        fps: Average frame rate.
        frame_count: How many frames can be decoded.
        duration: Seconds from the beginning of the file to the end of the last frame.
        codec: FFmpeg's name of the codec, "h264".
        constant_rate: Whether every frame is shown equally long.
        timestamps: When each frame is shown, in seconds from the beginning of the file, as the
            stream itself says.
    """

    width: int
    height: int
    fps: float
    frame_count: int
    duration: float
    codec: str
    constant_rate: bool
    timestamps: tuple[float, ...]


def probe(path: str | os.PathLike[str]) -> VideoInfo:
    """The facts about the video at `path`.

    Raises:
        ClipError: The file cannot be used, or no frame in it decodes.
    """
    stream = read_stream(path)
    return describe(stream, decode(stream, {0}, to_end=True))


def describe(stream: Stream, reading: Reading) -> VideoInfo:
    """The facts about a stream, once it is known what decodes; `reading` has frame 0."""
    height, width = reading.pictures[0].shape[:2]
    times = timestamps(stream, reading.ticks)
    steps = [after - before for before, after in pairwise(times)]
    spell = times[-1] - times[0]
    fps = stream.fps or (len(steps) / spell if spell > 0 else 0.0)
    usual_step = median(steps) if steps else (1 / fps if fps else 0.0)
    return VideoInfo(
        width=width,
        height=height,
        fps=fps,
        frame_count=len(times),
        duration=times[-1] + usual_step,
        codec=stream.codec,
        constant_rate=not steps or max(steps) - min(steps) <= 1.5 * float(stream.time_base),
        timestamps=times,
    )


def timestamps(stream: Stream, ticks: Sequence[int | None]) -> tuple[float, ...]:
    """Seconds from the beginning of the file, ascending.

    Where the frames have no times, or times that go back, they are counted out at the stream's
    frame rate.
    """
    if stream.ticks is not None and len(ticks) == len(stream.ticks):
        # In AVI the packets' times are right as a set, but a decoder may hand them out wrongly.
        ticks = stream.ticks
    known = [tick for tick in ticks if tick is not None]
    if len(known) < len(ticks) or any(after <= before for before, after in pairwise(known)):
        return tuple(number / (stream.fps or 1.0) for number in range(len(ticks)))
    over, under = stream.time_base.as_integer_ratio()  # a Fraction for each would take longest here
    return tuple((tick - stream.zero) * over / under for tick in known)
