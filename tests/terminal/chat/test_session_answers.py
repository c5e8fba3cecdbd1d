"""Answers in a terminal: taken back, given again, stopped, and what they cost."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pandacli.chat.chat import SampledClip
from pandacli.chat.conversation import Turn
from pandacli.chat.transcript import read_transcript
from pandacli.errors import DeviceError
from pandacli.inference.prefix import SharedPrefix
from pandacli.terminal import repl as session_module
from pandacli.terminal.text import sanitize
from pandacli.video import Clip
from tests.terminal.chat.conftest import OTHER, QUESTION, Capture, Converse, made_up, questions


def test_undo_says_what_it_took_back(converse: Converse, capsys: Capture) -> None:
    assert questions(converse(QUESTION, OTHER, "/undo")) == [QUESTION]
    assert f"took back: {OTHER}" in capsys.readouterr().err


def test_retry_asks_the_last_question_again(converse: Converse, capsys: Capture) -> None:
    talk = converse(QUESTION, "/set temperature 2", "/set SEED 5", "/retry")
    assert questions(talk) == [QUESTION]
    assert f"> {QUESTION}" in capsys.readouterr().out
    assert talk.manner.seed == 5


def test_retry_says_why_nothing_changes(converse: Converse, capsys: Capture) -> None:
    converse(QUESTION, "/retry")
    assert "at temperature 0 it is always the same" in capsys.readouterr().err


def test_an_interrupted_retry_leaves_the_answer_before(
    converse: Converse, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    def stop_at_once() -> str:
        monkeypatch.setattr(SharedPrefix, "append", stop)
        return "/retry"

    talk = converse(QUESTION, stop_at_once)
    (turn,) = talk.turns
    assert turn.finish_reason == "length"


def test_an_answer_that_is_stopped_stays_as_far_as_it_came(
    converse: Converse, interrupted: Callable[[int], None], tmp_path: Path, capsys: Capture
) -> None:
    interrupted(4)
    talk = converse(QUESTION, OTHER)
    (cut, whole) = talk.turns
    assert (cut.finish_reason, whole.finish_reason) == ("interrupted", "length")
    assert read_transcript(tmp_path / "log.json").turns == (cut, whole)
    printed = capsys.readouterr()
    assert "stopped" in printed.err
    assert printed.out.splitlines()[0] == sanitize(cut.answer)


def test_running_out_of_memory_ends_the_line_and_not_the_talk(
    converse: Converse, interrupted: Callable[..., None], capsys: Capture
) -> None:
    interrupted(4, DeviceError("out of memory", "a hint"))
    assert questions(converse(QUESTION, OTHER)) == [QUESTION, OTHER]
    printed = capsys.readouterr()
    assert "panda: out of memory\n       a hint\n" in printed.err
    assert printed.out.count("\n") == 2


def test_a_second_ctrl_c_right_after_the_first_does_not_leave(
    converse: Converse, interrupted: Callable[[int], None]
) -> None:
    interrupted(2)
    assert questions(converse(QUESTION, KeyboardInterrupt(), OTHER)) == [QUESTION, OTHER]


def test_a_later_ctrl_c_at_the_empty_prompt_says_how_to_leave_and_another_one_leaves(
    converse: Converse,
    interrupted: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    monkeypatch.setattr(session_module, "_AGAIN", 0.0)
    interrupted(2)
    press = KeyboardInterrupt()
    assert questions(converse(QUESTION, press, OTHER, press, press, QUESTION)) == [QUESTION, OTHER]
    assert capsys.readouterr().err.count("press Ctrl-C again to leave") == 2


def test_stats_of_a_stopped_answer_are_those_of_what_came_of_it(
    converse: Converse, interrupted: Callable[[int], None], capsys: Capture
) -> None:
    interrupted(2)
    converse(QUESTION, "/stats")
    said = capsys.readouterr().err
    assert "no answer yet" not in said
    assert re.search(r"question, 3 answer; \d+ new", said)


def test_stats_count_earlier_turns_apart_from_the_question(
    converse: Converse, capsys: Capture
) -> None:
    converse(QUESTION, "/stats", QUESTION, "/stats")
    first, second = re.findall(r"^tokens +(.*)$", capsys.readouterr().err, re.MULTILINE)
    own = re.search(r"\d+ question", first)[0]  # type: ignore[index]
    assert "history" not in first
    assert own in second
    assert "history" in second
    assert "0 reused" not in second


def test_stats_tell_the_cost_and_how_full_the_context_is(
    converse: Converse, capsys: Capture
) -> None:
    converse(QUESTION, "/stats")
    said = capsys.readouterr().err
    assert "tokens/s" in said
    assert "of 512 tokens" in said


def test_stats_stay_those_of_the_answer_where_another_part_is_looked_at(
    converse: Converse, capsys: Capture
) -> None:
    def look(clip: Clip, **_: Any) -> SampledClip:
        subject = made_up(clip)
        return replace(subject, frames=replace(subject.frames, times=(0.5, 1.5)))

    converse(QUESTION, "/clip 0.5", "/stats", look=look)
    assert "2 at 0:00, 0:01" in capsys.readouterr().err


def test_stats_follow_each_answer_where_asked_for(converse: Converse, capsys: Capture) -> None:
    converse(QUESTION, OTHER, stats=True)
    assert capsys.readouterr().err.count("tokens/s") == 2


def test_an_answer_that_was_cut_off_is_told(converse: Converse, capsys: Capture) -> None:
    converse("/set max_tokens 3", QUESTION)
    assert "the answer was cut off after 3 tokens" in capsys.readouterr().err


def test_forgotten_turns_are_told_when_they_are_forgotten(
    converse: Converse, capsys: Capture
) -> None:
    turns = [Turn(" ".join(["circle"] * 30), "yes")] * 30
    converse(QUESTION, OTHER, turns=turns)
    assert capsys.readouterr().err.count("forgotten: its first ") == 1
