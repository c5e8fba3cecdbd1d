"""The chat REPL: what each input line does and shows."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from pandacli import Panda
from pandacli.chat.chat import SampledClip
from pandacli.chat.conversation import Turn
from pandacli.chat.transcript import Transcript, read_transcript, write_transcript
from pandacli.errors import ClipError, ModelError
from pandacli.terminal.console import Screen
from pandacli.terminal.repl import Repl
from pandacli.terminal.text import sanitize
from pandacli.video import Clip
from tests.chat.conftest import OTHER, QUESTION, StartChat, questions, sampled_clip
from tests.terminal.conftest import Capture, RunRepl, ScriptedPrompt


def test_shows_clip_and_model_first(run_repl: RunRepl, capsys: Capture) -> None:
    run_repl()
    clip, model = capsys.readouterr().err.splitlines()
    assert clip == "clip.mp4: 0:02, 64x48, 10 fps, mpeg4"
    assert model == "Loading small. Type your question now; /help for commands."


def test_quiet_start_prints_nothing(start_chat: StartChat, capsys: Capture) -> None:
    prompt: Any = ScriptedPrompt()
    Repl(start_chat(), prompt, Screen(quiet=True), sampled_clip, {}).run()
    assert capsys.readouterr().err == ""


def test_clip_notices_are_shown(run_repl: RunRepl, source: Clip, capsys: Capture) -> None:
    run_repl(clip=sampled_clip(source, notices=("half of it is missing",)))
    assert "panda: half of it is missing" in capsys.readouterr().err


def test_sparse_sampling_gets_a_notice(run_repl: RunRepl, source: Clip, capsys: Capture) -> None:
    sampled = sampled_clip(source)
    run_repl(clip=replace(sampled, frames=replace(sampled.frames, times=(0.0, 60.0))))
    shown = "2 frames from 2:00, one frame each 60 s; /every, /when or /clip FROM TO looks closer"
    assert f"panda: {shown}\n" in capsys.readouterr().err


def test_answers_go_to_stdout_and_become_turns(run_repl: RunRepl, capsys: Capture) -> None:
    chat = run_repl(QUESTION, f"  {OTHER} ")
    assert questions(chat) == [QUESTION, OTHER]
    shown = capsys.readouterr().out
    assert shown.splitlines() == [sanitize(turn.answer) for turn in chat.turns]


@pytest.mark.parametrize("line", ["", "   ", "\n"])
def test_empty_line_is_ignored(run_repl: RunRepl, line: str) -> None:
    assert questions(run_repl(line)) == []


@pytest.mark.parametrize("word", ["/exit", "/quit", "/bye", "/q", "exit", "QUIT", EOFError()])
def test_every_exit_word_leaves(run_repl: RunRepl, word: object) -> None:
    assert questions(run_repl(word, QUESTION)) == []


def test_leading_space_escapes_a_slash(run_repl: RunRepl) -> None:
    assert questions(run_repl(" /what is this?")) == ["/what is this?"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/udno", "did you mean /undo?"),
        ("/set", "temperature  0.0"),
        ("/set temperature hot", "'hot' is not a number"),
        ("/set colour red", "there is no colour; /set changes max-tokens, temperature, seed"),
        ("/nope", "panda: /nope is not a command\n       /help lists them"),
        ("/ help", "/retry "),
        ("/? ", "/retry "),
        ("/set temperature", "temperature is 0.0; to change it: /set temperature 0.2"),
        ("/clip 1 2 3", "usage: /clip [FROM [TO] | #N]"),
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
def test_error_is_shown_and_chat_continues(
    run_repl: RunRepl, capsys: Capture, line: str, message: str
) -> None:
    assert questions(run_repl(line, QUESTION)) == [QUESTION]
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("line", [f"/save {'x' * 300}.md", f"/frames save {'x' * 300}.png"])
def test_too_long_file_name_is_an_error(run_repl: RunRepl, capsys: Capture, line: str) -> None:
    assert questions(run_repl(QUESTION, line, OTHER)) == [QUESTION, OTHER]
    assert "File name too long" in capsys.readouterr().err


def test_tilde_of_unknown_user_is_literal(run_repl: RunRepl, capsys: Capture) -> None:
    chat = run_repl("/load ~no-such-user/talk.json", "/video ~no-such-user/a.mp4")
    assert "cannot read ~no-such-user/talk.json" in capsys.readouterr().err
    assert chat.clip.source.path == Path("~no-such-user/a.mp4")


def test_frames_command_shows_times(run_repl: RunRepl, capsys: Capture) -> None:
    run_repl("/frames")
    assert capsys.readouterr().out == "frames at 0:00, 0:01\n"


def test_frames_save_writes_a_contact_sheet(run_repl: RunRepl, tmp_path: Path) -> None:
    run_repl(f"/frames save '{tmp_path / 'my sheet.png'}'")
    assert (tmp_path / "my sheet.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("line", "first", "last"), [("/clip 0.5 1", 0.5, 1.0), ("/clip", None, None)]
)
def test_clip_command_changes_the_range(
    run_repl: RunRepl, line: str, first: float | None, last: float | None
) -> None:
    clip = run_repl(line).clip.source
    assert (clip.path.name, clip.start, clip.end) == ("clip.mp4", first, last)


@pytest.mark.parametrize("line", ["/video other.mp4", "/clip 0.5 1"])
@pytest.mark.parametrize(
    ("answer", "left"),
    [("y\n", [QUESTION]), ("\n", [QUESTION]), ("n\n", []), ("what\nNO\n", [])],
)
def test_switching_clip_asks_whether_to_keep_turns(
    run_repl: RunRepl, type_reply: Callable[[str], None], line: str, answer: str, left: list[str]
) -> None:
    type_reply(answer)
    chat = run_repl(QUESTION, line)
    assert questions(chat) == left
    clip = chat.clip.source
    assert (clip.path.name, clip.start) in (("other.mp4", None), ("clip.mp4", 0.5))


@pytest.mark.parametrize("line", ["/video other.mp4", "/clip 0.5 1"])
@pytest.mark.parametrize("way", ["Ctrl-C", "Ctrl-D"])
def test_cancelled_switch_keeps_the_clip(
    run_repl: RunRepl,
    type_reply: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    line: str,
    way: str,
) -> None:
    def interrupt() -> str:
        raise KeyboardInterrupt

    type_reply("")
    if way == "Ctrl-C":
        monkeypatch.setattr("sys.stdin.readline", interrupt)
    chat = run_repl(QUESTION, line, OTHER)
    assert questions(chat) == [QUESTION, OTHER]
    assert (chat.clip.source.path.name, chat.clip.source.start) == ("clip.mp4", None)
    assert "[Y/n] \nstill on clip.mp4\n" in capsys.readouterr().err


def test_frames_command_changes_the_count_for_later_clips(
    run_repl: RunRepl, type_reply: Callable[[str], None]
) -> None:
    type_reply("y\n")
    chat = run_repl(QUESTION, "/frames 8", "/clip 0.5 1")
    assert chat.clip.num_frames == 8
    assert questions(chat) == [QUESTION]


def test_kept_turns_can_be_undone(run_repl: RunRepl, type_reply: Callable[[str], None]) -> None:
    type_reply("y\n")
    assert questions(run_repl(QUESTION, "/video other.mp4", "/undo")) == []


def test_unreadable_clip_keeps_the_current_one(run_repl: RunRepl, capsys: Capture) -> None:
    def sample(_: Clip, **__: Any) -> SampledClip:
        raise ClipError("there is no such file")

    chat = run_repl("/video other.mp4", QUESTION, sample=sample)
    assert chat.clip.source.path.name == "clip.mp4"
    assert questions(chat) == [QUESTION]
    assert "there is no such file" in capsys.readouterr().err


def test_clip_that_does_not_fit_returns_to_the_previous_one(
    run_repl: RunRepl,
    type_reply: Callable[[str], None],
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    type_reply("y\n")
    asked, opened = Event(), Panda.open

    def open_late(self: Panda, *clip: Any, num_frames: int, **more: Any) -> Any:
        if num_frames == 64:
            asked.wait(10)
        return opened(self, *clip, num_frames=num_frames, **more)

    def ask_meanwhile() -> str:
        asked.set()
        return OTHER

    monkeypatch.setattr(Panda, "open", open_late)
    chat = run_repl(
        QUESTION,
        "/video long.mp4",
        ask_meanwhile,
        "And now?",
        sample=lambda clip, **_: sampled_clip(clip, num_frames=64),
    )
    assert chat.clip.source.path.name == "clip.mp4"
    assert questions(chat) == [QUESTION, "And now?"]
    shown = capsys.readouterr().err
    assert shown.count("the model can hold 512") == 1
    assert "back to clip.mp4" in shown


def test_model_that_fails_to_load_ends_the_chat(run_repl: RunRepl, capsys: Capture) -> None:
    def load(_: object) -> Panda:
        raise ModelError("damaged")

    with pytest.raises(ModelError):
        run_repl(QUESTION, load=load)
    assert "damaged" not in capsys.readouterr().err, "the caller prints it"


def test_exit_before_a_failing_load_is_no_error(run_repl: RunRepl) -> None:
    def load(_: object) -> Panda:
        raise ModelError("damaged")

    run_repl("/exit", load=load)


def test_reset_starts_a_new_log_and_keeps_the_old_one(
    start_chat: StartChat, tmp_path: Path
) -> None:
    chat = start_chat(new_log=lambda: tmp_path / "second.json")
    chat.wait(10)
    for question, log in ((QUESTION, "log.json"), (OTHER, "second.json")):
        "".join(chat.ask(question))
        chat.save_log()
        kept = read_transcript(tmp_path / log).turns
        assert [turn.question for turn in kept] == [question]
        chat.replace_turns([])
        chat.save_log()
        assert read_transcript(tmp_path / log).turns == kept


def test_undo_updates_the_log_at_once(run_repl: RunRepl, tmp_path: Path) -> None:
    def log() -> str:
        assert read_transcript(tmp_path / "log.json").turns == ()
        return "/exit"

    run_repl(QUESTION, "/undo", log)


def test_log_failure_is_reported_once(run_repl: RunRepl, tmp_path: Path, capsys: Capture) -> None:
    run_repl(QUESTION, OTHER, log=tmp_path / "missing" / "log.json")
    assert capsys.readouterr().err.count("the conversation is not kept: cannot write") == 1


def test_saved_conversation_can_be_loaded(
    run_repl: RunRepl, tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "my talk.json"
    chat = run_repl(QUESTION, f"/save {path}", "/reset", f"/load {path}")
    assert questions(chat) == [QUESTION]
    assert f"saved 1 turn to {path}" in capsys.readouterr().err


@pytest.mark.parametrize(("answer", "kept"), [("y\n", False), ("n\n", True)])
def test_overwriting_needs_confirmation(
    run_repl: RunRepl, type_reply: Callable[[str], None], tmp_path: Path, answer: str, kept: bool
) -> None:
    path = tmp_path / "talk.md"
    path.write_text("mine")
    type_reply(answer)
    run_repl(QUESTION, f"/save {path}")
    assert (path.read_text() == "mine") == kept


def test_loading_a_conversation_about_another_video_gets_a_notice(
    run_repl: RunRepl, tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "talk.json"
    write_transcript(Transcript("/films/b.mp4", None, None, 8, "tiny", None, ()), path)
    run_repl(f"/load {path}")
    assert "that was about /films/b.mp4" in capsys.readouterr().err


def test_last_turns_are_shown_and_interruptions_marked(run_repl: RunRepl, capsys: Capture) -> None:
    turns = [Turn(f"{n}?", f"{n}.") for n in range(3)] + [Turn("4?", "And", "interrupted")]
    run_repl(turns=turns)
    printed = capsys.readouterr()
    assert printed.out == "> 2?\n2.\n> 4?\nAnd\n"
    assert printed.err.endswith("(2 turns before)\n(interrupted)\n")


def test_multiline_question_is_shown_aligned(run_repl: RunRepl, capsys: Capture) -> None:
    run_repl(turns=[Turn("one\ntwo", "yes")])
    assert capsys.readouterr().out == "> one\n  two\nyes\n"


def test_turns_and_commands_are_sanitized(run_repl: RunRepl, capsys: Capture) -> None:
    hostile = "[bold]\x1b]0;x\x07"
    run_repl(f"/{hostile}", turns=[Turn(hostile, hostile)])
    printed = capsys.readouterr()
    assert "\x1b" not in printed.out + printed.err
    assert printed.out == "> [bold]\\x1b]0;x\\x07\n[bold]\\x1b]0;x\\x07\n"
