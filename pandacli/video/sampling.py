"""Measure the duration and timestamps of a clip, and sample the frames that the model sees.

Frames are sampled one per second, thinned to a fixed number. The positions are those of
Video-Panda's training (arXiv 2412.18609), rounding included. Only where the original raises an
exception is a result given here.
"""

import math
import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import accumulate, pairwise
from statistics import median

import numpy as np
from numpy.typing import NDArray

from pandacli.errors import ClipError, UsageError
from pandacli.video.clip import Clip, format_time
from pandacli.video.decoder import Decoded, decode, stack
from pandacli.video.stream import Stream, read_stream

_RATE_TOLERANCE = 0.03
"""Relative difference up to which the header's frame rate is used instead of the measured one."""
_HALF_WRAP = 2**32 / 90_000
"""Half the range of MPEG's clock in seconds, more than 13 hours."""


@dataclass(frozen=True)
class VideoInfo:
    """Facts about a video file.

    Attributes:
        width, height: Size of a frame in pixels, upright.
        fps: Average frame rate: the header's if it is about right, else as measured.
        frame_count: Number of frames that decode.
        duration: Seconds from the beginning of the file to the end of the last frame.
        codec: FFmpeg's name of the codec, "h264".
        constant_rate: Whether all frames are shown equally long.
        timestamps: The time of each frame, in seconds from the beginning of the file.
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
    """Decode a video to the end and describe it.

    Raises:
        ClipError: The file cannot be used, or no frame in it decodes.
    """
    stream = read_stream(path)
    return video_info(stream, decode(stream, {0}, to_end=True))


def video_info(stream: Stream, decoded: Decoded) -> VideoInfo:
    """Describe a stream decoded to the end; `decoded` has the picture of frame 0."""
    height, width = decoded.pictures[0].shape[:2]
    times = timestamps(stream, decoded.ticks)
    steps = [after - before for before, after in pairwise(times)]
    duration = times[-1] + _last_step(stream, decoded, steps)
    return VideoInfo(
        width=width,
        height=height,
        fps=_rate(stream, times, duration),
        frame_count=len(times),
        duration=duration,
        codec=stream.codec,
        constant_rate=not steps or max(steps) - min(steps) <= 1.5 * float(stream.time_base),
        timestamps=times,
    )


def _last_step(stream: Stream, decoded: Decoded, steps: Sequence[float]) -> float:
    """Seconds the last frame is shown, by its packet, else the median of all frames."""
    last = decoded.ticks[-1]
    # of the last two packets: each may hold one field of the frame
    if stream.end is not None and last is not None and last in stream.last_ticks:
        return float((stream.end - last) * stream.time_base)
    if steps:
        return median(steps)
    return 1 / stream.fps if stream.fps else 0.0


def _rate(stream: Stream, times: Sequence[float], duration: float) -> float:
    elapsed, shown = times[-1] - times[0], duration - times[0]
    if elapsed <= 0:
        return stream.fps
    measured = (len(times) - 1) / elapsed
    for rate in (measured, len(times) / shown):
        if abs(stream.fps - rate) <= _RATE_TOLERANCE * rate:
            return stream.fps
    return measured


def timestamps(stream: Stream, ticks: Sequence[int | None]) -> tuple[float, ...]:
    """Seconds from the beginning of the file, ascending.

    Frames without times, or with times that go back, are spaced at the stream's frame rate.
    """
    if jumps := _jumps(stream, ticks):
        known = _without_jumps(stream, [tick for tick in ticks if tick is not None], jumps)
    else:
        own = stream.wrapping and None not in ticks  # sorting would move a stray time to the end
        if not own and stream.ticks and len(ticks) == len(stream.ticks):
            # in AVI the packets' times are right as a set, but a decoder may assign them wrongly
            ticks = stream.ticks
        known = [tick for tick in ticks if tick is not None]
    if len(known) < len(ticks) or any(after <= before for before, after in pairwise(known)):
        return tuple(number / (stream.fps or 1.0) for number in range(len(ticks)))
    over, under = stream.time_base.as_integer_ratio()  # Fractions would be slow
    return tuple((tick - stream.zero) * over / under for tick in known)


def is_joined(stream: Stream, ticks: Sequence[int | None]) -> bool:
    """Whether the clock restarts within the stream, as in joined recordings."""
    return bool(_jumps(stream, ticks))


def _jumps(stream: Stream, ticks: Sequence[int | None]) -> list[int]:
    """Numbers of the frames at which the clock of an MPEG stream restarts.

    FFmpeg takes a step back of more than a minute for a wrap of the 33-bit clock, and adds 26.5
    hours.
    """
    known = [tick for tick in ticks if tick is not None]
    if not stream.wrapping or len(known) < len(ticks):
        return []
    back, far = -1 / stream.time_base, _HALF_WRAP / stream.time_base
    found = [number for number, step in enumerate(_steps(known), 1) if not back < step < far]
    return [number for number in found if not _is_stray(known, number, far)]


def _is_stray(ticks: Sequence[int], number: int, far: Fraction | float) -> bool:
    """Whether frame `number`, or the one before it, has a single wrong time."""
    last = len(ticks) - 1
    without_it = number < last and 0 < ticks[number + 1] - ticks[number - 1] < far
    without_the_one_before = number > 1 and 0 < ticks[number] - ticks[number - 2] < far
    return without_it or without_the_one_before


def _without_jumps(stream: Stream, ticks: Sequence[int], jumps: Sequence[int]) -> list[int]:
    """Replace each jump by the median step, or the frame rate's if there are only jumps."""
    steps, at_jumps = _steps(ticks), set(jumps)
    others = [step for number, step in enumerate(steps, 1) if number not in at_jumps]
    usual = round(median(others) if others else 1 / (stream.fps or 1.0) / stream.time_base) or 1
    for number in jumps:
        steps[number - 1] = usual
    return list(accumulate(steps, initial=ticks[0]))


def _steps(ticks: Sequence[int]) -> list[int]:
    return [after - before for before, after in pairwise(ticks)]


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
