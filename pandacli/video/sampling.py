"""The frames of a clip that the model is shown, with when they happen.

Which frames of a video the model looks at: one a second, thinned to as many as it takes.

Video-Panda (arXiv 2412.18609) was trained with these positions, rounding included, so they are
kept to the letter; only where the original gives up with an exception do we go on.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median

import numpy as np
from numpy.typing import NDArray

from pandacli.errors import ClipError, UsageError
from pandacli.video.clip import Clip, format_time
from pandacli.video.decoder import Reading, decode, stack
from pandacli.video.info import VideoInfo, describe, is_joined, timestamps
from pandacli.video.stream import Stream, read_stream

SHORT_VIDEO_FRAMES = 8
"""A video with fewer one-a-second positions than this is sampled more densely instead. It does
not follow `num_frames`; it did not in training either."""


def sample_indices(fps: float, frame_count: int, num_frames: int = 8) -> list[int]:
    """Positions of the frames to look at, ascending.

    Args:
        fps: Average frame rate. A rate that says nothing (0.5 and below, NaN, infinite) samples
            every frame before thinning.
        frame_count: How many frames can be decoded.
        num_frames: How many frames are wanted; a shorter video gives all it has.

    Returns:
        At most `num_frames` indices in `range(frame_count)`.

    Raises:
        ClipError: There is no frame at all.
        UsageError: `num_frames` is less than one.
    """
    if num_frames < 1:
        raise UsageError(f"cannot look at {num_frames} frames", "ask for at least one")
    if frame_count <= 0:
        raise ClipError("the video has no frames")
    if frame_count == 1:
        return [0]
    seconds = range(0, frame_count, _stride(fps, frame_count))
    if len(seconds) > num_frames:
        return [seconds[j] for j in _spread(len(seconds), num_frames)]
    if len(seconds) >= SHORT_VIDEO_FRAMES:
        return list(seconds)
    return _thin(_sample_short(frame_count), num_frames)


def _stride(fps: float, frame_count: int) -> int:
    """Frames in a second, rounded half to even as in training (12.5 gives 12)."""
    if not math.isfinite(fps):
        return 1
    if fps < 0:
        # The original finds no one-a-second position at all here and treats the video as short.
        return frame_count
    return max(1, round(fps))


def _spread(length: int, count: int) -> list[int]:
    """`count` positions from 0 to `length - 1`, both included, rounded down.

    The step is a float64 and is multiplied, not added up: that decides which way a position
    falls that is whole in theory. The last one is set, not computed.
    """
    if count == 1:
        return [0]
    step = (length - 1) / (count - 1)
    return [int(k * step) for k in range(count - 1)] + [length - 1]


def _sample_short(frame_count: int) -> list[int]:
    """Up to eight positions a whole number of frames apart, from the first frame on."""
    count = min(SHORT_VIDEO_FRAMES, frame_count)
    stride = max(1, (frame_count - 1) // (count - 1))
    return [k * stride for k in range(count)]


def _thin(indices: list[int], count: int) -> list[int]:
    """At most `count` of the indices, a whole number apart, from the first on."""
    count = min(count, len(indices))
    stride = len(indices) // count
    return indices[: count * stride : stride]


_AS_SHOWN = 0.0005
"""Seconds: times are shown to the millisecond, and a time that was shown means its frame."""


@dataclass(frozen=True)
class Frames:
    """Frames sampled from a clip.

    Attributes:
        pixels: uint8 `(T, H, W, 3)`, RGB, upright, of square pixels.
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
        damaged = reading.damaged
        reading = decode(stream, wanted, to_end=True, as_announced=reading.as_announced)
        reading = replace(reading, damaged=reading.damaged or damaged)
        info = describe(stream, reading)
        indices = _chosen(clip, info, num_frames)
    return Frames(
        pixels=stack([reading.pictures[index] for index in indices]),
        indices=tuple(indices),
        times=tuple(info.timestamps[index] for index in indices),
        info=info,
        notices=tuple(_notices(stream, reading)),
    )


def _chosen(clip: Clip, info: VideoInfo, num_frames: int) -> list[int]:
    indices = choose(clip, info.timestamps, info.fps, num_frames, info.duration)
    if indices:
        return indices
    first = info.timestamps[0]
    if clip.end is not None and clip.end <= first:
        raise UsageError(
            f"the range ends at {format_time(clip.end)}, before the first frame "
            f"(the clip begins at {format_time(first)})"
        )
    raise UsageError(
        f"the range starts at {format_time(clip.start or 0.0)}, past the end "
        f"(the clip is {format_time(info.duration)} long)"
    )


def choose(
    clip: Clip, times: Sequence[float], fps: float, num_frames: int, duration: float = math.inf
) -> list[int]:
    """Numbers of the frames to look at, of those that are on the screen in the clip's range.

    Args:
        clip: The range.
        times: When each frame appears; it stays until the next one does.
        fps: Average frame rate.
        num_frames: How many to look at.
        duration: When the last frame goes.

    Returns:
        The numbers, ascending; none if no frame is on the screen then.
    """
    first, last = 0, len(times)
    if clip.start is not None:
        if clip.start >= duration:
            return []
        first = max(0, bisect_right(times, clip.start + _AS_SHOWN) - 1)
    if clip.end is not None:
        last = bisect_left(times, clip.end)
    if first >= last:
        return []
    return [first + k for k in sample_indices(fps, last - first, num_frames)]


def _notices(stream: Stream, reading: Reading) -> Iterator[str]:
    count, packets = len(reading.ticks), stream.packet_count
    if reading.interlaced:
        packets -= _second_fields(stream, reading)
    promised = max(stream.claimed_count, packets)
    if count < promised:
        yield (
            f"only {count} of {promised} frames of {stream.path} can be decoded; "
            "the frames looked at are among those"
        )
    elif reading.damaged:
        yield f"{stream.path} is damaged: some frames may not look as they should"
    if stream.odd_colours:
        yield f"{stream.path} stores colours in a rare way: those looked at are approximate"
    if is_joined(stream, reading.ticks):
        yield (
            f"the clock of {stream.path} is set back on the way, as in recordings that were "
            "joined; times are counted on from there"
        )


def _second_fields(stream: Stream, reading: Reading) -> int:
    """How many packets hold only the second field of a frame: two packets make up such a frame.

    Such packets follow each other at half the distance of frames.
    """
    frames = [tick for tick in reading.ticks if tick is not None]
    if stream.ticks is None or len(frames) < 2:  # no times: only if all packets seem to be fields
        count, packets = len(reading.ticks), stream.packet_count
        return packets - count if abs(2 * count - packets) <= max(2, packets // 32) else 0
    usual = median(after - before for before, after in pairwise(frames))
    steps = [after - before for before, after in pairwise(stream.ticks)]
    return (sum(0.4 * usual <= step <= 0.6 * usual for step in steps) + 1) // 2
