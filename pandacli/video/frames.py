"""The frames of a clip that the model is shown, with when they happen."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pandacli.errors import UsageError
from pandacli.video.clip import Clip, format_time
from pandacli.video.info import VideoInfo, describe, timestamps
from pandacli.video.reader import decode, stack
from pandacli.video.sampling import sample_indices
from pandacli.video.stream import Stream, read_stream


@dataclass(frozen=True)
class Frames:
    """Frames sampled from a clip.

    Attributes:
        pixels: uint8 `(T, H, W, 3)`, RGB, upright.
        indices: Number of each frame in its file, from 0.
        times: When each is shown, in seconds from the beginning of the file.
        info: The facts about the file.
        notices: Sentences for the user about what is not as it should be; usually none.
    """

    pixels: NDArray[np.uint8]
    indices: tuple[int, ...]
    times: tuple[float, ...]
    info: VideoInfo
    notices: tuple[str, ...] = ()


def sample_frames(clip: Clip, num_frames: int = 8) -> Frames:
    """The frames of `clip` that the model looks at, one a second thinned to `num_frames`.

    Raises:
        ClipError: The file cannot be used, or no frame in it decodes.
        UsageError: The clip's range lies outside of the video, or `num_frames` is below one.
    """
    stream = read_stream(clip.path)
    announced = timestamps(stream, stream.ticks or [None] * stream.packet_count)
    guess = choose(clip, announced, stream.fps, num_frames) or [0]
    wanted = {0, *guess}
    reading = decode(stream, wanted, to_end=True)
    info = describe(stream, reading)
    indices = _chosen(clip, info, num_frames)
    while not reading.pictures.keys() >= set(indices):  # a frame that cannot be shown ends a video
        wanted |= {*indices}  # with those before, so that it ends there again
        reading = decode(stream, wanted, to_end=True, as_announced=reading.as_announced)
        info = describe(stream, reading)
        indices = _chosen(clip, info, num_frames)
    return Frames(
        pixels=stack([reading.pictures[index] for index in indices]),
        indices=tuple(indices),
        times=tuple(info.timestamps[index] for index in indices),
        info=info,
        notices=_notices(stream, info),
    )


def _chosen(clip: Clip, info: VideoInfo, num_frames: int) -> list[int]:
    indices = choose(clip, info.timestamps, info.fps, num_frames)
    if not indices:
        raise UsageError(
            f"the range asked for has no frame in it: {clip.path} "
            f"is {format_time(info.duration)} long",
            "choose --from and --to inside the video",
        )
    return indices


def choose(clip: Clip, times: Sequence[float], fps: float, num_frames: int) -> list[int]:
    """Numbers of the frames to look at inside the clip's range; none if it has no frame."""
    start = clip.start if clip.start is not None else -math.inf
    end = clip.end if clip.end is not None else math.inf
    inside = [number for number, time in enumerate(times) if start <= time < end]
    if not inside:
        return []
    return [inside[k] for k in sample_indices(fps, len(inside), num_frames)]


def _notices(stream: Stream, info: VideoInfo) -> tuple[str, ...]:
    promised = max(stream.claimed_count, stream.packet_count)
    if info.frame_count >= promised:
        return ()
    return (
        f"only {info.frame_count} of {promised} frames of {stream.path} can be decoded; "
        "the frames looked at are among those",
    )
