"""The slow steps before an answer, in the order that reports trouble soonest.

First the frames: a clip that cannot be used is told before anything else. Then whether the model
is on this machine, and only then its weights. From the moment that the file has turned out to be a
video, what needs no word from the user goes on in the background: importing torch and the rest,
which takes seconds, and loading weights that are as they are wanted.
"""

from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING

from pandacli.errors import PandaError
from pandacli.ui.background import Background
from pandacli.ui.console import Screen
from pandacli.ui.report import choice
from pandacli.video.clip import Clip

if TYPE_CHECKING:
    from pandacli import Panda
    from pandacli.video import Frames


@dataclass
class Loading:
    """A model on its way into memory.

    Attributes:
        name: What `Panda.load` takes, and so are quant, engine and device.
        quant: See there.
        engine: See there.
        device: See there.
    """

    name: str
    quant: str = "auto"
    engine: str = "auto"
    device: str = "auto"
    _ahead: "Background[Panda | None] | None" = field(default=None, init=False)

    def begin(self) -> None:
        """Import what models need and load this one in the background, if that is all it takes.

        What is wrong with it is told at the end.
        """
        from pandacli.store import resolve

        with suppress(PandaError):
            resolve(self.name)
            self._ahead = Background(lambda _: self._load_what_is_ready())

    def end(self, say: Callable[[str], None]) -> "Panda":
        """The model, quantised before where it has to be.

        Args:
            say: Told how it goes.

        Raises:
            ModelError: It is not on this machine, or damaged.
            DeviceError: The device is not there, or too small.
        """
        from pandacli.store import resolve

        resolve(self.name)  # before torch is imported, which takes seconds
        say(f"loading {self.name}")
        if self._ahead is not None and (panda := self._ahead.result()) is not None:
            return panda

        def report(done: int, total: int) -> None:
            say(f"quantising {self.name} once, {100 * done // total} %")

        return self._load(report)

    def _load_what_is_ready(self) -> "Panda | None":
        from pandacli.engine.preparing import is_ready

        how = {"quant": self.quant, "engine": self.engine, "device": self.device}
        return self._load() if is_ready(self.name, **how) else None

    def _load(self, report: Callable[[int, int], None] | None = None) -> "Panda":
        from pandacli import Panda

        return Panda.load(
            self.name, quant=self.quant, engine=self.engine, device=self.device, report=report
        )


def read_clip(
    clip: Clip,
    num_frames: int,
    screen: Screen,
    *,
    notices: bool = True,
    loading: Loading | None = None,
) -> tuple["Frames", float]:
    """Returns the sampled frames of `clip` and the seconds that took.

    Args:
        clip: The file and the range.
        num_frames: How many frames to sample.
        screen: Where to say how it goes.
        notices: Whether to pass on to the user what the reader noticed about the file.
        loading: What will look at them, to be loaded meanwhile.

    Raises:
        ClipError: The file cannot be used.
    """
    started = perf_counter()
    with screen.stage("reading frames"):
        from pandacli.video import sample_frames  # begins with a tenth of a second of imports

        if loading and _is_video(clip):
            loading.begin()
        frames = sample_frames(clip, num_frames)
    seconds = perf_counter() - started
    for sentence in frames.notices if notices else ():
        screen.notice(sentence)
    return frames, seconds


def _is_video(clip: Clip) -> bool:
    """Whether there is a video; what is wrong with it is told by those who read its frames."""
    from pandacli.video.container import check_file, opened

    with suppress(PandaError):
        check_file(clip.path)
        with opened(clip.path):
            return True
    return False


def load_model(
    loading: Loading,
    screen: Screen,
    tell: Callable[[str], None] | None = None,
    *,
    asked: str | None = None,
) -> "Panda":
    """Returns a model that was on its way; says what was chosen for the user, if anything was.

    Args:
        loading: The model.
        screen: Where things are said.
        tell: Told how it goes, in place of a line on the screen.
        asked: The quantisation that the user asked for, where `loading` has another.

    Raises:
        PandaError: As `Loading.end`.
    """
    stage = nullcontext(tell) if tell else screen.stage(f"loading {loading.name}")
    with stage as say:
        panda = loading.end(say)
    if chosen := choice(panda, asked or loading.quant):
        screen.notice(f"{loading.name} runs {chosen}")
    return panda
