"""The slow steps before an answer, in the order that reports trouble soonest.

First the frames: a clip that cannot be used is told before anything else. Then whether the model
is on this machine, and only then its weights.
"""

from time import perf_counter
from typing import TYPE_CHECKING

from pandacli.ui.console import Screen
from pandacli.video.clip import Clip

if TYPE_CHECKING:
    from pandacli import Panda
    from pandacli.video import Frames


def read_clip(clip: Clip, num_frames: int, screen: Screen) -> tuple["Frames", float]:
    """Returns the sampled frames of `clip` and the seconds that took.

    What the reader noticed about the file is passed on to the user.

    Raises:
        ClipError: The file cannot be used.
    """
    from pandacli.video import sample_frames

    started = perf_counter()
    with screen.stage("reading frames"):
        frames = sample_frames(clip, num_frames)
    seconds = perf_counter() - started
    for sentence in frames.notices:
        screen.notice(sentence)
    return frames, seconds


def load_model(
    name: str, screen: Screen, *, device: str = "auto", quant: str = "auto", engine: str = "auto"
) -> "Panda":
    """Returns the model called `name`, loaded, and quantised before where it has to be.

    What was chosen for the user is said, where that is not the model as it was published.

    Raises:
        ModelError: It is not on this machine, or damaged.
        DeviceError: The device is not there, or too small.
    """
    from pandacli.store import resolve

    resolve(name)  # before torch is imported, which takes seconds
    with screen.stage(f"loading {name}") as say:
        from pandacli import Panda

        def report(done: int, total: int) -> None:
            say(f"quantising {name} once, {100 * done // total} %")

        panda = Panda.load(name, device=device, quant=quant, engine=engine, report=report)
    if chosen := _choice(panda, quant):
        screen.notice(f"{name} runs {chosen}")
    return panda


def _choice(panda: "Panda", quant: str) -> str | None:
    """What was chosen for the user, in words; None where the model is whole and in one place."""
    *others, last = panda.devices
    where = f"{', '.join(others)} and {last}" if others else last.replace("cpu", "the CPU")
    if quant == "auto" and panda.quant != "none":
        bits = panda.quant.removesuffix("bit")
        return f"in {bits} bits on {where} ({panda.engine}); see --quant and --device"
    return f"on {where}; see --device" if others else None
