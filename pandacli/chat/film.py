"""The clip of a chat as a film that is looked at through windows.

The answers are about other frames than those of the conversation: they see no turns, and become
none. What was found last can be opened as the chat's next clip.
"""

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from pandacli.errors import PandaError, UsageError
from pandacli.timeline.asking import Asked, Outcome, look_at_windows, outcomes
from pandacli.video.clip import MIN_LENGTH, Clip
from pandacli.video.windows import FilmReader, span_of

if TYPE_CHECKING:
    from pandacli.chat.chat import Chat
    from pandacli.timeline.segments import Segment, SegmentSearch


def window_outcomes(chat: "Chat", length: float, question: str) -> Generator[Outcome]:
    """The answers about each window of the clip in view, as they come; to be closed.

    If choices are set, they are scored, and cleared after the last window. What is answered is
    kept as moments.
    """
    clip, moments = chat.clip, list[Clip]()
    asked = Asked([question], chat.options, chat.choices, clip.num_frames, clip.system)
    looks = look_at_windows([clip.source], length, clip.num_frames, clip.image_size)
    with closing(looks):
        for outcome in outcomes(looks, asked, chat.idle_model):
            answered = not all(isinstance(each, PandaError) for each in outcome.results)
            if answered and outcome.look.span:
                moments.append(Clip(clip.source.path, *outcome.look.span))
                chat.moments = moments  # what was found before is kept until there is something
            yield outcome
    chat.choices = ()


@contextmanager
def segment_search(chat: "Chat", question: str) -> "Iterator[tuple[SegmentSearch, FilmReader]]":
    """A search for the segments of the clip in view where the answer to a question is yes.

    It comes with the reader of its film. Waits for the model.
    """
    clip, panda = chat.clip, chat.idle_model()
    from pandacli.timeline.segments import SegmentSearch  # imports torch

    with FilmReader(clip.source.path, clip.num_frames, clip.image_size) as reader:
        span = span_of(clip.source, clip.frames.info.duration)
        search = SegmentSearch(
            panda, reader, span, question, num_frames=clip.num_frames, system=clip.system
        )
        yield search, reader


def keep_segments(chat: "Chat", segments: "Iterable[Segment]") -> None:
    """Keep segments as moments; where there are none, those from before stay."""
    path = chat.clip.source.path
    ranges = [(start, max(end, start + MIN_LENGTH)) for start, end, _ in segments]
    chat.moments = [Clip(path, start, end) for start, end in ranges] or chat.moments


def moment(chat: "Chat", number: int) -> Clip:
    """The moment with a number, from 1, in what was found last; UsageError if there is none."""
    if not chat.moments:
        hint = "/when QUESTION and /every 10s QUESTION list parts of the video"
        raise UsageError("nothing is listed yet", hint)
    if not 1 <= number <= len(chat.moments):
        raise UsageError(f"there is no #{number}: the last list ends with #{len(chat.moments)}")
    return chat.moments[number - 1]
