"""The frames of a clip that the model is shown, with when they happen."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pandacli.errors import UsageError
from pandacli.video.clip import Clip, format_time
from pandacli.video.info import VideoInfo, describe
from pandacli.video.reader import decode, stack
from pandacli.video.sampling import sample_indices
from pandacli.video.stream import read_stream


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
    reading = decode(stream, {0}, to_end=True)
    info = describe(stream, reading)
    indices = choose(info, clip, num_frames)
    pictures = decode(stream, set(indices), to_end=False).pictures
    return Frames(
        pixels=stack(pictures[index] for index in indices),
        indices=tuple(indices),
        times=tuple(info.timestamps[index] for index in indices),
        info=info,
    )


def choose(info: VideoInfo, clip: Clip, num_frames: int) -> list[int]:
    """Numbers of the frames to look at inside the clip's range."""
    start = clip.start or 0.0
    end = clip.end if clip.end is not None else float("inf")
    inside = [i for i, time in enumerate(info.timestamps) if start <= time < end]
    if not inside:
        raise UsageError(
            f"there is no frame in the range asked for; {clip.path} is "
            f"{format_time(info.duration)} long",
        )
    return [inside[k] for k in sample_indices(info.fps, len(inside), num_frames)]
