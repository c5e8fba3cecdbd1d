"""Which numbers of frames a Video-Panda can look at.

The engines that can compute the Llama, by the names that `--engine` takes.
"""

from itertools import count

from pandacli.errors import UsageError

ENGINES = ("auto", "torch", "bitsandbytes", "llama")
"""auto is the fastest for the device; llama is llama.cpp, with pandacli[llama] installed."""

RAY = "ray"
"""What `panda batch` takes beside these: each machine of a cluster computes as with auto."""


def check_frame_count(frames: int, chunk_frames: int = 4) -> None:
    """Refuse a number of frames that cannot be cut into equal chunks.

    STAB reads frames in chunks of `chunk_frames` or slightly more, all equally long (a single
    frame is an image, which needs none).

    Args:
        frames: How many frames a clip is to be sampled at.
        chunk_frames: The model's chunk length, 4 in all models that panda knows.

    Raises:
        UsageError: With the numbers around `frames` that will do.
    """
    if _fits(frames, chunk_frames):
        return
    fewer = [n for n in range(1, frames) if _fits(n, chunk_frames)][-1:]
    more = next(n for n in count(max(frames, 0) + 1) if _fits(n, chunk_frames))
    near = " or ".join(map(str, [*fewer, more]))
    raise UsageError(
        f"the model cannot look at {frames} frames",
        f"{near} would do; 8 is what it was trained with",
    )


def _fits(frames: int, chunk_frames: int) -> bool:
    chunks = frames // chunk_frames
    return frames == 1 or (chunks > 0 and frames % chunks == 0)
