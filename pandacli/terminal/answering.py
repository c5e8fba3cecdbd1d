"""A question of a chat on the screen, at its prompt and over a pipe alike.

It is a turn about the clip, or is asked about the windows of the clip, which are listed with a
number each.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from pandacli.chat.chat import dropped_turns_notice
from pandacli.chat.film import keep_segments, segment_search, window_outcomes
from pandacli.errors import PandaError
from pandacli.terminal import report
from pandacli.timeline.looking import as_question

if TYPE_CHECKING:
    from pandacli.chat.chat import Chat, SampledClip
    from pandacli.inference.spec import AnswerStream, Scores, ScoringStats
    from pandacli.terminal.console import Screen
    from pandacli.video import Clip

_CLOSER = "/every, /when or /clip FROM TO"


@contextmanager
def asked(
    chat: "Chat",
    screen: "Screen",
    question: str,
    watch: report.Stopwatch,
    quant: str | None,
    remedy: str,
) -> "Iterator[AnswerStream]":
    """Wait for model and clip, ask, and yield the stream; the notice of a cut one has `remedy`."""
    dropped = chat.dropped
    wait(chat, screen, watch)
    with closing(chat.ask(question)) as stream:
        announce(chat, screen, quant, dropped)
        yield stream
    if cut := report.truncation_notice(stream.answer, chat.options.max_tokens, remedy):
        screen.notice(cut)


def score(
    chat: "Chat", screen: "Screen", question: str, watch: report.Stopwatch, quant: str | None
) -> "tuple[Scores, ScoringStats]":
    """Wait for model and clip, and answer by the likeliest of the choices that are set."""
    dropped = chat.dropped
    wait(chat, screen, watch)
    with screen.status("scoring"):
        scored = chat.score(question)
    announce(chat, screen, quant, dropped)
    return scored


def wait(chat: "Chat", screen: "Screen", watch: report.Stopwatch) -> None:
    with watch.measure("model and clip"):
        if not chat.wait(0):
            with screen.status(chat.status) as say:
                while not chat.wait(0.2):
                    say(chat.status)
    watch.start_answer()


def announce(chat: "Chat", screen: "Screen", quant: str | None, dropped: int) -> None:
    """Print what was chosen for the user, who asked for `quant`, and what was forgotten."""
    if quant is not None and (chosen := report.placement_notice(chat.panda.result(), quant)):
        screen.notice(f"{chat.model} runs {chosen}")
    if chat.dropped > dropped:
        screen.notice(dropped_turns_notice(chat.dropped))


def show_windows(chat: "Chat", screen: "Screen", length: float, question: str, remedy: str) -> None:
    """Answer about windows of a length in seconds, a numbered line each; `remedy` as of `asked`."""
    from pandacli.terminal.answers import AnswerDisplay, Layout

    layout = Layout(1, 1, windows=True, numbered=True, closer="a shorter /every", remedy=remedy)
    display = AnswerDisplay(screen, layout, chat.options.max_tokens)
    display.begin(chat.model, chat.idle_model().windows_at_once)
    with closing(window_outcomes(chat, length, question)) as outcomes:
        display.show(outcomes)


def show_segments(chat: "Chat", screen: "Screen", question: str, *, pictures: bool = True) -> None:
    """List the segments where the answer is yes, numbered; after Ctrl-C those found so far."""
    from pandacli.terminal.segments import SegmentDisplay

    asked = as_question(question)
    if asked != question:
        screen.notice(f"the statement is asked as: {asked}")
    path, info = chat.clip.source.path, chat.clip.frames.info
    with segment_search(chat, asked) as (search, reader):
        display = SegmentDisplay(screen, search, numbered=True)
        try:
            with display.progress() as progress:
                search.run(progress)
        except KeyboardInterrupt:
            keep_segments(chat, display.show(str(path), path, info).segments)
            raise
        found = display.show(str(path), path, info)
        keep_segments(chat, found.segments)
        display.draw(found, reader, pictures=pictures)


def show_notices(clip: "SampledClip", screen: "Screen", said: "set[Clip]") -> None:
    """Print what is to be known of a clip; that its frames lie far apart once, as `said` keeps."""
    sparse = report.sparse_sampling_notice(clip.frames, _CLOSER)
    for sentence in clip.frames.notices:
        screen.notice(sentence)
    if sparse and clip.source not in said:
        said.add(clip.source)
        screen.notice(sparse)


def save_log(chat: "Chat", screen: "Screen") -> None:
    try:
        chat.save_log()
    except PandaError as error:
        screen.notice(f"the conversation is not kept: {error.message}")
