"""Answers in the chat REPL: undo, retry, interruption, stats."""

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
from pandacli.inference.backends import SharedPrefix
from pandacli.terminal import repl
from pandacli.terminal.text import sanitize
from pandacli.video import Clip
from tests.chat.conftest import OTHER, QUESTION, questions, sampled_clip
from tests.terminal.conftest import Capture, RunRepl


def test_undo_shows_the_removed_question(run_repl: RunRepl, capsys: Capture) -> None:
    assert questions(run_repl(QUESTION, OTHER, "/undo")) == [QUESTION]
    assert f"took back: {OTHER}" in capsys.readouterr().err


def test_retry_asks_the_last_question_again(run_repl: RunRepl, capsys: Capture) -> None:
    chat = run_repl(QUESTION, "/set temperature 2", "/set SEED 5", "/retry")
    assert questions(chat) == [QUESTION]
    assert f"> {QUESTION}" in capsys.readouterr().out
    assert chat.options.seed == 5


def test_retry_at_temperature_zero_explains_same_answer(run_repl: RunRepl, capsys: Capture) -> None:
    run_repl(QUESTION, "/retry")
    assert "at temperature 0 it is always the same" in capsys.readouterr().err


def test_interrupted_retry_keeps_the_earlier_answer(
    run_repl: RunRepl, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    def stop_at_once() -> str:
        monkeypatch.setattr(SharedPrefix, "append", stop)
        return "/retry"

    chat = run_repl(QUESTION, stop_at_once)
    (turn,) = chat.turns
    assert turn.finish_reason == "length"


def test_interrupted_answer_is_kept_as_a_partial_turn(
    run_repl: RunRepl, interrupt_after: Callable[[int], None], tmp_path: Path, capsys: Capture
) -> None:
    interrupt_after(4)
    chat = run_repl(QUESTION, OTHER)
    (cut, whole) = chat.turns
    assert (cut.finish_reason, whole.finish_reason) == ("interrupted", "length")
    assert read_transcript(tmp_path / "log.json").turns == (cut, whole)
    printed = capsys.readouterr()
    assert "stopped" in printed.err
    assert printed.out.splitlines()[0] == sanitize(cut.answer)


def test_out_of_memory_does_not_end_the_chat(
    run_repl: RunRepl, interrupt_after: Callable[..., None], capsys: Capture
) -> None:
    interrupt_after(4, DeviceError("out of memory", "a hint"))
    assert questions(run_repl(QUESTION, OTHER)) == [QUESTION, OTHER]
    printed = capsys.readouterr()
    assert "panda: out of memory\n       a hint\n" in printed.err
    assert printed.out.count("\n") == 2


def test_double_ctrl_c_counts_once(
    run_repl: RunRepl, interrupt_after: Callable[[int], None]
) -> None:
    interrupt_after(2)
    assert questions(run_repl(QUESTION, KeyboardInterrupt(), OTHER)) == [QUESTION, OTHER]


def test_second_ctrl_c_at_an_empty_prompt_leaves(
    run_repl: RunRepl,
    interrupt_after: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    monkeypatch.setattr(repl, "_DOUBLE_PRESS", 0.0)
    interrupt_after(2)
    press = KeyboardInterrupt()
    assert questions(run_repl(QUESTION, press, OTHER, press, press, QUESTION)) == [QUESTION, OTHER]
    assert capsys.readouterr().err.count("press Ctrl-C again to leave") == 2


def test_stats_of_an_interrupted_answer(
    run_repl: RunRepl, interrupt_after: Callable[[int], None], capsys: Capture
) -> None:
    interrupt_after(2)
    run_repl(QUESTION, "/stats")
    shown = capsys.readouterr().err
    assert "no answer yet" not in shown
    assert re.search(r"question, 3 answer; \d+ new", shown)


def test_stats_count_history_apart_from_question(run_repl: RunRepl, capsys: Capture) -> None:
    run_repl(QUESTION, "/stats", QUESTION, "/stats")
    first, second = re.findall(r"^tokens +(.*)$", capsys.readouterr().err, re.MULTILINE)
    own = re.search(r"\d+ question", first)[0]  # type: ignore[index]
    assert "history" not in first
    assert own in second
    assert "history" in second
    assert "0 reused" not in second


def test_stats_show_cost_and_context_use(run_repl: RunRepl, capsys: Capture) -> None:
    run_repl(QUESTION, "/stats")
    shown = capsys.readouterr().err
    assert "tokens/s" in shown
    assert "of 512 tokens" in shown


def test_stats_keep_the_frames_of_the_answered_clip(run_repl: RunRepl, capsys: Capture) -> None:
    def sample(source: Clip, **_: Any) -> SampledClip:
        sampled = sampled_clip(source)
        return replace(sampled, frames=replace(sampled.frames, times=(0.5, 1.5)))

    run_repl(QUESTION, "/clip 0.5", "/stats", sample=sample)
    assert "2 at 0:00, 0:01" in capsys.readouterr().err


def test_stats_option_shows_stats_after_each_answer(run_repl: RunRepl, capsys: Capture) -> None:
    run_repl(QUESTION, OTHER, stats=True)
    assert capsys.readouterr().err.count("tokens/s") == 2


def test_truncated_answer_gets_a_notice(run_repl: RunRepl, capsys: Capture) -> None:
    run_repl("/set max_tokens 3", QUESTION)
    assert "the answer was cut off after 3 tokens" in capsys.readouterr().err


def test_dropped_turns_get_one_notice(run_repl: RunRepl, capsys: Capture) -> None:
    turns = [Turn(" ".join(["circle"] * 30), "yes")] * 30
    run_repl(QUESTION, OTHER, turns=turns)
    assert capsys.readouterr().err.count("forgotten: its first ") == 1
