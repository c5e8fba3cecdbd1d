"""The facts about a video: how long, how large, how many frames, and when each is shown."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, pairwise
from statistics import median

from pandacli.video.decoder import Reading, decode
from pandacli.video.stream import Stream, read_stream

_RATE_TOLERANCE = 0.03
"""How far a header's frame rate may be from that of the frames, relative to the latter."""
_HALF_REVOLUTION = 2**32 / 90_000
"""Seconds, more than 13 hours."""


@dataclass(frozen=True)
class VideoInfo:
    """Facts about a video file.

    Attributes:
        width, height: Size of a frame in pixels, upright.
        fps: Average frame rate: the header's where it is about that of the frames, else theirs.
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
    duration = times[-1] + _last_step(stream, reading, steps)
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


def _last_step(stream: Stream, reading: Reading, steps: Sequence[float]) -> float:
    """For how many seconds the last frame is shown: as its packet says, else as usual."""
    last = reading.ticks[-1]
    # The last two packets, as two fields may make up the frame.
    if stream.end is not None and last is not None and last in stream.last_ticks:
        return float((stream.end - last) * stream.time_base)
    if steps:
        return median(steps)
    return 1 / stream.fps if stream.fps else 0.0


def _rate(stream: Stream, times: Sequence[float], duration: float) -> float:
    spell, shown = times[-1] - times[0], duration - times[0]
    if spell <= 0:
        return stream.fps
    measured = (len(times) - 1) / spell
    for rate in (measured, len(times) / shown):
        if abs(stream.fps - rate) <= _RATE_TOLERANCE * rate:
            return stream.fps
    return measured


def timestamps(stream: Stream, ticks: Sequence[int | None]) -> tuple[float, ...]:
    """Seconds from the beginning of the file, ascending.

    Where the frames have no times, or times that go back, they are counted out at the stream's
    frame rate.
    """
    if jumps := _jumps(stream, ticks):
        known = _closed_up(stream, [tick for tick in ticks if tick is not None], jumps)
    else:
        own = stream.wrapping and None not in ticks  # a wrong one must not become the last
        if not own and stream.ticks is not None and len(ticks) == len(stream.ticks):
            # In AVI the packets' times are right as a set, but a decoder may hand them out wrongly.
            ticks = stream.ticks
        known = [tick for tick in ticks if tick is not None]
    if len(known) < len(ticks) or any(after <= before for before, after in pairwise(known)):
        return tuple(number / (stream.fps or 1.0) for number in range(len(ticks)))
    over, under = stream.time_base.as_integer_ratio()  # a Fraction for each would take longest here
    return tuple((tick - stream.zero) * over / under for tick in known)


def is_joined(stream: Stream, ticks: Sequence[int | None]) -> bool:
    """Whether the clock is set back within the stream, as where two recordings are joined."""
    return bool(_jumps(stream, ticks))


def _jumps(stream: Stream, ticks: Sequence[int | None]) -> list[int]:
    """Numbers of the frames at which the clock of an MPEG stream is set back.

    By more than a minute, FFmpeg takes that for a clock of 33 bits that has run over, and adds a
    day and 2.5 hours.
    """
    known = [tick for tick in ticks if tick is not None]
    if not stream.wrapping or len(known) < len(ticks):
        return []
    back, far = -1 / stream.time_base, _HALF_REVOLUTION / stream.time_base
    found = [number for number, step in enumerate(_steps(known), 1) if not back < step < far]
    return [number for number in found if not _is_stray(known, number, far)]


def _is_stray(ticks: Sequence[int], number: int, far: Fraction | float) -> bool:
    """Whether the clock goes on as before once frame `number`, or the one before it, is left out.

    Then that frame has a wrong time, and no other recording begins.
    """
    last = len(ticks) - 1
    without_it = number < last and 0 < ticks[number + 1] - ticks[number - 1] < far
    without_the_one_before = number > 1 and 0 < ticks[number] - ticks[number - 2] < far
    return without_it or without_the_one_before


def _closed_up(stream: Stream, ticks: Sequence[int], jumps: Sequence[int]) -> list[int]:
    """The ticks with each jump made a usual step; one at the frame rate if there are only jumps."""
    steps, at_jumps = _steps(ticks), set(jumps)
    others = [step for number, step in enumerate(steps, 1) if number not in at_jumps]
    usual = round(median(others) if others else 1 / (stream.fps or 1.0) / stream.time_base) or 1
    for number in jumps:
        steps[number - 1] = usual
    return list(accumulate(steps, initial=ticks[0]))


def _steps(ticks: Sequence[int]) -> list[int]:
    return [after - before for before, after in pairwise(ticks)]
