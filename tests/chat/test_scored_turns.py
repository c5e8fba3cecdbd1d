"""Turns that are the likeliest of given choices."""

import json
from pathlib import Path

import pytest

from pandacli import Panda
from pandacli.chat.conversation import Conversation, Turn
from pandacli.chat.transcript import Transcript, read_transcript, write_transcript
from pandacli.errors import ClipError, UsageError
from pandacli.inference.backends import SharedPrefix
from pandacli.inference.spec import Choice, GenerationOptions, Scores
from tests.chat.conftest import OTHER, QUESTION, StartChat, answer

CHOICES = ("yes", "no", "a red circle", "猫")
SHORT = GenerationOptions(max_tokens=12)


@pytest.fixture(params=["torch", "llama"])
def any_panda(request: pytest.FixtureRequest, panda: Panda, checkpoint: Path) -> Panda:
    """The small model on each backend."""
    if request.param == "torch":
        return panda
    pytest.importorskip("xllamacpp")
    return Panda.load(checkpoint, quant="8bit", engine="llama", device="cpu")


def ask(conversation: Conversation, question: str) -> int:
    """Ask, and return how many tokens were prefilled for it."""
    stream = conversation.ask(question, SHORT)
    for _ in stream:
        pass
    return stream.answer.stats.prefilled_tokens


def test_an_answer_after_a_scored_turn_is_that_of_a_fresh_session(
    any_panda: Panda, clip: Path
) -> None:
    conversation = Conversation(any_panda.open(clip))
    ask(conversation, QUESTION)
    first = conversation.turns[0]
    scores, stats = conversation.score(OTHER, CHOICES)
    history = [(QUESTION, first.ids)]
    alone = any_panda.open(clip).score(OTHER, CHOICES, history=history)
    for one, other in zip(scores.choices, alone.choices, strict=True):
        near = {"abs": 1e-4} if any_panda.engine == "torch" else {"rel": 0.02, "abs": 0.1}
        assert one.logprob == pytest.approx(other.logprob, **near)
    assert conversation.turns[1] == Turn(OTHER, scores.best.text)
    prefilled = ask(conversation, "And now?")
    assert max(stats.tokens, prefilled) < 60, "neither computes the first turn again"
    history.append((OTHER, scores.best.text))
    fresh = any_panda.ask(clip, "And now?", history=history, max_tokens=12)
    assert conversation.turns[2].ids == fresh.ids


def test_the_context_counts_a_scored_turn(panda: Panda, clip: Path) -> None:
    conversation = Conversation(panda.open(clip))
    ask(conversation, QUESTION)
    ask(conversation, OTHER)
    conversation.undo()
    scores, _ = conversation.score(OTHER, CHOICES)
    history = [(QUESTION, conversation.turns[0].ids), (OTHER, scores.best.text)]
    left = conversation.session.tokens_left("", history)
    assert conversation.tokens() == panda.context - left
    assert conversation.undo() == Turn(OTHER, scores.best.text)


def test_an_interrupted_scoring_is_no_turn_and_leaves_the_cache_valid(
    panda: Panda, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    conversation = Conversation(panda.open(clip))
    ask(conversation, QUESTION)
    with monkeypatch.context() as patch:
        patch.setattr(panda.model.model.layers[1].mlp, "forward", stop)
        with pytest.raises(KeyboardInterrupt):
            conversation.score(OTHER, CHOICES)
    assert len(conversation.turns) == 1
    ask(conversation, OTHER)
    history = [(QUESTION, conversation.turns[0].ids)]
    fresh = panda.ask(clip, OTHER, history=history, max_tokens=12)
    assert conversation.turns[1].ids == fresh.ids


def test_oldest_turns_are_dropped_for_choices_but_not_for_one_that_never_fits(
    panda: Panda, clip: Path
) -> None:
    words = " ".join(["circle"] * 20)
    conversation = Conversation(panda.open(clip), [Turn(f"{words}?", words) for _ in range(40)])
    with pytest.raises(UsageError, match=r"the choice 'no no .* has .* tokens"):
        conversation.score(QUESTION, ("yes", "no " * 900))
    assert conversation.dropped == 0
    conversation.score(QUESTION, CHOICES)
    assert 0 < conversation.dropped < 40


def test_choices_are_for_one_question_and_kept_where_it_fails(
    start_chat: StartChat, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = start_chat()
    chat.choices = CHOICES
    with monkeypatch.context() as patch:
        patch.setattr(SharedPrefix, "tree", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            chat.score(OTHER)
    assert (chat.choices, chat.turns) == (CHOICES, [])
    scores, _ = chat.score(OTHER)
    assert (chat.choices, chat.turns) == ((), [Turn(OTHER, scores.best.text)])
    answer(chat, QUESTION)
    assert chat.turns[1].scores is None


@pytest.fixture
def transcript() -> Transcript:
    scores = Scores("Is it?", (Choice("a|b", -0.5, 0.6), Choice("\n", -3.25, 0.4)), 0.75)
    turns = (Turn("Is it?", "a|b", scores=scores), Turn("Why?", "So."))
    return Transcript("/a.mp4", None, None, 8, "tiny", None, turns)


def test_probabilities_are_saved_and_loaded(transcript: Transcript, tmp_path: Path) -> None:
    write_transcript(transcript, tmp_path / "talk.json")
    read = read_transcript(tmp_path / "talk.json")
    assert read == transcript
    assert [turn.scores for turn in read.turns] == [turn.scores for turn in transcript.turns]
    write_transcript(transcript, tmp_path / "talk.md")
    assert "- 60.0% a|b\n" in (tmp_path / "talk.md").read_text()


WRONG = [
    {"choices": []},
    {"choices": 3},
    {"coverage": "much"},
    {"coverage": None},
    *(
        {"choices": [{"text": "a", "logprob": -1, "probability": value}]}
        for value in (float("nan"), 2, -1, 10**400, None)
    ),
]


@pytest.mark.parametrize("wrong", WRONG)
def test_damaged_probabilities_are_refused(
    transcript: Transcript, tmp_path: Path, wrong: dict[str, object]
) -> None:
    record = json.loads(transcript.to_json())
    record["turns"][0].update(wrong)
    (tmp_path / "talk.json").write_text(json.dumps(record))
    with pytest.raises(ClipError, match="not a saved conversation"):
        read_transcript(tmp_path / "talk.json")
