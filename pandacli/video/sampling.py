"""Which frames of a video the model looks at: one a second, thinned to as many as it takes.

Video-Panda (arXiv 2412.18609) was trained with these positions, rounding included, so they are
kept to the letter; only where the original gives up with an exception do we go on.
"""

import math

from pandacli.errors import ClipError, UsageError

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
