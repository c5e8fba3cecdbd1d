"""Scores of choices against a computation of the whole text at once, without a KV cache."""

import math
import random
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from pandacli import Panda
from pandacli.errors import DeviceError, UsageError
from pandacli.inference import likelihood
from pandacli.inference.likelihood import TokenTree
from pandacli.inference.session import VideoSession
from pandacli.inference.spec import ScoreRequest, Scores, check_choices
from pandacli.modeling import encode_prompt

CHOICES = [
    *("yes", "no", "yes yes", "yes, a circle", "A red circle moves left.", "a", "ab", "abc"),
    *("猫", "🎉🎉", "l'été", "нет", "يسار", "1", "12", "two lines\nhere", "</s>", "ASSISTANT: no"),
]
QUESTIONS = ["Is there a circle?", "Is there a square?", "", "What happens? " * 8]


@pytest.fixture
def session(panda: Panda, clip: Path) -> VideoSession:
    return panda.open(clip)


@torch.inference_mode()
def whole_text(session: VideoSession, question: str, choice: str, history: tuple = ()) -> float:
    """The log-probability of a choice and its end, by one forward pass over all embeddings."""
    model, tokenizer = session.panda.model, session.panda.tokenizer
    ids = encode_prompt([*history, (question, choice)], tokenizer)
    start = len(encode_prompt([*history, (question, None)], tokenizer))
    (encoded,) = model.model.encode_frames(session._pixels()[None])
    (embedded,) = model.embed_frames(torch.tensor([ids]), [encoded])
    states = model.model(inputs_embeds=embedded[None]).last_hidden_state[0]
    logprobs = torch.log_softmax(model.lm_head(states).double(), -1)
    answer = ids[start:]
    assert answer[-1] == tokenizer.eos_id
    first = len(states) - len(answer) - 1
    return sum(float(logprobs[first + n, token]) for n, token in enumerate(answer))


def test_a_score_is_the_log_probability_of_the_answer_and_its_end(session: VideoSession) -> None:
    for question in QUESTIONS:
        scores = session.score(question, CHOICES)
        assert [choice.text for choice in scores.choices] == CHOICES
        for choice in scores.choices:
            expected = whole_text(session, question, choice.text)
            assert choice.logprob == pytest.approx(expected, abs=1e-4)


def test_probabilities_are_shares_of_the_coverage(session: VideoSession) -> None:
    scores = session.score("What is it?", CHOICES)
    assert sum(choice.probability for choice in scores.choices) == pytest.approx(1)
    for choice in scores.choices:
        assert math.exp(choice.logprob) == pytest.approx(choice.probability * scores.coverage)
    assert scores.best == max(scores.choices, key=lambda choice: choice.probability)


def test_permuting_the_choices_permutes_the_result_exactly(session: VideoSession) -> None:
    rng = random.Random(4)
    expected = {c.text: c for c in session.score(QUESTIONS[0], CHOICES).choices}
    for _ in range(5):
        order = rng.sample(CHOICES, len(CHOICES))
        scores = session.score(QUESTIONS[0], order)
        assert list(scores.choices) == [expected[text] for text in order]


def test_long_choices_and_earlier_turns_are_scored_too(session: VideoSession) -> None:
    long = " ".join(["left right"] * 40)
    history = (("What colour is it?", "red"), ("Sure?", "yes"))
    tokens = len(session.encode_choice(ScoreRequest("And?", (long,)), long)[1])
    assert tokens > 100
    scores = session.score("And?", [long, long + " up", "red"], history=history)
    for choice in scores.choices:
        expected = whole_text(session, "And?", choice.text, history)
        assert choice.logprob == pytest.approx(expected, rel=1e-6, abs=1e-4)


@pytest.mark.parametrize("nodes", [1, 40, 200])
def test_small_passes_give_the_same_scores(
    session: VideoSession, monkeypatch: pytest.MonkeyPatch, nodes: int
) -> None:
    requests = [ScoreRequest(question, tuple(CHOICES)) for question in QUESTIONS]
    expected = dict(session.score_all(requests))
    monkeypatch.setattr(likelihood, "_MAX_NODES", nodes)
    found = dict(session.score_all(requests))
    assert found.keys() == expected.keys()
    for index, scores in expected.items():
        assert isinstance(scores, Scores)
        for one, other in zip(scores.choices, found[index].choices, strict=True):
            assert one.logprob == pytest.approx(other.logprob, abs=1e-4)


def test_all_questions_take_one_pass_where_there_is_room(
    session: VideoSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = []
    original = session.shared_prefix()[0].tree

    def counted(
        ids: list[int], parents: list[int], wanted: list[int], history: list[int]
    ) -> torch.Tensor:
        passes.append(len(ids))
        return original(ids, parents, wanted, history)

    monkeypatch.setattr(session.shared_prefix()[0], "tree", counted)
    requests = [ScoreRequest(f"Is there a {n}?", ("yes", "no", "maybe")) for n in range(9)]
    assert len(dict(session.score_all(requests))) == 9
    encoded = [session.encode_choice(r, choice) for r in requests for choice in r.choices]
    apart = sum(len(prompt) + len(answer) for prompt, answer in encoded)
    assert len(passes) == 1
    assert passes[0] < apart / 3


def test_out_of_memory_makes_the_passes_smaller(
    session: VideoSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = session.shared_prefix()[0]
    original = prefix.tree

    def limited(
        ids: list[int], parents: list[int], wanted: list[int], history: list[int]
    ) -> torch.Tensor:
        if len(ids) > 60:
            raise DeviceError("out of memory")
        return original(ids, parents, wanted, history)

    monkeypatch.setattr(prefix, "tree", limited)
    requests = [ScoreRequest("Is there?", ("yes", "no")), ScoreRequest("x " * 80, ("yes", "no"))]
    requests.append(ScoreRequest("Where?", ("left", "right")))
    found = dict(session.score_all(requests))
    assert isinstance(found[1], DeviceError)
    assert isinstance(found[0], Scores)
    assert isinstance(found[2], Scores)


def test_a_choice_that_is_too_long_fails_its_question_only(session: VideoSession) -> None:
    requests = [ScoreRequest("a?", ("yes", "no")), ScoreRequest("b?", ("yes", "no " * 900))]
    found = dict(session.score_all(requests))
    assert isinstance(found[0], Scores)
    assert isinstance(found[1], UsageError)


@pytest.mark.parametrize("choices", [[], ["yes", ""], ["yes", "  "], ["yes", "no", "yes"]])
def test_empty_and_equal_choices_are_refused(session: VideoSession, choices: list[str]) -> None:
    with pytest.raises(UsageError):
        session.score("What?", choices)


@pytest.mark.parametrize("choices", [["yes"], ["yes", " yes"], ["a", ""]])
def test_choices_of_a_user_are_two_or_more_and_different(choices: list[str]) -> None:
    with pytest.raises(UsageError, match="the choices"):
        check_choices(choices)


def test_an_answer_after_scoring_is_what_it_was_before(session: VideoSession) -> None:
    before = session.ask(QUESTIONS[0], max_tokens=8).ids
    session.score(QUESTIONS[1], CHOICES)
    assert session.ask(QUESTIONS[0], max_tokens=8).ids == before


def test_a_tree_holds_common_beginnings_once() -> None:
    tree = TokenTree()
    assert tree.add([1, 2, 3]) == [0, 1, 2]
    assert tree.add([1, 2, 4]) == [0, 1, 3]
    assert tree.add([2, 2]) == [4, 5]
    assert tree.ids == [1, 2, 3, 4, 2, 2]
    assert tree.parents == [-1, 0, 1, 1, -1, 4]


@pytest.mark.skipif(not find_spec("xllamacpp"), reason="no llama.cpp")
def test_llama_cpp_scores_a_tree_as_it_scores_each_path(clip: Path) -> None:
    session = Panda.load("tiny", engine="llama", device="cpu").open(clip)
    requests = [
        ScoreRequest(f"Is there a {n}?", ("Yes.", "No.", "A red circle.", "A red star."))
        for n in ("circle", "star", "red square") * 15
    ]
    together = dict(session.score_all(requests))
    for index in (0, 1, 2, 44):
        request = requests[index]
        for number, choice in enumerate(request.choices):
            alone = session.score(request.question, [choice]).choices[0]
            scores = together[index]
            assert isinstance(scores, Scores)
            found = scores.choices[number].logprob
            assert found == pytest.approx(alone.logprob, rel=0.02, abs=0.1)
