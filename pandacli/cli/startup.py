"""The slow steps before an answer, in the order that reports trouble soonest.

First the frames: a clip that cannot be used is told before anything else. Then whether the model
is on this machine, and only then its weights. From the moment that the file has turned out to be a
video, what needs no word from the user goes on in the background: importing torch and the rest,
which takes seconds, and loading weights that are as they are wanted.

Checks of VIDEO and QUESTION on the command line, before anything slow happens.

What was computed of a clip before, and is kept for the next time.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from shlex import join
from time import perf_counter
from typing import TYPE_CHECKING, Any

from pandacli.background import Background
from pandacli.errors import PandaError, UsageError
from pandacli.terminal.console import Screen
from pandacli.terminal.report import placement_notice
from pandacli.video.clip import VIDEO_SUFFIXES, Clip

if TYPE_CHECKING:
    from pandacli import Panda
    from pandacli.inference import VideoSession
    from pandacli.prefix_cache.clip_cache import ClipCache
    from pandacli.video import Frames

EXAMPLE = 'panda ask clip.mp4 "what happens?"'


def check_video(command: str, video: str, others: Sequence[str] = ()) -> None:
    """Refuses what cannot be the VIDEO of a command.

    Args:
        command: Its name.
        video: What was given as VIDEO.
        others: The arguments after it.

    Raises:
        UsageError: It is empty, standard input, or a question before the video.
    """
    if not video:
        example = EXAMPLE if command == "ask" else f"panda {command} clip.mp4"
        raise UsageError("VIDEO is empty", "for example:", command=example)
    if os.path.exists(video):  # noqa: PTH110  (no name is too long for it)
        return
    if video == "-":
        raise UsageError(
            "a video cannot be read from standard input", "save it to a file, and name the file"
        )
    first = next((word for word in others if _names_video(word)), None)
    if first is not None and not _looks_like_video(video):
        questions = [video, *(word for word in others if not _names_video(word))]
        raise UsageError(
            "the video comes first, then the questions",
            command=join(["panda", command, first, *questions]),
        )


def check_questions(video: str, questions: Sequence[str]) -> None:
    """Refuses a video among the questions.

    Args:
        video: The video that is asked about.
        questions: What was given as questions.

    Raises:
        UsageError: One of them is a file, or has a name as only videos have.
    """
    found = next((word for word in questions if _names_video(word)), None)
    if found is None:
        return
    asked = [word for word in questions if not _names_video(word)] or ["What happens?"]
    raise UsageError(
        f"{found} is a {'directory' if os.path.isdir(found) else 'file'}, not a question"  # noqa: PTH112
        if os.path.exists(found)  # noqa: PTH110
        else f"{found} is the name of a video, not a question",
        "panda ask takes one video at a time:",
        command=join(["panda", "ask", video, *asked]),
    )


def _names_video(word: str) -> bool:
    return word != "-" and (os.path.exists(word) or _looks_like_video(word))  # noqa: PTH110


def _looks_like_video(word: str) -> bool:
    return word.lower().endswith(VIDEO_SUFFIXES) and not any(map(str.isspace, word))


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
        from pandacli.checkpoints import resolve

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
        from pandacli.checkpoints import resolve

        resolve(self.name)  # before torch is imported, which takes seconds
        say(f"loading {self.name}")
        if self._ahead is not None and (panda := self._ahead.result()) is not None:
            return panda

        def report(done: int, total: int) -> None:
            say(f"quantising {self.name} once, {100 * done // total} %")

        return self._load(report)

    def _load_what_is_ready(self) -> "Panda | None":
        from pandacli.inference.planning.loader import is_ready

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
    with screen.status("reading frames"):
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
    stage = nullcontext(tell) if tell else screen.status(f"loading {loading.name}")
    with stage as say:
        panda = loading.end(say)
    if chosen := placement_notice(panda, asked or loading.quant):
        screen.notice(f"{loading.name} runs {chosen}")
    return panda


def look_up(clip: Clip, chosen: dict[str, Any], screen: Screen) -> "ClipCache | None":
    """Returns what is kept of a clip, and takes more; None where nothing is to be kept.

    Args:
        clip: The clip. If it cannot be used, those who read its frames say so.
        chosen: The options `frames`, `cache-size` and `full-hash`.
        screen: Where to say how it goes.
    """
    if not chosen["cache-size"]:
        return None
    with screen.status("reading frames"):
        from pandacli.prefix_cache.clip_cache import ClipCache
        from pandacli.video.container import check_file  # a pipe would keep us waiting

        try:
            check_file(clip.path)
            return ClipCache(
                clip, chosen["frames"], budget=chosen["cache-size"], whole=chosen["full-hash"]
            )
        except (PandaError, OSError):
            return None


@contextmanager
def kept_afterwards(clip: "VideoSession", screen: Screen) -> Iterator[None]:
    """Keeps what was computed of a clip after the block, and where a question was refused in it."""
    try:
        yield
    except PandaError:
        _keep(clip, screen)
        raise
    _keep(clip, screen)


def _keep(clip: "VideoSession", screen: Screen) -> None:
    """Keeps what was computed of a clip; if that cannot be, it is said, and no answer is lost."""
    try:
        with screen.status("caching the clip"):
            clip.keep()
    except PandaError as error:
        screen.notice(error.message)
