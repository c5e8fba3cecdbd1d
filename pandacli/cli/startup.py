"""What the commands do before an answer: check arguments, read frames, find and load the model.

In this order, so that cheap errors come first. Once the file is known to be a video, imports and
the loading of a converted model run in the background.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import cached_property
from shlex import join
from time import perf_counter
from typing import TYPE_CHECKING

import typer

from pandacli.background import Background
from pandacli.errors import ModelError, PandaError, UsageError
from pandacli.terminal.console import Screen
from pandacli.terminal.report import placement_notice
from pandacli.units import size
from pandacli.video.clip import VIDEO_SUFFIXES, Clip

if TYPE_CHECKING:
    from pandacli import Panda
    from pandacli.checkpoints import ResolvedModel
    from pandacli.inference.planning.planner import Plan
    from pandacli.inference.session import VideoSession
    from pandacli.inference.spec import RunSpec
    from pandacli.prefix_cache.clip_cache import ClipCache
    from pandacli.server.remote import RemotePanda
    from pandacli.video import Frames

_GIVEN = "COMMANDLINE"  # of Click's sources of a value
LOOKS_CLOSER = "--every or --from/--to"  # than eight frames of a long film
EXAMPLE = 'panda ask clip.mp4 "what happens?"'


def check_video(command: str, video: str, others: Sequence[str] = ()) -> None:
    """Refuse a VIDEO that is empty, standard input, or a question before the video."""
    if not video:
        example = EXAMPLE if command == "ask" else f"panda {command} clip.mp4"
        raise UsageError("VIDEO is empty", "for example:", command=example)
    if os.path.exists(video):  # noqa: PTH110  (pathlib raises for a long question)
        return
    if video == "-":
        hint = "save it to a file, and name the file"
        raise UsageError("a video cannot be read from standard input", hint)
    videos = [word for word in others if names_video(word)]
    if videos and not names_video(video):
        questions = [video, *(word for word in others if word not in videos)]
        asked = questions if len(videos) == 1 else _with_q(questions)
        corrected = join(["panda", command, *videos, *asked])
        raise UsageError("the video comes first, then the questions", command=corrected)


def check_questions(video: str, questions: Sequence[str]) -> None:
    """Refuse a folder to ask about, no question, and the name of a video among the questions."""
    if not questions:
        raise UsageError("QUESTION is missing", "usage: panda ask VIDEO QUESTION...")
    if os.path.isdir(video):  # noqa: PTH112
        command = join(["panda", "ask", video, *_with_q(questions)])
        hint = "to ask about each video in it:"
        raise UsageError(f"{video} is a directory, not a video", hint, command=command)
    videos = [word for word in questions if names_video(word)]
    if videos:
        kind = "a directory" if os.path.isdir(videos[0]) else "a file"  # noqa: PTH112
        if not os.path.exists(videos[0]):  # noqa: PTH110
            kind = "the name of a video"
        asked = [word for word in questions if word not in videos] or ["What happens?"]
        raise UsageError(
            f"{videos[0]} is {kind}, not a question",
            "to ask about several videos:",
            command=join(["panda", "ask", video, *videos, *_with_q(asked)]),
        )


def check_places(places: Sequence[str], questions: Sequence[str]) -> None:
    """Refuse a question among the videos of `panda ask -q`."""
    if misplaced := [word for word in places if _is_sentence(word)]:
        videos = [word for word in places if word not in misplaced] or ["clip.mp4"]
        raise UsageError(
            f"{misplaced[0]} is not a video: with -q, all other words are",
            "to ask it, too:",
            command=join(["panda", "ask", *videos, *_with_q([*questions, *misplaced])]),
        )


def is_one_file(places: Sequence[str]) -> bool:
    """Whether a single file is named, and neither a folder nor a pattern."""
    (place, *others) = places
    if others or os.path.isdir(place):  # noqa: PTH112
        return False
    return os.path.lexists(place) or not (place.startswith("~") or set(place) & set("*?["))


def _with_q(questions: Sequence[str]) -> list[str]:
    return [word for question in questions for word in ("-q", question)]


def _is_sentence(word: str) -> bool:
    is_path = "/" in word or word.lower().endswith(VIDEO_SUFFIXES)
    return any(map(str.isspace, word)) and not is_path and not os.path.exists(word)  # noqa: PTH110


def names_video(word: str) -> bool:
    """Whether a word is a file, a folder or the name of a video."""
    is_name = word.lower().endswith(VIDEO_SUFFIXES) and not any(map(str.isspace, word))
    return word != "-" and (is_name or os.path.exists(word))  # noqa: PTH110


def require_packages(command: str, packages: Sequence[str]) -> None:
    """Raise a UsageError if packages of the extra `serve` are not installed."""
    from importlib.util import find_spec

    missing = [name for name in packages if not find_spec(name.replace("-", "_"))]
    if missing:
        what = f"panda {command} needs packages that are not installed: {', '.join(missing)}"
        raise UsageError(what, command="pip install 'pandacli[serve]'")


def server_of(context: typer.Context, server: str) -> str:
    """The value of `--server`; with an option of the disk cache, which no server uses, it is none.

    Raises:
        UsageError: Both are asked for.
    """
    sources = {name: context.get_parameter_source(name) for name in ("cache_size", "full_hash")}
    given = [name for name, source in sources.items() if getattr(source, "name", "") == _GIVEN]
    if not given or server == "none":
        return server
    if server != "auto":
        what = f"--{given[0].replace('_', '-')} has no effect on a server, which has its own cache"
        raise UsageError(what, "leave out one of the two")
    return "none"


def go_offline() -> None:
    """Keep this process, and all that it imports from here on, off the network."""
    os.environ["HF_HUB_OFFLINE"] = "1"


class Loading:
    """A model being loaded, which is resolved and planned once; or one that a server has."""

    def __init__(
        self,
        spec: "RunSpec",
        plan: "Plan | None" = None,
        *,
        server: str = "none",  # as of --server
    ) -> None:
        self.spec, self.name, self._server = spec, os.fspath(spec.model), server
        self._plan = plan
        self._model: ResolvedModel | None = plan.model if plan else None
        self._ahead: Background[Panda | None] | None = None

    @cached_property
    def served(self) -> "RemotePanda | None":
        """The model of a server, where one is used: there is nothing to load."""
        from pandacli.checkpoints.registry import servers_folder

        if self._server == "none" or (self._server == "auto" and not servers_folder().is_dir()):
            return None
        from pandacli.server.local import find_panda

        return find_panda(self.spec, self._server)

    def resolve(self) -> "ResolvedModel":
        """Find the model on this machine; raises `ModelError`."""
        if self._model is None:
            from pandacli.checkpoints import resolve

            self._model = resolve(self.spec.model)
        return self._model

    def plan(self) -> "Plan":
        if self._plan is None:
            from pandacli.inference.planning.planner import resolve_run

            self._plan = resolve_run(self.spec, self.resolve())
        return self._plan

    def begin(self) -> None:
        """Load in the background, unless the model must be quantised; `end` raises its errors."""
        if self.served:
            return
        self.resolve()

        def load_if_converted(_: object) -> "Panda | None":
            from pandacli import Panda
            from pandacli.inference.planning.loader import is_converted

            plan = self.plan()
            return Panda.from_plan(plan) if is_converted(plan) else None

        self._ahead = Background(load_if_converted)

    def end(self, say: Callable[[str], None]) -> "Panda":
        """Return the model, quantised first where it has to be; `say` shows the progress."""
        if self.served:
            return self.served
        self.resolve()  # before torch is imported, which takes seconds
        say(f"loading {self.name}")
        if self._ahead is not None and (panda := self._ahead.result()) is not None:
            return panda
        from pandacli import Panda

        def report(done: int, total: int) -> None:
            say(f"quantising {self.name} once, {100 * done // total} %")

        return Panda.from_plan(self.plan(), report)


def load_model(
    loading: Loading, screen: Screen, say: Callable[[str], None] | None = None
) -> "Panda":
    """Return a model, and print what was chosen for the user, if anything was."""
    with nullcontext(say) if say else screen.status(f"loading {loading.name}") as shown:
        panda = loading.end(shown)
    if chosen := placement_notice(panda, loading.spec.quant):
        screen.notice(f"{loading.name} runs {chosen}")
    return panda


def offer_download(loading: Loading, screen: Screen) -> None:
    """Offer to download a model that is missing, if there is a user to answer."""
    if loading.served:
        return
    from pandacli.checkpoints import MODELS

    known = MODELS.get(loading.name)
    if not screen.is_interactive or known is None or known.repo is None:
        return
    from pandacli.checkpoints.hub import is_offline
    from pandacli.checkpoints.inventory import is_available

    if is_offline():
        return
    with suppress(ModelError):
        loading.resolve()
        return
    # is_available raises for a folder that cannot be read
    whole = size(known.download_bytes)
    question = f"{known.name} is not on this machine; download {whole} from Hugging Face?"
    if not is_available(known) and screen.confirm(question):
        from pandacli.cli.models import install

        install(loading, screen)


def check_opens(clip: Clip) -> None:
    """Raise a ClipError for a file that is no video; quick, frames are not decoded."""
    from pandacli.video.container import check_file, open_container

    check_file(clip.path)
    with open_container(clip.path):
        pass


def image_size(loading: Loading) -> int:
    """Return the side of the model's input in pixels; raises `ModelError`."""
    if loading.served:
        return loading.served.image_size
    from pandacli.checkpoints import read_image_size

    return read_image_size(loading.resolve().folder)


def read_clip(
    clip: Clip,
    num_frames: int,
    screen: Screen,
    *,
    notices: bool = True,
    loading: Loading | None = None,
) -> tuple["Frames", float]:
    """Return sampled frames and the seconds that took; load the model of `loading` meanwhile."""
    started = perf_counter()
    with screen.status("reading frames"):
        from pandacli.video import sample_frames  # its imports take a tenth of a second

        if loading:
            with suppress(PandaError):  # reading the frames reports what is wrong with the file
                check_opens(clip)
                loading.begin()
        frames = sample_frames(clip, num_frames)
    seconds = perf_counter() - started
    for sentence in frames.notices if notices else ():
        screen.notice(sentence)
    return frames, seconds


def cached_prefixes(
    clip: Clip,
    num_frames: int,
    cache_size: int,
    full_hash: bool,
    screen: Screen,
    loading: Loading,
) -> "ClipCache | None":
    """Return the part of the prefix cache for this clip.

    None without a cache or a valid file, and with a server, which has its own.
    """
    if cache_size and not loading.served:
        # reading the frames reports what is wrong with the file
        with screen.status("reading frames"), suppress(PandaError, OSError):
            from pandacli.prefix_cache.clip_cache import ClipCache
            from pandacli.video.container import check_file

            check_file(clip.path)  # hashing a pipe would block
            return ClipCache(clip, num_frames, budget=cache_size, whole=full_hash)
    return None


@contextmanager
def prefix_saved_afterwards(session: "VideoSession", screen: Screen) -> Iterator[None]:
    """Save the prefix of the clip after the block, also after a `PandaError` in it."""

    def save() -> None:
        try:
            with screen.status("caching the clip"):
                session.keep()
        except PandaError as error:  # a notice, because the answer is there
            screen.notice(error.message)

    try:
        yield
    except PandaError:
        save()
        raise
    save()
