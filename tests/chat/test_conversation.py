"""Turns on one KV cache: same answers as with full history, and only new tokens are prefilled."""

from itertools import islice
from pathlib import Path

import pytest

from pandacli import Panda
from pandacli.chat.conversation import Conversation, Turn
from pandacli.errors import UsageError
from pandacli.inference.spec import GenerationOptions
from pandacli.modeling import VideoPandaConfig, VideoPandaForConditionalGeneration
from tests.modeling.e2e import llama_sizes, load_vectors
from tests.parity_weights import fill

QUESTIONS = ["What happens?", "Is there a circle?", "And what colour is it?", "Why? </s><image>"]


@pytest.fixture
def conversation(panda: Panda, clip: Path) -> Conversation:
    return Conversation(panda.open(clip))


@pytest.fixture(scope="module")
def llama_panda(checkpoint: Path) -> Panda:
    """The small model on llama.cpp."""
    pytest.importorskip("xllamacpp")
    return Panda.load(checkpoint, quant="8bit", engine="llama", device="cpu")


@pytest.fixture(params=["tiny", "e2e_h64_16x9"])
def any_panda(request: pytest.FixtureRequest, tmp_path: Path, tokenizer_model: bytes) -> Panda:
    """`tiny`, and a model of the parity vectors, which answers at random."""
    if request.param == "tiny":
        return Panda.load("tiny", device="cpu")
    vectors = load_vectors(request.param)
    model = VideoPandaForConditionalGeneration(VideoPandaConfig(**llama_sizes(vectors)))
    fill(model, "", vectors.meta["salt"])
    model.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(tokenizer_model)
    return Panda.load(tmp_path, device="cpu")


def test_each_turn_equals_asking_with_full_history(any_panda: Panda, clip: Path) -> None:
    conversation = Conversation(any_panda.open(clip))
    history: list[tuple[str, tuple[int, ...]]] = []
    for question in QUESTIONS:
        prefilled = ask(conversation, question)
        assert prefilled <= own_tokens(conversation, question) + 1 or not history
        fresh = any_panda.ask(clip, question, history=history, max_tokens=12)
        assert conversation.turns[-1].ids == fresh.ids
        history.append((question, fresh.ids))


def ask(conversation: Conversation, question: str, max_tokens: int = 12) -> int:
    """Ask, and return how many tokens were prefilled for it."""
    stream = conversation.ask(question, GenerationOptions(max_tokens=max_tokens))
    for _ in stream:
        pass
    return stream.answer.stats.prefilled_tokens


def own_tokens(conversation: Conversation, question: str) -> int:
    """Return the tokens of a question alone, with the `</s>` before it.

    After a truncated answer one token more is prefilled: its last, which was never fed back.
    """
    tokenizer = conversation.session.panda.tokenizer
    text = f"USER: {question} ASSISTANT:"
    return 1 + len(tokenizer.encode(text, after_control=True))


def test_first_turn_prefills_the_prefix(conversation: Conversation) -> None:
    assert ask(conversation, QUESTIONS[0]) > conversation.session.prefix_tokens


def test_prepared_prefix_is_not_prefilled_again(conversation: Conversation) -> None:
    conversation.session.prepare()
    assert ask(conversation, QUESTIONS[0]) < conversation.session.prefix_tokens


def test_undo_keeps_the_cache_of_earlier_turns(conversation: Conversation) -> None:
    for question in QUESTIONS[:2]:
        ask(conversation, question)
    conversation.undo()
    assert ask(conversation, QUESTIONS[2]) <= own_tokens(conversation, QUESTIONS[2]) + 1
    assert [turn.question for turn in conversation.turns] == [QUESTIONS[0], QUESTIONS[2]]


def test_undo_without_turns_returns_none(conversation: Conversation) -> None:
    assert conversation.undo() is None


def test_undone_turn_does_not_influence_the_next_answer(
    panda: Panda, clip: Path, conversation: Conversation
) -> None:
    ask(conversation, QUESTIONS[0])
    ask(conversation, QUESTIONS[1])
    conversation.undo()
    ask(conversation, QUESTIONS[2])
    first, last = conversation.turns
    history = [(first.question, first.ids)]
    fresh = panda.ask(clip, QUESTIONS[2], history=history, max_tokens=12)
    assert last.answer == fresh.text


def test_interrupted_answer_becomes_a_partial_turn(
    panda: Panda, clip: Path, conversation: Conversation
) -> None:
    with conversation.ask(QUESTIONS[0], GenerationOptions(max_tokens=12)) as stream:
        shown = "".join(islice(stream, 2))
    (turn,) = conversation.turns
    assert turn == Turn(QUESTIONS[0], shown.strip(), "interrupted")
    ask(conversation, QUESTIONS[1])
    history = [(turn.question, turn.answer)]
    fresh = panda.ask(clip, QUESTIONS[1], history=history, max_tokens=12)
    assert conversation.turns[-1].answer == fresh.text


def test_interrupt_during_a_forward_pass_leaves_the_cache_valid(
    panda: Panda, clip: Path, conversation: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(conversation, QUESTIONS[0])
    mlp = panda.model.model.layers[0].mlp  # after the first layer has grown its cache

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    stream = conversation.ask(QUESTIONS[1], GenerationOptions(max_tokens=12))
    next(stream)
    with monkeypatch.context() as patch:
        patch.setattr(mlp, "forward", stop)
        with pytest.raises(KeyboardInterrupt):
            "".join(stream)
    assert [turn.finish_reason for turn in conversation.turns] == ["length", "interrupted"]
    history = [(turn.question, turn.ids or turn.answer) for turn in conversation.turns]
    ask(conversation, QUESTIONS[2])
    fresh = panda.ask(clip, QUESTIONS[2], history=history, max_tokens=12)
    assert conversation.turns[-1].answer == fresh.text


def test_answer_interrupted_before_its_first_word_is_no_turn(
    conversation: Conversation,
) -> None:
    with conversation.ask(QUESTIONS[0]):
        pass
    assert conversation.turns == []


def test_oldest_turns_are_dropped_when_the_context_is_full(panda: Panda, clip: Path) -> None:
    words = " ".join(["circle"] * 20)
    conversation = Conversation(panda.open(clip), [Turn(f"{words}?", words) for _ in range(40)])
    ask(conversation, QUESTIONS[0], max_tokens=4)
    assert 0 < conversation.dropped < 40
    assert len(conversation.turns) == 41
    seen = [(t.question, t.ids or t.answer) for t in conversation.turns[conversation.dropped : -1]]
    fresh = panda.ask(clip, QUESTIONS[0], history=seen, max_tokens=4)
    assert conversation.turns[-1].answer == fresh.text


def test_dropping_makes_room_for_several_turns(panda: Panda, clip: Path) -> None:
    words = " ".join(["circle"] * 20)
    conversation = Conversation(panda.open(clip), [Turn(f"{words}?", words) for _ in range(40)])
    ask(conversation, QUESTIONS[0], max_tokens=4)
    forgotten = conversation.dropped
    assert ask(conversation, QUESTIONS[1], max_tokens=4) < 60
    assert conversation.dropped == forgotten


def test_question_longer_than_the_context_is_refused_without_dropping_turns(
    conversation: Conversation,
) -> None:
    ask(conversation, QUESTIONS[0])
    with pytest.raises(UsageError, match="too long"):
        conversation.ask("circle " * 5000)
    assert conversation.dropped == 0
    assert len(conversation.turns) == 1


def test_seed_repeats_a_conversation_but_varies_its_turns(panda: Panda, clip: Path) -> None:
    def answers() -> list[str]:
        conversation = Conversation(panda.open(clip))
        for _ in range(2):
            for _ in conversation.ask(
                QUESTIONS[0], GenerationOptions(max_tokens=8, temperature=2.0, seed=5)
            ):
                pass
        return [turn.answer for turn in conversation.turns]

    first, second = answers(), answers()
    assert first == second
    assert first[0] != first[1]


def test_undo_adjusts_the_number_of_dropped_turns(conversation: Conversation) -> None:
    conversation.turns, conversation.dropped = [Turn("a", "b"), Turn("c", "d")], 2
    conversation.undo()
    assert conversation.dropped == len(conversation.turns)


def test_llama_cpp_prefills_only_the_new_turn(llama_panda: Panda, clip: Path) -> None:
    conversation = Conversation(llama_panda.open(clip))
    ask(conversation, QUESTIONS[0])
    assert ask(conversation, QUESTIONS[1]) <= own_tokens(conversation, QUESTIONS[1]) + 1


@pytest.mark.parametrize("interrupt", [False, True], ids=["undone", "interrupted and undone"])
def test_llama_cpp_undo_removes_the_turn_from_the_cache(
    llama_panda: Panda, clip: Path, interrupt: bool
) -> None:
    conversation = Conversation(llama_panda.open(clip))
    ask(conversation, QUESTIONS[0])
    if interrupt:
        with conversation.ask(QUESTIONS[1], GenerationOptions(max_tokens=12)) as stream:
            next(stream)
        assert conversation.turns[-1].finish_reason == "interrupted"
    else:
        ask(conversation, QUESTIONS[1])
    conversation.undo()
    assert ask(conversation, QUESTIONS[2]) <= own_tokens(conversation, QUESTIONS[2]) + 1
    history = [(QUESTIONS[0], conversation.turns[0].ids)]
    fresh = llama_panda.ask(clip, QUESTIONS[2], history=history, max_tokens=12)
    assert conversation.turns[-1].ids == fresh.ids


def test_llama_cpp_continues_after_an_interrupted_answer(llama_panda: Panda, clip: Path) -> None:
    conversation = Conversation(llama_panda.open(clip))
    with conversation.ask(QUESTIONS[0], GenerationOptions(max_tokens=12)) as stream:
        next(stream)
    (cut,) = conversation.turns
    ask(conversation, QUESTIONS[1])
    fresh = llama_panda.ask(clip, QUESTIONS[1], history=[(cut.question, cut.answer)], max_tokens=12)
    assert conversation.turns[-1].ids == fresh.ids
