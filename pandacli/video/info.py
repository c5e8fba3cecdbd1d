"""Facts about a video: duration, size, frame rate, and the time of each frame."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, pairwise
from statistics import median

from pandacli.video.decoder import Decoded, decode
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
