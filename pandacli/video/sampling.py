"""Sample the frames of a clip that the model sees: one per second, thinned to a fixed number.

The positions are those of Video-Panda's training (arXiv 2412.18609), rounding included. Only where
the original raises an exception is a result given here.
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
from pandacli.video.decoder import Decoded, decode, stack
from pandacli.video.info import VideoInfo, is_joined, timestamps, video_info
from pandacli.video.stream import Stream, read_stream

SHORT_VIDEO_FRAMES = 8
"""A video with fewer one-per-second positions is sampled more densely; as in training, whatever
`num_frames` is."""

_SHOWN_PRECISION = 0.0005
"""Seconds: times are shown rounded to milliseconds, and such a time means its frame."""


def sample_indices(fps: float, frame_count: int, num_frames: int = 8) -> list[int]:
    """Positions of the frames to sample, ascending.

    Args:
        fps: Average frame rate. Without a usable one (0.5 and below, NaN, infinite), every frame is
            a candidate before thinning.
        frame_count: Number of frames that decode.
        num_frames: Number of frames wanted; a shorter video gives all it has.

    Returns:
        At most `num_frames` indices in `range(frame_count)`.

    Raises:
        ClipError: There is no frame.
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
    """Frames per second, rounded half to even as in training (12.5 gives 12)."""
    if not math.isfinite(fps):
        return 1
    if fps < 0:
        # the original finds no position and treats the video as short
        return frame_count
    return max(1, round(fps))


def _spread(length: int, count: int) -> list[int]:
    """`count` positions from 0 to `length - 1`, both included, rounded down as `linspace` does.

    The step is multiplied, not accumulated: rounding errors decide some positions.
    """
    if count == 1:
        return [0]
    step = (length - 1) / (count - 1)
    return [int(k * step) for k in range(count - 1)] + [length - 1]


def _sample_short(frame_count: int) -> list[int]:
    """Up to eight positions with a whole stride, from the first frame on."""
    count = min(SHORT_VIDEO_FRAMES, frame_count)
    stride = max(1, (frame_count - 1) // (count - 1))
    return [k * stride for k in range(count)]


def _thin(indices: list[int], count: int) -> list[int]:
    """At most `count` of the indices with a whole stride, from the first on."""
    count = min(count, len(indices))
    stride = len(indices) // count
    return indices[: count * stride : stride]


@dataclass(frozen=True)
class Frames:
    """Frames sampled from a clip.

    Attributes:
        pixels: uint8 `(T, H, W, 3)`, RGB, upright, of square pixels.
        indices: Number of each frame in its file, from 0.
        times: Time of each frame, in seconds from the beginning of the file.
        info: Facts about the file.
        notices: Warnings for the user, such as of damage; usually none.
    """

    pixels: NDArray[np.uint8]
    indices: tuple[int, ...]
    times: tuple[float, ...]
    info: VideoInfo
    notices: tuple[str, ...] = ()


def sample_frames(clip: Clip, num_frames: int = 8) -> Frames:
    """Decode the frames of `clip` that the model sees, one per second thinned to `num_frames`.

    Raises:
        ClipError: The file cannot be used, or no frame in it decodes.
        UsageError: The clip's range lies outside the video, or `num_frames` is below one.
    """
    stream = read_stream(clip.path)
    expected = timestamps(stream, stream.ticks or [None] * stream.packet_count)
    wanted = {0, *choose_indices(clip, expected, stream.fps, num_frames)}
    decoded = decode(stream, wanted, to_end=True)
    info = video_info(stream, decoded)
    indices = _choose_or_explain(clip, info, num_frames)
    while not decoded.pictures.keys() >= set(indices):  # the index was wrong
        wanted |= {*indices}  # keeps a frame that cannot be converted, which ends the video
        damaged = decoded.damaged
        decoded = decode(stream, wanted, to_end=True, trust_index=decoded.matches_index)
        decoded = replace(decoded, damaged=decoded.damaged or damaged)
        info = video_info(stream, decoded)
        indices = _choose_or_explain(clip, info, num_frames)
    return Frames(
        pixels=stack([decoded.pictures[index] for index in indices]),
        indices=tuple(indices),
        times=tuple(info.timestamps[index] for index in indices),
        info=info,
        notices=tuple(_notices(stream, decoded)),
    )


def _choose_or_explain(clip: Clip, info: VideoInfo, num_frames: int) -> list[int]:
    indices = choose_indices(clip, info.timestamps, info.fps, num_frames, info.duration)
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


def choose_indices(
    clip: Clip, times: Sequence[float], fps: float, num_frames: int, duration: float = math.inf
) -> list[int]:
    """Sample frame numbers among those shown in the range of a clip.

    Args:
        clip: The clip.
        times: Time of each frame, which is shown until that of the next.
        fps: Average frame rate.
        num_frames: Number of frames wanted.
        duration: End of the last frame.

    Returns:
        The numbers, ascending; empty if no frame is shown in the range.
    """
    first, last = 0, len(times)
    if clip.start is not None:
        if clip.start >= duration:
            return []
        first = max(0, bisect_right(times, clip.start + _SHOWN_PRECISION) - 1)
    if clip.end is not None:
        last = bisect_left(times, clip.end)
    if first >= last:
        return []
    return [first + k for k in sample_indices(fps, last - first, num_frames)]


def _notices(stream: Stream, decoded: Decoded) -> Iterator[str]:
    count, packets = len(decoded.ticks), stream.packet_count
    if decoded.interlaced:
        packets -= _second_fields(stream, decoded)
    promised = max(stream.claimed_count, packets)
    if count < promised:
        yield (
            f"only {count} of {promised} frames of {stream.path} can be decoded; "
            "the frames looked at are among those"
        )
    elif decoded.damaged:
        yield f"{stream.path} is damaged: some frames may not look as they should"
    if stream.odd_colours:
        yield f"{stream.path} stores colours in a rare way: those looked at are approximate"
    if is_joined(stream, decoded.ticks):
        yield (
            f"the clock of {stream.path} is set back on the way, as in recordings that were "
            "joined; times are counted on from there"
        )


def _second_fields(stream: Stream, decoded: Decoded) -> int:
    """Number of packets that hold the second field of a frame, half a frame after the first."""
    frames = [tick for tick in decoded.ticks if tick is not None]
    if not stream.ticks or len(frames) < 2:  # no times: count them only if all packets are fields
        count, packets = len(decoded.ticks), stream.packet_count
        return packets - count if abs(2 * count - packets) <= max(2, packets // 32) else 0
    usual = median(after - before for before, after in pairwise(frames))
    steps = [after - before for before, after in pairwise(stream.ticks)]
    return (sum(0.4 * usual <= step <= 0.6 * usual for step in steps) + 1) // 2
