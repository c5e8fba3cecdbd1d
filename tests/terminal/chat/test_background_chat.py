"""What is talked about: the model loads meanwhile, clips change, and the log has every turn."""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from threading import Event

import pytest

from pandacli import Panda
from pandacli.background import Say
from pandacli.chat.chat import Chat
from pandacli.chat.conversation import Turn
from pandacli.chat.transcript import read_transcript
from pandacli.errors import ModelError, UsageError
from pandacli.video import Clip
from tests.terminal.chat.conftest import OTHER, QUESTION, answer, made_up, too_many_frames

Start = Callable[..., Chat]


def in_log(path: Path) -> list[str]:
    return [turn.question for turn in read_transcript(path).turns]


def test_a_first_answer_is_what_asking_once_gives(start: Start, panda: Panda, clip: Clip) -> None:
    subject = made_up(clip)
    once = panda.open(subject.frames, num_frames=4).ask(QUESTION, max_tokens=6)
    assert answer(start(), QUESTION) == once.text


def test_each_step_of_getting_ready_is_told(start: Start, panda: Panda) -> None:
    steps = {"loading": Event(), "quantising": Event()}

    def load(say: Say) -> Panda:
        for step, go_on in steps.items():
            say(step)
            go_on.wait(10)
        return panda

    talk = start(load)
    seen = []
    for step, go_on in steps.items():
        while talk.doing != step:
            talk.wait(0.01)
        seen.append(talk.doing)
        assert talk.tokens() is None
        go_on.set()
    assert talk.wait(10)
    assert seen == ["loading", "quantising"]
    assert talk.doing == ""


def test_a_model_that_does_not_load_is_an_error_that_stays(start: Start) -> None:
    failure = ModelError("damaged")

    def load(_: Say) -> Panda:
        raise failure

    talk = start(load)
    talk.wait(10)
    assert talk.error is failure
    assert talk.tokens() is None
    assert not talk.turn_back()
    with pytest.raises(ModelError):
        talk.ask(QUESTION)


def test_a_clip_the_model_cannot_hold_leads_back_to_the_one_before(
    start: Start, clip: Clip
) -> None:
    talk = start()
    first = answer(talk, QUESTION)
    before = talk.subject
    talk.turn_to(too_many_frames(made_up(clip)))
    talk.wait(10)
    assert isinstance(talk.error, UsageError)
    assert talk.turn_back()
    assert talk.error is None
    assert talk.subject is before
    assert not talk.turn_back()
    talk.undo()
    assert answer(talk, QUESTION) == first


def test_the_clip_before_is_not_held_once_another_is_looked_at(start: Start, clip: Clip) -> None:
    talk = start()
    talk.turn_to(made_up(clip, shade=200))
    talk.wait(10)
    assert not talk.turn_back()


def test_turns_stay_when_another_clip_is_turned_to(start: Start, panda: Panda, clip: Clip) -> None:
    talk = start()
    first = answer(talk, QUESTION)
    talk.turn_to(made_up(clip, shade=200))
    second = answer(talk, OTHER)
    fresh = panda.open(made_up(clip, shade=200).frames, num_frames=4)
    history = [(QUESTION, talk.turns[0].ids or first)]
    assert fresh.ask(OTHER, history=history, max_tokens=6).text == second
    assert [turn.question for turn in talk.turns] == [QUESTION, OTHER]


def test_the_tokens_of_earlier_turns_count_before_the_first_question(start: Start) -> None:
    bare, talk = start(), start(turns=[Turn(QUESTION, "A red circle.")])
    bare.wait(10)
    talk.wait(10)
    none, some = bare.tokens(), talk.tokens()
    assert none is not None
    assert some is not None
    assert none[0] < some[0] < some[1] == 512


def test_a_full_context_is_no_more_than_full(start: Start) -> None:
    talk = start(turns=[Turn("circle " * 2000, "yes")])
    talk.wait(10)
    assert talk.tokens() == (512, 512)


def test_forgotten_turns_are_counted(start: Start) -> None:
    talk = start(turns=[Turn(" ".join(["circle"] * 30), "yes")] * 30)
    assert talk.forgotten == 0
    answer(talk, QUESTION)
    assert 0 < talk.forgotten < 30


def test_turns_can_be_taken_back_before_the_model_is_there(start: Start, panda: Panda) -> None:
    go_on = Event()

    def load(_: Say) -> Panda:
        go_on.wait(10)
        return panda

    talk = start(load, turns=[Turn("a", "b"), Turn("c", "d")])
    assert talk.undo() == Turn("c", "d")
    talk.keep()
    assert talk.log is not None
    assert in_log(talk.log) == ["a"]
    assert talk.undo() == Turn("a", "b")
    assert talk.undo() is None
    go_on.set()


def test_every_turn_is_in_the_log(start: Start, tmp_path: Path) -> None:
    talk = start()
    for question in (QUESTION, OTHER):
        answer(talk, question)
        talk.keep()
        assert in_log(tmp_path / "log.json")[-1] == question


def test_an_interrupted_turn_is_in_the_log_as_such(start: Start, tmp_path: Path) -> None:
    talk = start()
    with talk.ask(QUESTION) as stream:
        shown = "".join(islice(stream, 2))
    talk.keep()
    (turn,) = json.loads((tmp_path / "log.json").read_text())["turns"]
    assert turn == {
        "question": QUESTION,
        "answer": shown.strip(),
        "finish_reason": "interrupted",
    }


def test_what_was_taken_back_is_not_in_the_log(start: Start, tmp_path: Path) -> None:
    talk = start()
    answer(talk, QUESTION)
    talk.keep()
    talk.undo()
    talk.keep()
    assert in_log(tmp_path / "log.json") == []


def test_another_clip_is_in_the_log_at_once(start: Start, tmp_path: Path) -> None:
    talk = start()
    answer(talk, QUESTION)
    talk.keep()
    talk.turn_to(made_up(Clip(tmp_path / "other.mp4", 1.0)))
    talk.keep()
    kept = read_transcript(tmp_path / "log.json")
    assert (kept.video, kept.start) == (str(tmp_path / "other.mp4"), 1.0)
    assert len(kept.turns) == 1


@pytest.mark.parametrize(("model", "kept"), [("tiny", "tiny"), ("./ckpt", "{}/ckpt")])
def test_the_model_of_a_conversation_is_found_from_every_folder(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, kept: str
) -> None:
    monkeypatch.chdir(tmp_path)
    talk = start()
    talk.model = model
    assert talk.transcript().model == kept.format(tmp_path)


def test_where_nothing_is_said_there_is_no_log(start: Start, clip: Clip, tmp_path: Path) -> None:
    talk = start()
    talk.turn_to(replace(made_up(clip), clip=Clip(clip.path, 1.0)))
    talk.keep()
    assert list(tmp_path.iterdir()) == []


def test_a_log_that_cannot_be_written_is_told_once(start: Start, tmp_path: Path) -> None:
    talk = start(log=tmp_path / "missing" / "log.json")
    answer(talk, QUESTION)
    with pytest.raises(UsageError):
        talk.keep()
    talk.keep()
    assert list(tmp_path.iterdir()) == []


def test_a_padded_look_has_the_size_of_the_model(clip: Clip) -> None:
    seen = made_up(clip).seen
    assert max(seen.pixels.shape[1:3]) == 112
