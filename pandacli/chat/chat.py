"""What is talked about and how: the clip, the model, the turns, and where they are kept."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from pandacli.background import Background, Say
from pandacli.chat.conversation import Conversation, Turn
from pandacli.chat.transcript import Transcript, write_transcript
from pandacli.checkpoints.registry import MODELS
from pandacli.errors import PandaError
from pandacli.video.clip import Clip

if TYPE_CHECKING:
    from pandacli.inference import AnswerStream, Panda, VideoSession
    from pandacli.prefix_cache.clip_cache import ClipCache
    from pandacli.video import Frames


@dataclass
class Manner:
    """How questions are answered; may be changed between them.

    Attributes:
        max_tokens: The longest answer, in tokens.
        temperature: Above 0, answers vary.
        seed: Makes varying answers repeatable.
    """

    max_tokens: int = 1024
    temperature: float = 0.0
    seed: int | None = None


@dataclass(frozen=True)
class SampledClip:
    """What is looked at.

    Attributes:
        clip: The file and the range.
        frames: What was sampled from it.
        seconds: How long that took.
        side: Of the square that the model sees a frame in, in pixels.
        num_frames: How many frames the model is shown; what the clip lacks is padding.
        system: The system prompt; None for the model's own.
        kept: What was computed of the clip before; None where nothing is to be kept.
    """

    clip: Clip
    frames: "Frames"
    seconds: float
    side: int
    num_frames: int
    system: str | None = None
    kept: "ClipCache | None" = None

    @property
    def seen(self) -> "Frames":
        """The frames in the size and shape in which the model gets them."""
        from pandacli.video import fit_to_box

        return replace(self.frames, pixels=fit_to_box(self.frames.pixels, image_size=self.side))


def count_turns(count: int) -> str:
    """So many turns, in words."""
    return f"{count} {'turn' if count == 1 else 'turns'}"


def too_long(forgotten: int) -> str:
    """What the user is told where the first turns are forgotten."""
    return (
        "the conversation is longer than the model's context; forgotten:"
        f" its first {count_turns(forgotten)}"
    )


def _from_anywhere(model: str) -> str:
    """A model's name; of one that is given as a folder, what leads there from every other."""
    if model in MODELS:
        return model
    return os.path.abspath(os.path.expanduser(model))  # noqa: PTH100, PTH111  (as `resolve`)


class Chat:
    """A conversation whose model and prefix are made ready in the background.

    Args:
        load: Loads the model; is given what to tell with how far it is.
        model: The model's name.
        subject: What is talked about first.
        manner: How questions are answered.
        turns: What has been said before.
        log: The file that each turn is saved to, as JSON; None for none.
        new_log: Returns the file for another conversation, or None where it cannot be kept.

    Attributes:
        panda: The model, while it is loaded and after.
        changed: Called, in another thread, when `doing` or `error` have changed.
    """

    def __init__(
        self,
        load: Callable[[Say], "Panda"],
        model: str,
        subject: SampledClip,
        manner: Manner,
        *,
        turns: Iterable[Turn] = (),
        log: Path | None = None,
        new_log: Callable[[], Path | None] = lambda: None,
    ) -> None:
        self.model, self.manner, self.log = model, manner, log
        self._new_log = new_log
        self.changed: Callable[[], None] = lambda: None
        self._computing = Lock()
        self._turns = list(turns)
        self._conversation: Conversation | None = None
        self._before: tuple[SampledClip, Background[VideoSession]] | None = None
        self._remembering: tuple[VideoSession, Background[None]] | None = None
        self.panda = Background(load, lambda: self.changed())
        self._look_at(subject)
        self._kept = self.transcript()

    def turn_to(self, subject: SampledClip) -> None:
        """Chat about another clip from now on; the turns stay."""
        self._before = self.subject, self._clip
        self._look_at(subject)

    def turn_back(self) -> bool:
        """Chat about the clip before again, where one that was turned to cannot be talked about.

        Returns:
            Whether there was one.
        """
        if self._before is None or self.panda.error:
            return False
        (self.subject, self._clip), self._before = self._before, None
        return True

    def _look_at(self, subject: SampledClip) -> None:
        self.subject = subject

        def look(say: Say) -> "VideoSession":
            panda = self.panda.result()
            with self._computing:
                clip = panda.open(
                    subject.frames,
                    num_frames=subject.num_frames,
                    system=subject.system,
                    frames_seconds=subject.seconds,
                    cache=subject.kept or False,
                )
                if self.subject is subject:  # or the user has gone on to another
                    say("looking at the clip")
                    clip.prepare()
                    self._before = None  # its cache may be gigabytes
                return clip

        self._clip = Background(look, lambda: self.changed())

    @property
    def doing(self) -> str:
        """What is being made ready, in a few words; "" where all is."""
        return next((b.doing or "loading" for b in (self.panda, self._clip) if not b.ended), "")

    @property
    def error(self) -> BaseException | None:
        """Why no question can be answered, if that is known."""
        return self.panda.error or self._clip.error

    def wait(self, seconds: float) -> bool:
        """Wait until a question can be answered at once, at most so long; whether it can."""
        return self._clip.wait(seconds)

    @property
    def turns(self) -> list[Turn]:
        """What has been said."""
        return self._conversation.turns if self._conversation else self._turns

    @property
    def forgotten(self) -> int:
        """How many of the turns no longer fit into the model's context."""
        return self._conversation.forgotten if self._conversation else 0

    def ask(self, question: str) -> "AnswerStream":
        """Ask, when all is ready; the answer becomes a turn, see `Conversation.ask`."""
        manner = self.manner
        if self._remembering:
            self._remembering[1].wait()  # llama.cpp does one thing at a time
        return self._on_clip().ask(
            question,
            max_tokens=manner.max_tokens,
            temperature=manner.temperature,
            seed=manner.seed,
        )

    def remember(self) -> None:
        """Begin to keep, for the next process, what was computed of the clip; once for each."""
        if self.subject.kept is None or not self._clip.ended or self._clip.error:
            return
        clip = self._clip.result()
        if self._remembering is None or self._remembering[0] is not clip:
            self.remembered()
            self._remembering = clip, Background(lambda _: clip.keep())

    def remembered(self) -> PandaError | None:
        """Wait until that is done; returns why it could not be, where it could not."""
        if self._remembering is None:
            return None
        _, keeping = self._remembering
        keeping.wait()
        error = keeping.error
        if error is None or isinstance(error, PandaError):
            return error
        raise error

    def undo(self) -> Turn | None:
        """Take the last turn back; returns it, or None where there is none."""
        if self._conversation:
            return self._conversation.undo()
        return self._turns.pop() if self._turns else None

    def replace(self, turns: Iterable[Turn]) -> None:
        """Begin another conversation, with these turns; the log of the one before stays."""
        if self.log is not None and self._kept.turns:
            self.log = self._new_log()
        self._turns = list(turns)
        self._conversation = None
        self._kept = replace(self.transcript(), turns=())

    def tokens(self) -> tuple[int, int] | None:
        """How many tokens the context holds so far, and could; None while nothing is ready."""
        if not self._clip.ended or self._clip.error:
            return None
        clip, seen = self._clip.result(), self._on_clip().seen()
        context = int(self.panda.result().model.config.max_position_embeddings)
        used = context - clip.tokens_left("", seen) if seen else clip.prefix_tokens
        return min(used, context), context

    def _on_clip(self) -> Conversation:
        clip = self._clip.result()
        if self._conversation is None or self._conversation.clip is not clip:
            self._conversation = Conversation(clip, self.turns)
        return self._conversation

    def transcript(self) -> Transcript:
        """The conversation on paper."""
        clip = self.subject.clip
        return Transcript(
            video=str(clip.path.absolute()),
            start=clip.start,
            end=clip.end,
            frames=self.subject.num_frames,
            model=_from_anywhere(self.model),
            system=self.subject.system,
            turns=tuple(self.turns),
        )

    def keep(self) -> None:
        """Save the conversation to its log, if it is another than when it was saved last.

        One in which nothing has been said gets no log; where all was taken back, the log is
        emptied.

        Raises:
            PandaError: The log cannot be written; it is given up.
        """
        now = self.transcript()
        if self.log is None or now == self._kept or not (now.turns or self._kept.turns):
            return
        try:
            write_transcript(now, self.log)
            self._kept = now
        except PandaError:
            self.log = None
            raise
