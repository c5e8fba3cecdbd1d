"""The slow steps before an answer, in the order that reports trouble soonest.

First the frames: a clip that cannot be used is told before anything else. Then whether the model
is on this machine, and only then its weights. Torch and the rest, which take seconds to import, are
imported in the background from the moment that the file has turned out to be a video.
"""

from collections.abc import Callable
from contextlib import nullcontext, suppress
from importlib import import_module
from time import perf_counter
from typing import TYPE_CHECKING

from pandacli.errors import PandaError
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
    clip: Clip,
    num_frames: int,
    screen: Screen,
    *,
    notices: bool = True,
    model: str | None = None,
) -> tuple["Frames", float]:
    """Returns the sampled frames of `clip` and the seconds that took.

    Args:
        clip: The file and the range.
        num_frames: How many frames to sample.
        screen: Where to say how it goes.
        notices: Whether to pass on to the user what the reader noticed about the file.
        model: What will look at them, to make ready for it meanwhile.

    Raises:
        ClipError: The file cannot be used.
    """
    started = perf_counter()
    with screen.stage("reading frames"):
        from pandacli.video import sample_frames  # begins with a tenth of a second of imports

        if model:
            _import_ahead(clip, model)
        frames = sample_frames(clip, num_frames)
    seconds = perf_counter() - started
    for sentence in frames.notices if notices else ():
        screen.notice(sentence)
    return frames, seconds


def _import_ahead(clip: Clip, model: str) -> None:
    """Begins to import all that models need, if there is a video and a model to look at it.

    What is wrong with them is told by those who need them.
    """
    from pandacli.store import resolve
    from pandacli.ui.chat.background import Background
    from pandacli.video.stream import check_file, opened

    with suppress(PandaError):
        check_file(clip.path)
        with opened(clip.path):
            resolve(model)
        Background(lambda _: import_module("pandacli.engine.preparing"))


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
