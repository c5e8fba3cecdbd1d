"""`/choices` in the chat: on a terminal, and over a pipe."""

import io
from pathlib import Path

import pytest

from pandacli.chat.transcript import read_transcript
from pandacli.errors import UsageError
from pandacli.inference.backends import SharedPrefix
from pandacli.terminal.console import Screen
from pandacli.terminal.piped_chat import PipedChat
from pandacli.terminal.repl import toolbar
from tests.chat.conftest import OTHER, QUESTION, StartChat, questions, sampled_clip
from tests.terminal.conftest import Capture, RunRepl

SET = "/choices yes |no|a red circle"
CHOICES = ("yes", "no", "a red circle")


def test_the_next_question_is_answered_by_a_choice(run_repl: RunRepl, capsys: Capture) -> None:
    chat = run_repl(SET, OTHER, QUESTION)
    scored, free = chat.turns
    assert scored.answer in CHOICES
    assert scored.scores
    assert tuple(choice.text for choice in scored.scores.choices) == CHOICES
    assert free.scores is None
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0] == scored.answer
    assert "the next answer is one of: yes | no | a red circle" in printed.err


def test_bars_are_drawn_on_a_terminal(run_repl: RunRepl, tty) -> None:  # type: ignore[no-untyped-def]
    terminal = tty()
    run_repl("/choices yes|no", OTHER)
    lines = [line.split() for line in terminal.screen().display if "%" in line]
    assert [name for name, *_ in lines] == ["yes", "no"]


def test_choices_alone_clears_them(run_repl: RunRepl, capsys: Capture) -> None:
    chat = run_repl("/choices", SET, "/choices", OTHER)
    assert chat.turns[0].scores is None
    said = capsys.readouterr().err
    assert "no choices are set" in said
    assert "cleared: yes | no | a red circle" in said


@pytest.mark.parametrize(
    ("argument", "why"),
    [("yes", "only one"), ("yes|", "one is empty"), ("|", "one is empty"), ("a| a", "twice")],
)
def test_wrong_choices_are_refused_and_change_nothing(
    run_repl: RunRepl, capsys: Capture, argument: str, why: str
) -> None:
    chat = run_repl(SET, f"/choices {argument}")
    assert chat.choices == CHOICES
    assert why in capsys.readouterr().err


def test_retry_scores_the_same_choices_or_new_ones(run_repl: RunRepl, capsys: Capture) -> None:
    chat = run_repl(SET, OTHER, "/retry")
    (turn,) = chat.turns
    assert turn.scores
    assert tuple(choice.text for choice in turn.scores.choices) == CHOICES
    assert chat.choices == ()
    assert "scores are always the same" in capsys.readouterr().err
    chat = run_repl(OTHER, "/choices left|right", "/retry")
    assert chat.turns[0].answer in ("left", "right")
    assert "always the same" not in capsys.readouterr().err


def test_an_interrupted_retry_keeps_the_scored_turn(
    run_repl: RunRepl, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    def stop_at_once() -> str:
        monkeypatch.setattr(SharedPrefix, "tree", stop)
        return "/retry"

    chat = run_repl(SET, OTHER, stop_at_once)
    assert chat.turns[0].scores
    assert chat.choices == ()


def test_undo_save_and_load_take_a_scored_turn(
    run_repl: RunRepl, tmp_path: Path, capsys: Capture
) -> None:
    saved = tmp_path / "talk.json"
    chat = run_repl(SET, OTHER, f"/save {saved}", "/undo", f"/load {saved}", QUESTION)
    assert questions(chat) == [OTHER, QUESTION]
    assert read_transcript(saved).turns[0].scores == chat.turns[0].scores
    assert f"took back: {OTHER}" in capsys.readouterr().err


def test_stats_of_a_scored_turn(run_repl: RunRepl, capsys: Capture) -> None:
    run_repl(SET, OTHER, "/stats")
    assert "questions and choices, in 1 pass" in capsys.readouterr().err


def test_the_toolbar_says_that_choices_are_set(start_chat: StartChat) -> None:
    chat = start_chat()
    chat.choices = CHOICES
    assert "3 choices" in toolbar(chat)


def test_a_pipe_sets_choices_for_one_question(
    start_chat: StartChat, monkeypatch: pytest.MonkeyPatch, capsys: Capture, tmp_path: Path
) -> None:
    lines = f"{SET}\n{OTHER}\n{QUESTION}\n/choices a|b\n/choices\n{OTHER}\n/choices a|a\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
    chat = start_chat()
    with pytest.raises(UsageError, match="line 7: the choices: 'a' is given twice"):
        PipedChat(chat, Screen(), sampled_clip, stats=True).run()
    assert [turn.scores is not None for turn in chat.turns] == [True, False, False]
    assert len(read_transcript(tmp_path / "log.json").turns) == 3
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0] == chat.turns[0].answer
    assert printed.err.count("questions and choices, in 1 pass") == 1
