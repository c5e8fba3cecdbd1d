"""Measure the duration and timestamps of a clip, and sample the frames that the model sees.

One frame per second, thinned to a fixed number, at the positions of Video-Panda's training (arXiv
2412.18609), rounding included, except where the original raises an exception.
"""

import math
import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pandacli.errors import ClipError, UsageError
from pandacli.video.clip import Clip, format_time
from pandacli.video.container import Stream, read_stream
from pandacli.video.decoder import Decoded, decode, stack

SHORT_VIDEO_FRAMES = 8  # with fewer positions a second apart, more are taken, as in training
_RATE_TOLERANCE = 0.03  # up to which the header's frame rate is used instead of the measured one
_HALF_WRAP = 2**32 / 90_000  # half the range of MPEG's clock in seconds, more than 13 hours
_SHOWN_PRECISION = 0.0005  # times are shown in milliseconds, and a time as shown means its frame


@dataclass(frozen=True)
class VideoInfo:
    width: int  # of a frame in pixels, upright
    height: int
    fps: float  # average: the header's if it is about right, else as measured
    frame_count: int  # frames that decode
    duration: float  # seconds from the beginning of the file to the end of the last frame
    codec: str  # FFmpeg's name, such as "h264"
    constant_rate: bool  # all frames are shown equally long
    timestamps: tuple[float, ...]  # of each frame, in seconds from the beginning of the file


@dataclass(frozen=True)
class Frames:
    pixels: NDArray[np.uint8]  # (T, H, W, 3), RGB, upright, of square pixels
    indices: tuple[int, ...]  # number of each frame in its file, from 0
    times: tuple[float, ...]  # of each frame, in seconds from the beginning of the file
    info: VideoInfo
    notices: tuple[str, ...] = ()  # warnings for the user, such as of damage


def probe(path: str | os.PathLike[str]) -> VideoInfo:
    """Decode a video to the end and describe it; may raise a ClipError."""
    stream = read_stream(path)
    return video_info(stream, decode(stream, {0}, to_end=True))


def video_info(stream: Stream, decoded: Decoded) -> VideoInfo:
    """Describe a stream decoded to the end, with the picture of frame 0."""
    height, width = decoded.pictures[0].shape[:2]
    times = timestamps(stream, decoded.ticks)
    steps = _steps(times)
    last = decoded.ticks[-1]
    # of the last two packets: each may hold one field of the last frame
    if stream.end is not None and last is not None and last in stream.last_ticks:
        duration = times[-1] + float((stream.end - last) * stream.time_base)
    elif steps:
        duration = times[-1] + median(steps)
    else:
        duration = times[-1] + (1 / stream.fps if stream.fps else 0.0)
    fps, count = _rate(stream, times, duration), len(times)
    constant_rate = not steps or max(steps) - min(steps) <= 1.5 * float(stream.time_base)
    return VideoInfo(width, height, fps, count, duration, stream.codec, constant_rate, times)


def _rate(stream: Stream, times: Sequence[float], duration: float) -> float:
    elapsed, shown = times[-1] - times[0], duration - times[0]
    if elapsed <= 0:
        return stream.fps
    measured = (len(times) - 1) / elapsed
    rates = measured, len(times) / shown
    header_is_right = any(abs(stream.fps - rate) <= _RATE_TOLERANCE * rate for rate in rates)
    return stream.fps if header_is_right else measured


def timestamps(stream: Stream, ticks: Sequence[int | None]) -> tuple[float, ...]:
    """Seconds from the beginning of the file, ascending.

    Frames without times, or with times that go back, are spaced at the stream's frame rate.
    """
    known = [tick for tick in ticks if tick is not None]
    if jumps := clock_jumps(stream, ticks):
        known = _without_jumps(stream, known, jumps)
    # in AVI the packets' times are right as a set, but a decoder may assign them wrongly; in MPEG
    # sorting would move a stray time to the end
    elif len(ticks) == len(stream.ticks) and not (stream.wrapping and None not in ticks):
        known = list(stream.ticks)
    if len(known) < len(ticks) or any(step <= 0 for step in _steps(known)):
        return tuple(number / (stream.fps or 1.0) for number in range(len(ticks)))
    over, under = stream.time_base.as_integer_ratio()  # Fractions would be slow
    return tuple((tick - stream.zero) * over / under for tick in known)


def clock_jumps(stream: Stream, ticks: Sequence[int | None]) -> list[int]:
    """Numbers of the frames at which an MPEG clock restarts, as in joined recordings."""
    if not stream.wrapping or None in ticks:
        return []
    known = [tick for tick in ticks if tick is not None]
    # FFmpeg takes a step back of over a minute for a wrap of the 33-bit clock, and adds 26.5 hours
    back, far = -1 / stream.time_base, _HALF_WRAP / stream.time_base

    def is_stray(number: int) -> bool:  # a single wrong time is no jump
        around = (number - 1, number + 1), (number - 2, number)
        return any(i >= 0 and j < len(known) and 0 < known[j] - known[i] < far for i, j in around)

    found = [number for number, step in enumerate(_steps(known), 1) if not back < step < far]
    return [number for number in found if not is_stray(number)]


def _without_jumps(stream: Stream, ticks: Sequence[int], jumps: Sequence[int]) -> list[int]:
    """Replace each jump by the median step, or the frame rate's if there are only jumps."""
    steps, at_jumps = _steps(ticks), set(jumps)
    others = [step for number, step in enumerate(steps, 1) if number not in at_jumps]
    usual = round(median(others) if others else 1 / (stream.fps or 1.0) / stream.time_base) or 1
    for number in jumps:
        steps[number - 1] = usual
    return list(accumulate(steps, initial=ticks[0]))


def _steps(times: Sequence[Any]) -> list[Any]:
    return [after - before for before, after in pairwise(times)]


def sample_indices(fps: float, frame_count: int, num_frames: int = 8) -> list[int]:
    """Positions of the frames to sample, ascending; a short video may give less than `num_frames`.

    Without a usable `fps` (0.5 and below, NaN, infinite), every frame is a candidate. ClipError if
    there is no frame, UsageError if `num_frames` is less than one.
    """
    if num_frames < 1:
        raise UsageError(f"cannot look at {num_frames} frames", "ask for at least one")
    if frame_count <= 0:
        raise ClipError("the video has no frames")
    if 1 in (frame_count, num_frames):
        return [0]
    if not math.isfinite(fps):
        stride = 1
    elif fps < 0:  # the original finds no position and treats the video as short
        stride = frame_count
    else:
        stride = max(1, round(fps))  # half to even as in training (12.5 gives 12)
    seconds = range(0, frame_count, stride)
    if len(seconds) > num_frames:
        # rounded down as `linspace` does; multiplied, not accumulated: rounding decides some
        step = (len(seconds) - 1) / (num_frames - 1)
        return [seconds[int(k * step)] for k in range(num_frames - 1)] + [seconds[-1]]
    if len(seconds) >= SHORT_VIDEO_FRAMES:
        return list(seconds)
    count = min(SHORT_VIDEO_FRAMES, frame_count)
    stride = max(1, (frame_count - 1) // (count - 1))
    thinned = min(num_frames, count)
    return [k * stride * (count // thinned) for k in range(thinned)]


def sample_frames(clip: Clip, num_frames: int = 8) -> Frames:
    """Decode the frames of `clip` that the model sees: one per second, thinned to `num_frames`.

    With `clip.at`, they are the frames shown at these times, each once.

    ClipError if the file cannot be used or no frame decodes, UsageError if the clip's range lies
    outside the video, a time past its end, or `num_frames` is below one or the number of times.
    """
    if len(clip.at) > num_frames:
        message = f"the model looks at {num_frames} frames, and {len(clip.at)} times are given"
        raise UsageError(message, f"give up to {num_frames} times, or ask for more frames")
    stream = read_stream(clip.path)
    expected = timestamps(stream, stream.ticks or [None] * stream.packet_count)
    indices = choose_indices(clip, expected, stream.fps, num_frames)
    wanted, trust_index, damaged = {0}, True, False
    while True:
        wanted |= {*indices}  # keeps a frame that cannot be converted, which ends the video
        decoded = decode(stream, wanted, to_end=True, trust_index=trust_index)
        trust_index, damaged = decoded.matches_index, damaged or decoded.damaged
        info = video_info(stream, decoded)
        indices = choose_indices(clip, info.timestamps, info.fps, num_frames, info.duration)
        if not indices:
            raise range_error(clip, info)
        if decoded.pictures.keys() >= set(indices):  # or the index was wrong
            break
    pixels = stack([decoded.pictures[index] for index in indices])
    times = tuple(info.timestamps[index] for index in indices)
    warnings = tuple(notices(stream, replace(decoded, damaged=damaged)))
    return Frames(pixels, tuple(indices), times, info, warnings)


def choose_indices(
    clip: Clip, times: Sequence[float], fps: float, num_frames: int, duration: float = math.inf
) -> list[int]:
    """Sample among the frames shown in the range of a clip, each until the next; may be empty."""
    if clip.at:
        shown = {max(0, bisect_right(times, at + _SHOWN_PRECISION) - 1) for at in clip.at}
        return sorted(shown) if clip.at[-1] < duration else []
    first, last = 0, len(times)
    if clip.start is not None:
        if clip.start >= duration:
            return []
        first = max(0, bisect_right(times, clip.start + _SHOWN_PRECISION) - 1)
    if clip.end is not None:
        last = bisect_left(times, clip.end)
    positions = sample_indices(fps, last - first, num_frames) if first < last else []
    return [first + k for k in positions]


def range_error(clip: Clip, info: VideoInfo) -> UsageError:
    """Why no frame of a video is in a clip of it."""
    first, length = info.timestamps[0], f"the clip is {format_time(info.duration)} long"
    if clip.at:
        return UsageError(f"the time {format_time(clip.at[-1])} is past the end ({length})")
    if clip.end is not None and clip.end <= first:
        what = f"ends at {format_time(clip.end)}, before the first frame"
        return UsageError(f"the range {what} (the clip begins at {format_time(first)})")
    what = f"starts at {format_time(clip.start or 0.0)}, past the end"
    return UsageError(f"the range {what} ({length})")


def notices(stream: Stream, decoded: Decoded) -> Iterator[str]:
    """Warnings for the user about a stream that was decoded to the end."""
    count, path = len(decoded.ticks), stream.path
    packets = stream.packet_count - (_second_fields(stream, decoded) if decoded.interlaced else 0)
    promised = max(stream.claimed_count, packets)
    if count < promised:
        yield f"only {count} of {promised} frames of {path} can be decoded; others are not sampled"
    elif decoded.damaged:
        yield f"{path} is damaged: some frames may not look as they should"
    if stream.odd_colours:
        yield f"{path} stores colours in a rare way: they are approximate"
    if clock_jumps(stream, decoded.ticks):
        yield f"the clock of {path} restarts, as in joined recordings; times continue from there"


def _second_fields(stream: Stream, decoded: Decoded) -> int:
    """Number of packets that hold the second field of a frame, half a frame after the first."""
    frames = [tick for tick in decoded.ticks if tick is not None]
    if not stream.ticks or len(frames) < 2:  # no times: count them only if all packets are fields
        count, packets = len(decoded.ticks), stream.packet_count
        return packets - count if abs(2 * count - packets) <= max(2, packets // 32) else 0
    usual = median(_steps(frames))
    halves = [step for step in _steps(stream.ticks) if 0.4 * usual <= step <= 0.6 * usual]
    return (len(halves) + 1) // 2
