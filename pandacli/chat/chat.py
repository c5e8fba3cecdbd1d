"""A chat: model and prefix load in the background, turns are saved to a log."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from pandacli.background import Background, Say, Step
from pandacli.chat.conversation import Conversation, Turn
from pandacli.chat.transcript import Transcript, write_transcript
from pandacli.checkpoints.registry import MODELS
from pandacli.errors import PandaError
from pandacli.inference.spec import GenerationOptions
from pandacli.video.clip import Clip

if TYPE_CHECKING:
    from pandacli.inference import AnswerStream, Panda
    from pandacli.inference.session import VideoSession
    from pandacli.inference.spec import Scores, ScoringStats
    from pandacli.prefix_cache.clip_cache import ClipCache
    from pandacli.video import Frames


@dataclass(frozen=True)
class SampledClip:
    source: Clip
    frames: "Frames"
    seconds: float  # that sampling took
    image_size: int  # side of the model's input, in pixels
    num_frames: int  # of the model's input, with padding
    system: str | None = None
    cache: "ClipCache | None" = None

    @property
    def model_frames(self) -> "Frames":
        from pandacli.video import fit_to_box

        pixels = fit_to_box(self.frames.pixels, image_size=self.image_size)
        return replace(self.frames, pixels=pixels)


def count_turns(count: int) -> str:
    return f"{count} {'turn' if count == 1 else 'turns'}"


def dropped_turns_notice(dropped: int) -> str:
    what = "the conversation is longer than the model's context; forgotten: its first"
    return f"{what} {count_turns(dropped)}"


class Chat:
    """A conversation whose model and prefix load in the background."""

    def __init__(
        self,
        load: Callable[[Say], "Panda"],
        model: str,  # name or folder
        clip: SampledClip,
        options: GenerationOptions,  # of the next turn
        *,
        turns: Iterable[Turn] = (),
        log: Path | None = None,  # JSON file that each turn is saved to
        new_log: Callable[[], Path | None] = lambda: None,  # for another conversation
    ) -> None:
        self.model, self.options, self.log, self._new_log = model, options, log, new_log
        self.choices: tuple[str, ...] = ()  # the possible answers to the next question, if given
        self.moments: list[Clip] = []  # what was found last, see `film`
        # called in another thread when `status` or `error` changes
        self.on_change: Callable[[], None] = lambda: None
        self._prefill_lock = Lock()
        self.turns = list(turns)
        self._conversation: Conversation | None = None
        self._previous: tuple[SampledClip, Background[VideoSession]] | None = None
        self._saving: tuple[VideoSession, Background[None]] | None = None
        self.panda = Background(load, lambda: self.on_change())
        self._open(clip)
        self._logged = self.transcript()

    def open_clip(self, clip: SampledClip) -> None:
        """Switch to another clip; the turns stay."""
        self._previous = self.clip, self._session
        self._open(clip)

    def reopen_previous(self) -> bool:
        """Return to the previous clip after `open_clip` failed; whether there was one."""
        if self._previous is None or self.panda.error:
            return False
        (self.clip, self._session), self._previous = self._previous, None
        return True

    def _open(self, clip: SampledClip) -> None:
        self.clip = clip

        def prefill(say: Say) -> "VideoSession":
            panda = self.panda.result()
            with self._prefill_lock:
                session = panda.open(
                    clip.frames,
                    num_frames=clip.num_frames,
                    system=clip.system,
                    frames_seconds=clip.seconds,
                    cache=clip.cache or False,
                )
                if self.clip is clip:  # the user may have opened another one meanwhile
                    say("looking at the clip")
                    session.prepare()
                    self._previous = None  # its KV cache may be gigabytes
                return session

        self._session = Background(prefill, lambda: self.on_change())

    @property
    def status(self) -> str:
        """What is still loading; "" when ready."""
        work = (self.panda, self._session)
        return next((task.doing or "loading" for task in work if not task.ended), "")

    @property
    def waiting(self) -> tuple[float, Step | None]:
        """Since when it loads, by the monotonic clock, and the step that is waited for now."""
        return self._session.began, self._session.step

    @property
    def error(self) -> BaseException | None:
        return self.panda.error or self._session.error

    def wait(self, seconds: float) -> bool:
        return self._session.wait(seconds)

    @property
    def dropped(self) -> int:
        """How many of the first turns no longer fit the context."""
        return self._conversation.dropped if self._conversation else 0

    def ask(self, question: str) -> "AnswerStream":
        """Ask once ready; the answer becomes a turn, see `Conversation.ask`."""
        self._wait_for_saving()
        return self._current_conversation().ask(question, self.options)

    def score(self, question: str) -> "tuple[Scores, ScoringStats]":
        """Answer by the likeliest of `choices`, and clear them; see `Conversation.score`."""
        self._wait_for_saving()
        scored = self._current_conversation().score(question, self.choices)
        self.choices = ()
        return scored

    def idle_model(self) -> "Panda":
        """The model, once it computes nothing else; raises the errors of model and clip."""
        self._session.result()
        self._wait_for_saving()
        return self.panda.result()

    def _wait_for_saving(self) -> None:
        if self._saving:
            self._saving[1].wait()  # llama.cpp cannot save and decode at once

    def start_saving_prefix(self) -> None:
        """Save the clip's prefix to the disk cache in the background, once."""
        if self.clip.cache is None or not self._session.ended or self._session.error:
            return
        session = self._session.result()
        if self._saving is None or self._saving[0] is not session:
            self.finish_saving_prefix()
            self._saving = session, Background(lambda _: session.keep())

    def finish_saving_prefix(self) -> PandaError | None:
        """Wait until the prefix is saved; return why it could not be."""
        try:
            if self._saving:
                self._saving[1].result()
        except PandaError as error:
            return error
        return None

    def undo(self) -> Turn | None:
        if self._conversation:
            return self._conversation.undo()
        return self.turns.pop() if self.turns else None

    def replace_turns(self, turns: Iterable[Turn]) -> None:
        """Replace the history and start a new log; the old log stays."""
        if self.log is not None and self._logged.turns:
            self.log = self._new_log()
        self.turns = list(turns)
        self._conversation = None
        self._logged = replace(self.transcript(), turns=())

    def tokens(self) -> tuple[int, int] | None:
        """Tokens in the context and its size; None before the prefix is ready."""
        if not self._session.ended or self._session.error:
            return None
        context = self.panda.result().context
        return min(self._current_conversation().tokens(), context), context

    def _current_conversation(self) -> Conversation:
        session = self._session.result()
        if self._conversation is None or self._conversation.session is not session:
            self._conversation = Conversation(session, self.turns)
        return self._conversation

    def transcript(self) -> Transcript:
        clip = self.clip.source
        # a folder is saved as an absolute path, so that --continue works from everywhere
        folder = os.path.abspath(os.path.expanduser(self.model))  # noqa: PTH100, PTH111
        model = self.model if self.model in MODELS else folder
        video, frames, system = str(clip.path.absolute()), self.clip.num_frames, self.clip.system
        return Transcript(video, clip.start, clip.end, frames, model, system, tuple(self.turns))

    def save_log(self) -> None:
        """Save a changed conversation to its log; after a PandaError later calls do nothing."""
        now = self.transcript()  # a log is not begun without turns, but emptied if all are undone
        if self.log is None or now == self._logged or not (now.turns or self._logged.turns):
            return
        try:
            write_transcript(now, self.log)
            self._logged = now
        except PandaError:
            self.log = None
            raise
