"""`/when`, `/every` and `/clip #N`: parts of the film are listed, and opened as clips."""

import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pandacli.chat.chat import Chat, SampledClip
from pandacli.errors import ClipError, PandaError, UsageError
from pandacli.inference.spec import Answer, Choice, Scores, Stats
from pandacli.terminal.console import Screen
from pandacli.terminal.piped_chat import PipedChat
from pandacli.terminal.text import sanitize
from pandacli.video import Clip
from pandacli.video.windows import Span
from tests.chat.conftest import OTHER, QUESTION, StartChat, questions, sampled_clip
from tests.terminal.conftest import Capture, RunRepl, Tty

SHOWN = (Span(10.0, 20.0), Span(40.0, 45.0))
"""When the thing that is asked for is there."""


def film(clip: Clip, *, seconds: float = 60.0, **more: Any) -> SampledClip:
    """A sampled clip of a film of some length."""
    sampled = sampled_clip(clip, **more)
    info = replace(sampled.frames.info, duration=seconds)
    return replace(sampled, frames=replace(sampled.frames, info=info))


class Reader:
    """Reads frames of any film; those of `broken` windows fail."""

    broken: Callable[[Span], bool] = staticmethod(lambda _: False)

    def __init__(self, path: Path, *_: object) -> None:
        self._frames = sampled_clip(Clip(path)).frames

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def info(self) -> Any:
        return replace(self._frames.info, duration=60.0)

    def read(self, spans: Iterable[Span]) -> Iterator[tuple[Span, Any]]:
        for span in spans:
            if self.broken(span):
                yield span, ClipError("the decoder crashed")
            else:
                times = tuple(span.start + share * (span.end - span.start) for share in (0, 0.9))
                yield span, replace(self._frames, times=times)


class Judge:
    """Scores yes where a window shows a time of SHOWN; raises `error` after `left` windows."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.spans: list[Span] = []
        self.left, self.error = 10**9, BaseException()

    def __call__(
        self, _panda: Any, looks: Iterable[Any], question: str, choices: tuple[str, ...], **_: Any
    ) -> Iterator[tuple[Span, Any, Scores | PandaError]]:
        self.asked.append(question)
        for span, frames in looks:
            if self.left == 0:
                self.left = -1
                raise self.error
            self.left -= 1
            self.spans.append(span)
            if isinstance(frames, PandaError):
                yield span, None, frames
                continue
            sees = any(start <= t < end for t in frames.times for start, end in SHOWN)
            logprobs = [-1.0 if ("yes" in text.lower()) == sees else -9.0 for text in choices]
            shares = (Choice(text, each, 0) for text, each in zip(choices, logprobs, strict=True))
            yield span, frames, Scores(question, tuple(shares), 1.0)


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Judge:
    judge = Judge()
    monkeypatch.setattr("pandacli.timeline.segments.scores", judge)
    monkeypatch.setattr("pandacli.timeline.looking.answers", speak)
    for module in ("chat.film", "video.windows"):
        monkeypatch.setattr(f"pandacli.{module}.FilmReader", Reader)
    monkeypatch.setattr(Reader, "broken", staticmethod(lambda _: False))
    return judge


@pytest.fixture
def run_film(run_repl: RunRepl, source: Clip, judge: Judge) -> RunRepl:
    """Runs a REPL about a film of a minute."""
    del judge  # in its place

    def run(*lines: object, **more: Any) -> Chat:
        chat = run_repl(*lines, **({"sample": film, "clip": film(source)} | more))
        chat.wait(10)  # for the clip that was opened last
        return chat

    return run


@pytest.fixture
def pipe_film(
    start_chat: StartChat, source: Clip, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Chat]:
    """Sends lines to a piped chat about a film of a minute."""
    del judge

    def pipe(*lines: str) -> Chat:
        sent = "".join(f"{line}\n" for line in lines).encode()
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(sent)))
        chat = start_chat(clip=film(source))
        PipedChat(chat, Screen(), film).run()
        return chat

    return pipe


def speak(
    _panda: Any, looks: Iterable[Any], _questions: Any, *_: Any, **more: Any
) -> Iterator[tuple[Any, Any, list[Answer | PandaError]]]:
    """Answers each window with its number and the system prompt; Ctrl-C after the third."""
    for number, (look, frames) in enumerate(looks, 1):
        if number > 3 and more["system"] == "stop":
            raise KeyboardInterrupt
        stats = Stats(2, 9, 3, 3, 3, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0)
        answer = Answer(f"Window\n{number}.", "stop", stats, "?")
        yield (look, None, [frames]) if isinstance(frames, PandaError) else (look, frames, [answer])


def listed(text: str) -> list[tuple[str, float, float, float]]:
    """Number, start, end and probability of the listed segments."""
    rows = [line.split() for line in text.splitlines() if line.startswith("#")]
    return [
        (number, float(start.removeprefix("0:")), float(end.removeprefix("0:")), float(share))
        for number, start, _, end, share in rows
    ]


def assert_shown(text: str, *segments: Span) -> None:
    found = listed(text)
    assert [number for number, *_ in found] == [f"#{n}" for n, _ in enumerate(segments, 1)]
    for (_, start, end, probability), segment in zip(found, segments, strict=True):
        assert start == pytest.approx(segment.start, abs=0.6)
        assert end == pytest.approx(segment.end, abs=0.6)
        assert probability > 0.99


def test_when_lists_numbered_segments_and_is_no_turn(run_film: RunRepl, capsys: Capture) -> None:
    chat = run_film(QUESTION, "/when Is there a star?", OTHER)
    assert questions(chat) == [QUESTION, OTHER]
    assert (chat.clip.source.start, chat.clip.source.end) == (None, None)
    assert_shown(capsys.readouterr().out, *SHOWN)


def test_undo_and_retry_after_when_are_about_the_last_turn(
    run_film: RunRepl, tmp_path: Path
) -> None:
    saved = tmp_path / "talk.json"
    lines = QUESTION, OTHER, "/when Is there a star?", "/retry", "/undo", f"/save {saved}"
    assert questions(run_film(*lines)) == [QUESTION]
    assert "star" not in saved.read_text()


def test_clip_opens_a_listed_segment(run_film: RunRepl, capsys: Capture) -> None:
    chat = run_film("/when Is there a star?", "/clip #2")
    clip = chat.clip.source
    assert clip.path.name == "clip.mp4"
    assert (clip.start, clip.end) == (pytest.approx(40, abs=0.6), pytest.approx(45, abs=0.6))
    assert "clip.mp4: 0:" in capsys.readouterr().err.splitlines()[-1]


def test_how_to_open_a_segment_is_said_once(run_film: RunRepl, capsys: Capture) -> None:
    run_film("/when Is there a star?", "/when Is there a star?")
    assert capsys.readouterr().err.count("/clip #1 ") == 1


def test_when_searches_only_the_clip_in_view(
    run_film: RunRepl, judge: Judge, capsys: Capture
) -> None:
    run_film("/clip 30 50", "/when Is there a star?")
    assert_shown(capsys.readouterr().out, SHOWN[1])
    assert min(span.start for span in judge.spans) == 30
    assert max(span.end for span in judge.spans) == 50


def test_list_stays_open_to_clip_where_the_next_search_finds_nothing(
    run_film: RunRepl, capsys: Capture
) -> None:
    lines = "/when a star appears.", "/clip 50 60", "/when a star appears.", "/clip #1"
    chat = run_film(*lines)
    assert chat.clip.source.start == pytest.approx(10, abs=0.6)
    assert "nothing found: the highest probability of yes is 0." in capsys.readouterr().err


def test_statement_becomes_a_question(run_film: RunRepl, judge: Judge) -> None:
    run_film("/when a star appears.")
    assert set(judge.asked) == {"Does the video show this: a star appears?"}


def test_interrupted_search_lists_what_it_has_found(
    run_film: RunRepl, judge: Judge, capsys: Capture
) -> None:
    judge.left, judge.error = 30, KeyboardInterrupt()
    chat = run_film("/when Is there a star?", "/clip #1", QUESTION)
    assert questions(chat) == [QUESTION]
    assert chat.clip.source.start == pytest.approx(10, abs=1.1)
    shown = capsys.readouterr()
    assert len(listed(shown.out)) == 1
    assert "stopped at 0:31 of 1:00; the boundaries are not refined" in shown.err
    assert "stopped\n" in shown.err


def test_unreadable_windows_are_counted(
    run_film: RunRepl, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(Reader, "broken", staticmethod(lambda span: 20 < span.start < 30))
    run_film("/when Is there a star?")
    shown = capsys.readouterr()
    assert_shown(shown.out, *SHOWN)
    assert "9 windows could not be looked at (0:21 to 0:31): the decoder crashed" in shown.err


def test_unreadable_film_is_an_error_and_the_chat_continues(
    run_film: RunRepl, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(Reader, "broken", staticmethod(lambda _: True))
    assert questions(run_film("/when Is there a star?", QUESTION)) == [QUESTION]
    shown = capsys.readouterr()
    assert listed(shown.out) == []
    assert "panda: the decoder crashed" in shown.err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/when", "usage: /when QUESTION"),
        ("/every", "usage: /every LENGTH QUESTION"),
        ("/every 10s", "usage: /every LENGTH QUESTION"),
        ("/every What happens?", "'What' is not a length of time"),
        ("/every 0s What happens?", "'0s' is too short"),
        ("/every -5 What happens?", "'-5' is not a length of time"),
        ("/every 10 seconds What happens?", "'10 seconds' is not a length of time"),
        ("/clip #1", "nothing is listed yet"),
        ("/clip #", "usage: /clip [FROM [TO] | #N]"),
        ("/clip 1 #2", "usage: /clip [FROM [TO] | #N]"),
        (f"/clip #{'9' * 5000}", "usage: /clip [FROM [TO] | #N]"),
    ],
)
def test_wrong_argument_is_an_error(
    run_film: RunRepl, capsys: Capture, line: str, message: str
) -> None:
    assert questions(run_film(line, QUESTION)) == [QUESTION]
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("number", [0, 3])
def test_number_that_is_not_listed_is_an_error(
    run_film: RunRepl, capsys: Capture, number: int
) -> None:
    chat = run_film("/when Is there a star?", f"/clip #{number}")
    assert chat.clip.source.start is None
    assert f"there is no #{number}: the last list ends with #2" in capsys.readouterr().err


def test_film_of_one_picture_is_one_window(
    run_film: RunRepl, source: Clip, judge: Judge, capsys: Capture
) -> None:
    run_film("/when Is there a star?", clip=film(source, seconds=0.04))
    assert judge.spans == [Span(0, 0.04)]
    assert "nothing found: the highest probability of yes is 0." in capsys.readouterr().err


@pytest.mark.parametrize("line", ["/every 25s What happens?", "/every  25 s\nWhat happens?"])
def test_every_lists_a_numbered_line_a_window_and_is_no_turn(
    run_film: RunRepl, capsys: Capture, line: str
) -> None:
    chat = run_film(line, "/clip #2")
    lines = ["#1  0:00 - 0:25  Window 1.", "#2  0:25 - 1:00  Window 2."]
    shown = capsys.readouterr()
    assert shown.out.splitlines() == lines
    assert shown.err.count("/clip #1 opens") == 1
    assert chat.turns == []
    assert (chat.clip.source.start, chat.clip.source.end) == (25, 60)


def test_long_answer_is_wrapped_on_a_terminal(
    run_film: RunRepl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "24")
    terminal = Tty()
    monkeypatch.setattr("sys.stdout", terminal)
    run_film("/every 1:00 What happens?", clip=film(Clip(Path("a.mp4"))))
    assert terminal.getvalue() == "#1  0:00 - 1:00  Window\n    1.\n"


def test_interrupted_windows_stay_listed(run_film: RunRepl, source: Clip, capsys: Capture) -> None:
    clip = replace(film(source), system="stop")
    chat = run_film("/every 10s What happens?", "/clip #3", QUESTION, clip=clip)
    shown = capsys.readouterr()
    assert shown.out.splitlines()[:3][-1] == "#3  0:20 - 0:30  Window 3."
    assert "interrupted after 3 of 6 windows" in shown.err
    assert "stopped\n" in shown.err
    assert questions(chat) == [QUESTION]
    assert chat.clip.source.start == 20


def test_window_without_frames_has_no_number(
    run_film: RunRepl, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(Reader, "broken", staticmethod(lambda span: span.start == 10))
    chat = run_film("/every 10s What happens?", "/clip #2")
    shown = capsys.readouterr()
    assert [line[:7] for line in shown.out.splitlines()[:2]] == ["#1  0:0", "#2  0:2"]
    assert "0:10 - 0:20: the decoder crashed" in shown.err
    assert chat.clip.source.start == 20


def test_choices_answer_every_window_and_are_cleared(
    run_film: RunRepl, monkeypatch: pytest.MonkeyPatch, judge: Judge, capsys: Capture
) -> None:
    def score(panda: Any, looks: Any, asked: Any, choices: Any, **_: Any) -> Iterator[Any]:
        for look, frames, scores in judge(panda, looks, asked[0], choices):
            yield look, frames, [scores]

    monkeypatch.setattr("pandacli.timeline.looking.scores_of_all", score)
    chat = run_film("/choices yes|no", "/every 20s Is there a star?")
    answers = [line.split()[-1] for line in capsys.readouterr().out.splitlines()]
    assert answers == ["yes", "no", "yes"]
    assert chat.choices == ()


def test_pipe_ends_a_list_with_an_empty_line(
    pipe_film: Callable[..., Chat], capsys: Capture
) -> None:
    chat = pipe_film("/when Is there a star?", "/clip #2", QUESTION, "/when Is there a star?")
    first, second = capsys.readouterr().out.split("\n\n", 1)
    assert_shown(first, *SHOWN)
    answer, rest = second.split("\n", 1)
    assert [sanitize(turn.answer) for turn in chat.turns] == [answer]
    assert_shown(rest, SHOWN[1])
    assert rest.endswith("\n\n")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/every soon What?", "line 2: 'soon' is not a length"),
        ("/when", "line 2: usage: /when QUESTION"),
        ("/clip #9", "line 2: nothing is listed yet"),
        ("/clip 2 1", "line 2: the range ends"),
    ],
)
def test_wrong_argument_in_a_pipe_names_the_line(
    pipe_film: Callable[..., Chat], line: str, message: str
) -> None:
    with pytest.raises(UsageError) as raised:
        pipe_film(QUESTION, line, QUESTION)
    assert raised.value.message.startswith(message)


def test_sparse_sampling_is_said_once_per_clip(
    run_film: RunRepl, source: Clip, capsys: Capture
) -> None:
    def sparse(clip: Clip, **more: Any) -> SampledClip:
        sampled = film(clip, **more)
        return replace(sampled, frames=replace(sampled.frames, times=(0.0, 50.0)))

    run_film("/frames 8", "/clip 1", "/clip", sample=sparse, clip=sparse(source))
    assert capsys.readouterr().err.count("looks closer") == 2
