"""A chat: loading in the background, switching clips, and the log."""

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path
from threading import Event

import pytest

from pandacli import Panda
from pandacli.background import Say
from pandacli.chat.conversation import Turn
from pandacli.chat.transcript import read_transcript
from pandacli.errors import ModelError, UsageError
from pandacli.modeling.tokenization_videopanda import encode_turns
from pandacli.video import Clip
from tests.chat.conftest import OTHER, QUESTION, StartChat, answer, sampled_clip


def in_log(path: Path) -> list[str]:
    return [turn.question for turn in read_transcript(path).turns]


def test_first_answer_equals_a_single_question(
    start_chat: StartChat, panda: Panda, source: Clip
) -> None:
    sampled = sampled_clip(source)
    once = panda.open(sampled.frames, num_frames=4).ask(QUESTION, max_tokens=6)
    assert answer(start_chat(), QUESTION) == once.text


def test_status_follows_loading_steps(start_chat: StartChat, panda: Panda) -> None:
    steps = {"loading": Event(), "quantising": Event()}

    def load(say: Say) -> Panda:
        for step, go_on in steps.items():
            say(step)
            go_on.wait(10)
        return panda

    chat = start_chat(load)
    seen = []
    for step, go_on in steps.items():
        while chat.status != step:
            chat.wait(0.01)
        seen.append(chat.status)
        assert chat.tokens() is None
        go_on.set()
    assert chat.wait(10)
    assert seen == ["loading", "quantising"]
    assert chat.status == ""


def test_load_error_persists(start_chat: StartChat) -> None:
    failure = ModelError("damaged")

    def load(_: Say) -> Panda:
        raise failure

    chat = start_chat(load)
    chat.wait(10)
    assert chat.error is failure
    assert chat.tokens() is None
    assert not chat.reopen_previous()
    with pytest.raises(ModelError):
        chat.ask(QUESTION)


def test_clip_that_does_not_fit_reopens_the_previous_one(
    start_chat: StartChat, source: Clip
) -> None:
    chat = start_chat()
    first = answer(chat, QUESTION)
    before = chat.clip
    chat.open_clip(sampled_clip(source, num_frames=64))
    chat.wait(10)
    assert isinstance(chat.error, UsageError)
    assert chat.reopen_previous()
    assert chat.error is None
    assert chat.clip is before
    assert not chat.reopen_previous()
    chat.undo()
    assert answer(chat, QUESTION) == first


def test_previous_clip_is_released_after_prefill(start_chat: StartChat, source: Clip) -> None:
    chat = start_chat()
    chat.open_clip(sampled_clip(source, shade=200))
    chat.wait(10)
    assert not chat.reopen_previous()


def test_turns_stay_when_clip_changes(start_chat: StartChat, panda: Panda, source: Clip) -> None:
    chat = start_chat()
    first = answer(chat, QUESTION)
    chat.open_clip(sampled_clip(source, shade=200))
    second = answer(chat, OTHER)
    fresh = panda.open(sampled_clip(source, shade=200).frames, num_frames=4)
    history = [(QUESTION, chat.turns[0].ids or first)]
    assert fresh.ask(OTHER, history=history, max_tokens=6).text == second
    assert [turn.question for turn in chat.turns] == [QUESTION, OTHER]


def test_tokens_include_earlier_turns(start_chat: StartChat) -> None:
    bare, chat = start_chat(), start_chat(turns=[Turn(QUESTION, "A red circle.")])
    bare.wait(10)
    chat.wait(10)
    none, some = bare.tokens(), chat.tokens()
    assert none is not None
    assert some is not None
    assert none[0] < some[0] < some[1] == 512


def test_tokens_are_capped_at_the_context_size(start_chat: StartChat) -> None:
    chat = start_chat(turns=[Turn("circle " * 2000, "yes")])
    chat.wait(10)
    assert chat.tokens() == (512, 512)


def test_dropped_turns_are_counted(start_chat: StartChat) -> None:
    chat = start_chat(turns=[Turn(" ".join(["circle"] * 30), "yes")] * 30)
    assert chat.dropped == 0
    answer(chat, QUESTION)
    assert 0 < chat.dropped < 30


def test_undo_works_before_the_model_is_loaded(start_chat: StartChat, panda: Panda) -> None:
    go_on = Event()

    def load(_: Say) -> Panda:
        go_on.wait(10)
        return panda

    chat = start_chat(load, turns=[Turn("a", "b"), Turn("c", "d")])
    assert chat.undo() == Turn("c", "d")
    chat.save_log()
    assert chat.log is not None
    assert in_log(chat.log) == ["a"]
    assert chat.undo() == Turn("a", "b")
    assert chat.undo() is None
    go_on.set()


def test_every_turn_is_logged(start_chat: StartChat, tmp_path: Path) -> None:
    chat = start_chat()
    for question in (QUESTION, OTHER):
        answer(chat, question)
        chat.save_log()
        assert in_log(tmp_path / "log.json")[-1] == question


def test_interrupted_turn_is_logged_as_interrupted(start_chat: StartChat, tmp_path: Path) -> None:
    chat = start_chat()
    with chat.ask(QUESTION) as stream:
        shown = "".join(islice(stream, 2))
    chat.save_log()
    (turn,) = json.loads((tmp_path / "log.json").read_text())["turns"]
    assert turn == {
        "question": QUESTION,
        "answer": shown.strip(),
        "finish_reason": "interrupted",
    }


def test_undone_turn_is_removed_from_the_log(start_chat: StartChat, tmp_path: Path) -> None:
    chat = start_chat()
    answer(chat, QUESTION)
    chat.save_log()
    chat.undo()
    chat.save_log()
    assert in_log(tmp_path / "log.json") == []


def test_new_clip_is_logged_at_once(start_chat: StartChat, tmp_path: Path) -> None:
    chat = start_chat()
    answer(chat, QUESTION)
    chat.save_log()
    chat.open_clip(sampled_clip(Clip(tmp_path / "other.mp4", 1.0)))
    chat.save_log()
    kept = read_transcript(tmp_path / "log.json")
    assert (kept.video, kept.start) == (str(tmp_path / "other.mp4"), 1.0)
    assert len(kept.turns) == 1


@pytest.mark.parametrize(("model", "kept"), [("tiny", "tiny"), ("./ckpt", "{}/ckpt")])
def test_model_folder_is_logged_as_an_absolute_path(
    start_chat: StartChat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, kept: str
) -> None:
    monkeypatch.chdir(tmp_path)
    chat = start_chat()
    chat.model = model
    assert chat.transcript().model == kept.format(tmp_path)


def test_no_log_without_turns(start_chat: StartChat, source: Clip, tmp_path: Path) -> None:
    chat = start_chat()
    chat.open_clip(replace(sampled_clip(source), source=Clip(source.path, 1.0)))
    chat.save_log()
    assert list(tmp_path.iterdir()) == []


def test_log_failure_is_reported_once(start_chat: StartChat, tmp_path: Path) -> None:
    chat = start_chat(log=tmp_path / "missing" / "log.json")
    answer(chat, QUESTION)
    with pytest.raises(UsageError):
        chat.save_log()
    chat.save_log()
    assert list(tmp_path.iterdir()) == []


def test_model_frames_have_the_size_of_the_model_input(source: Clip) -> None:
    seen = sampled_clip(source).model_frames
    assert max(seen.pixels.shape[1:3]) == 112


def test_history_is_tokenised_once_per_turn(
    start_chat: StartChat, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = start_chat()
    answer(chat, QUESTION)
    chat.tokens()
    prompts = []

    def encode(turns: list[object], *arguments: object) -> list[int]:
        prompts.append(len(turns))
        return encode_turns(turns, *arguments)

    monkeypatch.setattr("pandacli.inference.session.encode_turns", encode)
    answer(chat, OTHER)
    assert chat.tokens() == chat.tokens()
    assert prompts == [2]
