"""The clip of a chat as a film that is looked at through windows.

The answers are about other frames than those of the conversation: they see no turns, and become
none. What was found last can be opened as the chat's next clip.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pandacli.errors import UsageError
from pandacli.timeline.questions import as_question
from pandacli.video.clip import MIN_LENGTH, Clip
from pandacli.video.windows import FilmReader, Span, span_of

if TYPE_CHECKING:
    from pandacli.chat.chat import Chat
    from pandacli.timeline.segments import Segment, SegmentSearch


def range_in_view(chat: "Chat") -> Span:
    """The range of the film that the clip of a chat stands for, in seconds."""
    return span_of(chat.clip.source, chat.clip.frames.info.duration)


@contextmanager
def segment_search(chat: "Chat", question: str) -> "Iterator[SegmentSearch]":
    """A search for the segments of the clip in view where the answer to a question is yes.

    A statement is made a question. UsageError for an empty one; waits for the model.
    """
    wanted, clip = as_question(question), chat.clip
    panda = chat.idle_model()
    from pandacli.timeline.segments import SegmentSearch  # imports torch

    with FilmReader(clip.source.path, clip.num_frames, clip.image_size) as reader:
        yield SegmentSearch(
            panda,
            reader,
            range_in_view(chat),
            wanted,
            num_frames=clip.num_frames,
            system=clip.system,
        )


def keep_segments(chat: "Chat", segments: "Iterable[Segment]") -> None:
    """Keep segments as moments."""
    path = chat.clip.source.path
    ranges = [(start, max(end, start + MIN_LENGTH)) for start, end, _ in segments]
    chat.moments = [Clip(path, start, end) for start, end in ranges]


def moment(chat: "Chat", number: int) -> Clip:
    """The moment with a number, from 1, in what was found last; UsageError if there is none."""
    if not chat.moments:
        hint = "/when QUESTION lists parts of the video"
        raise UsageError("nothing is listed yet", hint)
    if not 1 <= number <= len(chat.moments):
        raise UsageError(f"there is no #{number}: the last list ends with #{len(chat.moments)}")
    return chat.moments[number - 1]
