"""A conversation in a terminal: what each line does, and what is said about it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from pandacli import Panda
from pandacli.chat.chat import Chat, SampledClip
from pandacli.chat.conversation import Turn
from pandacli.chat.transcript import Transcript, read_transcript, write_transcript
from pandacli.errors import ClipError, ModelError
from pandacli.terminal.console import Screen
from pandacli.terminal.repl import Repl
from pandacli.terminal.text import sanitize
from pandacli.video import Clip
from tests.terminal.chat.conftest import (
    OTHER,
    QUESTION,
    Capture,
    Converse,
    Typist,
    made_up,
    questions,
    too_many_frames,
)


def test_the_clip_and_the_model_are_told_first(converse: Converse, capsys: Capture) -> None:
    converse()
    clip, model = capsys.readouterr().err.splitlines()
    assert clip == "clip.mp4: 0:02, 64x48, 10 fps, mpeg4"
    assert model == "Loading small. Type your question now; /help for commands."


def test_quiet_begins_without_a_word(start: Callable[..., Chat], capsys: Capture) -> None:
    typist: Any = Typist()
    Repl(start(), typist, Screen(quiet=True), made_up, {}).run()
    assert capsys.readouterr().err == ""


def test_what_was_odd_about_the_clip_is_told(
    converse: Converse, clip: Clip, capsys: Capture
) -> None:
    converse(subject=made_up(clip, notices=("half of it is missing",)))
    assert "panda: half of it is missing" in capsys.readouterr().err


def test_few_frames_of_a_long_film_are_told_of(
    converse: Converse, clip: Clip, capsys: Capture
) -> None:
    subject = made_up(clip)
    converse(subject=replace(subject, frames=replace(subject.frames, times=(0.0, 60.0))))
    said = "panda: 2 frames sampled from 2:00 (one every 60 s); /clip FROM TO looks closer\n"
    assert said in capsys.readouterr().err


def test_answers_go_to_stdout_and_become_turns(converse: Converse, capsys: Capture) -> None:
    talk = converse(QUESTION, f"  {OTHER} ")
    assert questions(talk) == [QUESTION, OTHER]
    shown = capsys.readouterr().out
    assert shown.splitlines() == [sanitize(turn.answer) for turn in talk.turns]


@pytest.mark.parametrize("line", ["", "   ", "\n"])
def test_an_empty_line_asks_nothing(converse: Converse, line: str) -> None:
    assert questions(converse(line)) == []


@pytest.mark.parametrize("way_out", ["/exit", "/quit", "/bye", "/q", "exit", "QUIT", EOFError()])
def test_there_is_a_way_out(converse: Converse, way_out: object) -> None:
    assert questions(converse(way_out, QUESTION)) == []


def test_a_space_in_front_makes_a_slash_a_question(converse: Converse) -> None:
    assert questions(converse(" /what is this?")) == ["/what is this?"]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("/udno", "did you mean /undo?"),
        ("/set", "temperature  0.0"),
        ("/set temperature hot", "'hot' is not a number"),
        ("/set colour red", "there is no colour; /set changes max-tokens, temperature, seed"),
        ("/nope", "panda: /nope is not a command\n       /help lists them"),
        ("/ help", "/retry "),
        ("/? ", "/retry "),
        ("/set temperature", "temperature is 0.0; to change it: /set temperature 0.2"),
        ("/clip 1 2 3", "usage: /clip [FROM [TO]]"),
        ("/clip 2 1", "give FROM a time before TO"),
        ("/clip soon", "'soon' is not a time"),
        (f"/clip {'9' * 5000}:00", "no video is so long"),
        (f"/clip {'9' * 308}", "no video is so long"),
        ("/frames show", "usage: /frames [N | save FILE]"),
        ("/frames save", "usage: /frames [N | save FILE]"),
        ("/frames 9", "use 1, or a multiple of 4"),
        ("/frames -4", "use 1, or a multiple of 4"),
        ("/frames save nowhere/sheet.png", "there is no folder"),
        ("/undo", "nothing to undo"),
        ("/retry", "nothing to ask again"),
        ("/stats", "no answer yet"),
        ("/save talk.md", "nothing has been said yet"),
        ("/save talk.txt", "ends neither in .json nor in .md"),
        ("/load nowhere.json", "cannot read"),
        ("/help", "/retry                   ask the last question again"),
    ],
)
def test_what_is_wrong_is_said_and_the_talk_goes_on(
    converse: Converse, capsys: Capture, line: str, complaint: str
) -> None:
    assert questions(converse(line, QUESTION)) == [QUESTION]
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize("line", [f"/save {'x' * 300}.md", f"/frames save {'x' * 300}.png"])
def test_a_name_that_no_file_can_have_is_told(
    converse: Converse, capsys: Capture, line: str
) -> None:
    assert questions(converse(QUESTION, line, OTHER)) == [QUESTION, OTHER]
    assert "File name too long" in capsys.readouterr().err


def test_the_home_of_nobody_is_a_folder_like_another(converse: Converse, capsys: Capture) -> None:
    talk = converse("/load ~nobody-here/talk.json", "/video ~nobody-here/a.mp4")
    assert "cannot read ~nobody-here/talk.json" in capsys.readouterr().err
    assert talk.subject.clip.path == Path("~nobody-here/a.mp4")


def test_frames_shows_the_times(converse: Converse, capsys: Capture) -> None:
    converse("/frames")
    assert capsys.readouterr().out == "frames at 0:00, 0:01\n"


def test_frames_are_saved(converse: Converse, tmp_path: Path) -> None:
    converse(f"/frames save '{tmp_path / 'my sheet.png'}'")
    assert (tmp_path / "my sheet.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("line", "first", "last"), [("/clip 0.5 1", 0.5, 1.0), ("/clip", None, None)]
)
def test_another_part_is_looked_at(
    converse: Converse, line: str, first: float | None, last: float | None
) -> None:
    clip = converse(line).subject.clip
    assert (clip.path.name, clip.start, clip.end) == ("clip.mp4", first, last)


@pytest.mark.parametrize("line", ["/video other.mp4", "/clip 0.5 1"])
@pytest.mark.parametrize(
    ("answer", "left"),
    [("y\n", [QUESTION]), ("\n", [QUESTION]), ("n\n", []), ("what\nNO\n", [])],
)
def test_the_user_decides_whether_turns_are_kept_for_another_clip(
    converse: Converse, said: Callable[[str], None], line: str, answer: str, left: list[str]
) -> None:
    said(answer)
    talk = converse(QUESTION, line)
    assert questions(talk) == left
    clip = talk.subject.clip
    assert (clip.path.name, clip.start) in (("other.mp4", None), ("clip.mp4", 0.5))


@pytest.mark.parametrize("line", ["/video other.mp4", "/clip 0.5 1"])
@pytest.mark.parametrize("way", ["Ctrl-C", "Ctrl-D"])
def test_without_an_answer_the_clip_stays(
    converse: Converse,
    said: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    line: str,
    way: str,
) -> None:
    def interrupt() -> str:
        raise KeyboardInterrupt

    said("")
    if way == "Ctrl-C":
        monkeypatch.setattr("sys.stdin.readline", interrupt)
    talk = converse(QUESTION, line, OTHER)
    assert questions(talk) == [QUESTION, OTHER]
    assert (talk.subject.clip.path.name, talk.subject.clip.start) == ("clip.mp4", None)
    assert "[Y/n] \nstill on clip.mp4\n" in capsys.readouterr().err


def test_another_number_of_frames_is_looked_at_and_stays(
    converse: Converse, said: Callable[[str], None]
) -> None:
    said("y\n")
    talk = converse(QUESTION, "/frames 8", "/clip 0.5 1")
    assert talk.subject.num_frames == 8
    assert questions(talk) == [QUESTION]


def test_turns_that_were_kept_can_be_taken_back(
    converse: Converse, said: Callable[[str], None]
) -> None:
    said("y\n")
    assert questions(converse(QUESTION, "/video other.mp4", "/undo")) == []


def test_a_clip_that_cannot_be_read_leaves_the_one_before(
    converse: Converse, capsys: Capture
) -> None:
    def look(_: Clip, **__: Any) -> SampledClip:
        raise ClipError("there is no such file")

    talk = converse("/video other.mp4", QUESTION, look=look)
    assert talk.subject.clip.path.name == "clip.mp4"
    assert questions(talk) == [QUESTION]
    assert "there is no such file" in capsys.readouterr().err


def test_a_clip_the_model_cannot_hold_leads_back(
    converse: Converse,
    said: Callable[[str], None],
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said("y\n")
    asked, opened = Event(), Panda.open

    def open_late(self: Panda, *clip: Any, num_frames: int, **more: Any) -> Any:
        if num_frames == 64:
            asked.wait(10)
        return opened(self, *clip, num_frames=num_frames, **more)

    def ask_meanwhile() -> str:
        asked.set()
        return OTHER

    monkeypatch.setattr(Panda, "open", open_late)
    talk = converse(
        QUESTION,
        "/video long.mp4",
        ask_meanwhile,
        "And now?",
        look=lambda clip, **_: too_many_frames(made_up(clip)),
    )
    assert talk.subject.clip.path.name == "clip.mp4"
    assert questions(talk) == [QUESTION, "And now?"]
    shown = capsys.readouterr().err
    assert shown.count("the model can hold 512") == 1
    assert "back to clip.mp4" in shown


def test_a_model_that_cannot_be_loaded_ends_it(converse: Converse, capsys: Capture) -> None:
    def load(_: object) -> Panda:
        raise ModelError("damaged")

    with pytest.raises(ModelError):
        converse(QUESTION, load=load)
    assert "damaged" not in capsys.readouterr().err, "the way out says it, once"


def test_leaving_is_no_error_where_the_model_is_not_to_be_had(converse: Converse) -> None:
    def load(_: object) -> Panda:
        raise ModelError("damaged")

    converse("/exit", load=load)


def test_a_reset_begins_a_new_log_and_leaves_the_old_one(
    start: Callable[..., Chat], tmp_path: Path
) -> None:
    talk = start(new_log=lambda: tmp_path / "second.json")
    talk.wait(10)
    for question, log in ((QUESTION, "log.json"), (OTHER, "second.json")):
        "".join(talk.ask(question))
        talk.keep()
        kept = read_transcript(tmp_path / log).turns
        assert [turn.question for turn in kept] == [question]
        talk.replace([])
        talk.keep()
        assert read_transcript(tmp_path / log).turns == kept


def test_what_is_taken_back_leaves_the_log_at_once(converse: Converse, tmp_path: Path) -> None:
    def log() -> str:
        assert read_transcript(tmp_path / "log.json").turns == ()
        return "/exit"

    converse(QUESTION, "/undo", log)


def test_a_log_that_cannot_be_written_is_told_once(
    converse: Converse, tmp_path: Path, capsys: Capture
) -> None:
    converse(QUESTION, OTHER, log=tmp_path / "missing" / "log.json")
    assert capsys.readouterr().err.count("the conversation is not kept: cannot write") == 1


def test_a_saved_conversation_can_be_loaded(
    converse: Converse, tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "my talk.json"
    talk = converse(QUESTION, f"/save {path}", "/reset", f"/load {path}")
    assert questions(talk) == [QUESTION]
    assert f"saved 1 turn to {path}" in capsys.readouterr().err


@pytest.mark.parametrize(("answer", "kept"), [("y\n", False), ("n\n", True)])
def test_a_file_is_replaced_only_by_a_yes(
    converse: Converse, said: Callable[[str], None], tmp_path: Path, answer: str, kept: bool
) -> None:
    path = tmp_path / "talk.md"
    path.write_text("mine")
    said(answer)
    converse(QUESTION, f"/save {path}")
    assert (path.read_text() == "mine") == kept


def test_a_conversation_about_another_video_is_told(
    converse: Converse, tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "talk.json"
    write_transcript(Transcript("/films/b.mp4", None, None, 8, "tiny", None, ()), path)
    converse(f"/load {path}")
    assert "that was about /films/b.mp4" in capsys.readouterr().err


def test_the_last_turns_are_shown_again_and_marked_where_cut(
    converse: Converse, capsys: Capture
) -> None:
    turns = [Turn(f"{n}?", f"{n}.") for n in range(3)] + [Turn("4?", "And", "interrupted")]
    converse(turns=turns)
    printed = capsys.readouterr()
    assert printed.out == "> 2?\n2.\n> 4?\nAnd\n"
    assert printed.err.endswith("(2 turns before)\n(interrupted)\n")


def test_a_question_of_several_lines_is_shown_as_it_was_typed(
    converse: Converse, capsys: Capture
) -> None:
    converse(turns=[Turn("one\ntwo", "yes")])
    assert capsys.readouterr().out == "> one\n  two\nyes\n"


def test_text_from_outside_commands_no_terminal(converse: Converse, capsys: Capture) -> None:
    hostile = "[bold]\x1b]0;x\x07"
    converse(f"/{hostile}", turns=[Turn(hostile, hostile)])
    printed = capsys.readouterr()
    assert "\x1b" not in printed.out + printed.err
    assert printed.out == "> [bold]\\x1b]0;x\\x07\n[bold]\\x1b]0;x\\x07\n"
