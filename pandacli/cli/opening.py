"""The slow steps before an answer, in the order that reports trouble soonest.

First the frames: a clip that cannot be used is told before anything else. Then whether the model
is on this machine, and only then its weights.
"""

from collections.abc import Callable
from contextlib import nullcontext
from time import perf_counter
from typing import TYPE_CHECKING

from pandacli.ui.console import Screen
from pandacli.ui.report import choice
from pandacli.video.clip import Clip

if TYPE_CHECKING:
    from pandacli import Panda
    from pandacli.video import Frames


def quantising(name: str, done: int, total: int) -> str:
    """Returns how far the quantisation of a model is, in a few words."""
    return f"quantising {name} once, {100 * done // total} %"


def read_clip(
    clip: Clip, num_frames: int, screen: Screen, *, notices: bool = True
) -> tuple["Frames", float]:
    """Returns the sampled frames of `clip` and the seconds that took.

    What the reader noticed about the file is passed on to the user, if `notices`.

    Raises:
        ClipError: The file cannot be used.
    """
    started = perf_counter()
    with screen.stage("reading frames"):
        from pandacli.video import sample_frames  # begins with a tenth of a second of imports

        frames = sample_frames(clip, num_frames)
    seconds = perf_counter() - started
    for sentence in frames.notices if notices else ():
        screen.notice(sentence)
    return frames, seconds


def load_model(
    name: str,
    screen: Screen,
    *,
    device: str = "auto",
    quant: str = "auto",
    engine: str = "auto",
    tell: Callable[[str], None] | None = None,
) -> "Panda":
    """Returns the model called `name`, loaded, and quantised before where it has to be.

    What was chosen for the user is said, where that is not the model as it was published.

    Args:
        name: What `Panda.load` takes, and so are device, quant and engine.
        screen: Where things are said.
        device: See there.
        quant: See there.
        engine: See there.
        tell: Told how it goes, in place of a line on the screen.

    Raises:
        ModelError: It is not on this machine, or damaged.
        DeviceError: The device is not there, or too small.
    """
    from pandacli.store import resolve

    resolve(name)  # before torch is imported, which takes seconds
    doing = f"loading {name}"
    with nullcontext(tell) if tell else screen.stage(doing) as say:
        say(doing)
        from pandacli import Panda

        def report(done: int, total: int) -> None:
            say(quantising(name, done, total))

        panda = Panda.load(name, device=device, quant=quant, engine=engine, report=report)
    if chosen := choice(panda, quant):
        screen.notice(f"{name} runs {chosen}")
    return panda
