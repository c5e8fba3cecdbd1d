"""Scores of choices and log-probabilities of answers, against plain passes of transformers."""

import math
import random
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from sentencepiece import SentencePieceProcessor
from transformers import AutoModelForImageTextToText

import pandacli.modeling.modeling_videopanda  # noqa: F401  (registers the classes)
from pandacli import Panda
from pandacli.errors import DeviceError, UsageError
from pandacli.inference import GenerationOptions, Request, likelihood
from pandacli.inference.likelihood import TokenTree
from pandacli.inference.session import VideoSession
from pandacli.inference.spec import Answer, ScoreRequest, Scores, check_choices
from pandacli.modeling.tokenization_videopanda import DEFAULT_SYSTEM
from pandacli.video import Clip, preprocess, sample_frames

CHOICES = [
    *("yes", "no", "yes yes", "yes, a circle", "A red circle moves left.", "a", "ab", "abc", "a b"),
    *("猫", "🎉🎉", "l'été", "нет", "يسار", "1", "12", "two lines\nhere", "</s>", "ASSISTANT: no"),
    *(" yes", "yes ", "  two  spaces ", "<image>", "USER:"),
]
QUESTIONS = ["Is there a circle?", "Is there a square?", "", "What happens? " * 8]
TURNS = [("What colour is it?", "red"), ("猫?", " Yes,  left")]

Turns = Sequence[tuple[str, str]]


@pytest.fixture
def session(panda: Panda, clip: Path) -> VideoSession:
    return panda.open(clip)


class PlainModel:
    """A checkpoint in float32 in plain transformers, without a KV cache."""

    def __init__(self, folder: Path, clip: Path) -> None:
        self.model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
        self.pieces = SentencePieceProcessor(str(folder / "tokenizer.model"))
        self.clip = clip

    def encode(self, text: str, *, after_end: bool) -> list[int]:
        pieces = self.pieces.encode(text, out_type=str)
        if after_end and text[:1] != " ":  # no space in front of the text after </s>
            pieces[0] = pieces[0].removeprefix("▁")
        return [self.pieces.piece_to_id(piece) for piece in filter(None, pieces)]

    def prompt(
        self, question: str, turns: Turns = (), system: str = DEFAULT_SYSTEM, frames: int = 8
    ) -> tuple[list[int], str]:
        """The ids before the last text, and the beginning of that text."""
        ids = [1, *self.encode(f"{system} USER: ", after_end=False), *[-200] * frames]
        text = "\n"
        for asked, said in turns:
            ids += [*self.encode(f"{text}{asked} ASSISTANT: {said}", after_end=len(text) > 1), 2]
            text = "USER: "
        return ids, f"{text}{question} ASSISTANT:" if question or not turns else "USER:ASSISTANT:"

    @cache  # noqa: B019  (there is one for the module)
    def pixels(self, frames: int) -> torch.Tensor:
        config = self.model.config
        return preprocess(
            sample_frames(Clip(self.clip), frames).pixels,
            image_size=config.image_size,
            patch_size=config.patch_size,
            num_frames=frames,
        )[None]

    def logprobs(self, ids: list[int], answer: list[int], frames: int = 8) -> list[float]:
        """The log-probability of each token of an answer behind a prompt."""
        given = torch.tensor([[*ids, *answer[:-1]]])
        with torch.inference_mode():
            logits = self.model(input_ids=given, pixel_values=self.pixels(frames)).logits[0]
        rows = logits[-len(answer) :].double().log_softmax(-1)
        return rows[range(len(answer)), answer].tolist()

    def score(self, question: str, choice: str, turns: Turns = (), **how: object) -> float:
        """The log-probability of a choice and its end."""
        ids, text = self.prompt(question, turns, **how)  # type: ignore[arg-type]
        prompt = ids + self.encode(text, after_end=bool(turns))
        whole = [*ids, *self.encode(f"{text} {choice}", after_end=bool(turns)), 2]
        assert whole[: len(prompt)] == prompt
        frames = int(str(how.get("frames", 8)))
        return math.fsum(self.logprobs(prompt, whole[len(prompt) :], frames))


@pytest.fixture(scope="module")
def plain(checkpoint: Path, clip: Path) -> PlainModel:
    return PlainModel(checkpoint, clip)


@pytest.mark.parametrize(("system", "turns"), [(DEFAULT_SYSTEM, 0), ("Be brief.", 1), ("", 2)])
def test_a_score_is_the_log_probability_of_the_answer_and_its_end(
    panda: Panda, clip: Path, plain: PlainModel, system: str, turns: int
) -> None:
    session, history = panda.open(clip, system=system), TURNS[:turns]
    for question in QUESTIONS[turns:]:
        scores = session.score(question, CHOICES, history=history)
        assert [choice.text for choice in scores.choices] == CHOICES
        for choice in scores.choices:
            expected = plain.score(question, choice.text, history, system=system)
            assert choice.logprob == pytest.approx(expected, abs=1e-4)


def test_a_choice_may_have_one_token_or_two_hundred(
    panda: Panda, clip: Path, plain: PlainModel
) -> None:
    session = panda.open(clip, num_frames=4)
    long = " ".join(random.Random(1).choices(["left", "right", "up", "down"], k=110))
    choices = ["yes", long, f"{long} up", "no"]
    assert len(session.encode_choice(ScoreRequest("And?", (long,)), long)[1]) > 200
    for choice in session.score("And?", choices, history=TURNS[:1]).choices:
        expected = plain.score("And?", choice.text, TURNS[:1], frames=4)
        assert choice.logprob == pytest.approx(expected, abs=1e-4)


def test_two_hundred_choices_take_several_passes(session: VideoSession, plain: PlainModel) -> None:
    rng = random.Random(2)
    drawn = ("".join(rng.choices("abcdef gh", k=rng.randint(0, 30))) for _ in range(200))
    choices = tuple(f"{number}{text}" for number, text in enumerate(drawn))
    scoring = session.score_all([ScoreRequest("Which?", choices)])
    ((_, scores),) = scoring
    assert isinstance(scores, Scores)
    assert scoring.stats.passes > 1
    assert scoring.stats.tokens > 1024
    for choice in rng.sample(scores.choices, 30):
        assert choice.logprob == pytest.approx(plain.score("Which?", choice.text), abs=1e-4)


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


def test_earlier_turns_leave_room_for_all_choices_in_a_pass(
    session: VideoSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = TURNS * 4
    expected = session.score("And?", CHOICES[:5], history=history)
    monkeypatch.setattr(likelihood, "_MAX_NODES", 60)
    scoring = session.score_all([ScoreRequest("And?", tuple(CHOICES[:5]), history)])
    assert dict(scoring) == {0: expected}
    assert scoring.stats.passes == 1
    # other histories that begin with the same turn
    requests = [ScoreRequest("So?", ("a", "b"), TURNS[: n + 1]) for n in (0, 1, 0)]
    for index, scores in session.score_all(requests):
        alone = session.score("So?", ("a", "b"), history=requests[index].history)
        assert isinstance(scores, Scores)
        for one, other in zip(scores.choices, alone.choices, strict=True):
            assert one.logprob == pytest.approx(other.logprob, abs=1e-4)


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


def test_scoring_that_is_resumed_after_another_question_is_refused(
    session: VideoSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(likelihood, "_MAX_NODES", 1)
    scoring = session.score_all([ScoreRequest(text, ("yes", "no")) for text in QUESTIONS[:2]])
    next(scoring)
    stream = session.stream(QUESTIONS[0], max_tokens=4)
    first = next(stream)
    with pytest.raises(RuntimeError, match="a newer question"):
        next(scoring)
    assert first + "".join(stream) == session.ask(QUESTIONS[0], max_tokens=4).text


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


Generate = Callable[[VideoSession, list[Request]], list[Answer]]


def alone(session: VideoSession, requests: list[Request]) -> list[Answer]:
    return [answer for request in requests for answer in together(session, [request])]


def together(session: VideoSession, requests: list[Request]) -> list[Answer]:
    found = dict(session.generate(requests).results())
    answers = [found[number] for number in range(len(requests))]
    assert all(isinstance(answer, Answer) for answer in answers)
    return answers  # type: ignore[return-value]


@pytest.mark.parametrize("generate", [alone, together])
@pytest.mark.parametrize("temperature", [0.0, 0.3, 2.0])
def test_logprobs_are_of_the_model_at_a_temperature_of_1(
    session: VideoSession, plain: PlainModel, generate: Generate, temperature: float
) -> None:
    options = GenerationOptions(9, temperature, seed=5, logprobs=True)
    requests = [Request(text, TURNS[:n], options) for n, text in enumerate(QUESTIONS[:2])]
    for request, answer in zip(requests, generate(session, requests), strict=True):
        assert answer.finish_reason == "length"  # so there is no end token
        ids, text = plain.prompt(request.question, TURNS[: len(request.history)])
        ids += plain.encode(text, after_end=bool(request.history))
        found = [token.logprob for token in answer.logprobs]
        assert found == pytest.approx(plain.logprobs(ids, [*answer.ids]), abs=1e-4)


BACKENDS = [
    ("torch", {"abs": 1e-4}),
    pytest.param(
        "llama",
        {"rel": 0.02, "abs": 0.1},  # it has other kernels for passes of 64 tokens and more
        marks=pytest.mark.skipif(not find_spec("xllamacpp"), reason="no llama.cpp"),
    ),
]


@pytest.mark.parametrize(("engine", "near"), BACKENDS)
def test_logprobs_of_an_answer_sum_to_its_score_as_a_choice(
    clip: Path, engine: str, near: dict[str, float]
) -> None:
    session = Panda.load("tiny", engine=engine, device="cpu").open(clip)
    options = GenerationOptions(logprobs=True)
    requests = [Request(text, options=options) for text in ("What happens?", "Is there a star?")]
    for generate in (alone, together):
        for request, answer in zip(requests, generate(session, requests), strict=True):
            assert answer.finish_reason == "stop"
            assert answer.logprobs[-1].token == "</s>"
            (choice,) = session.score(request.question, [answer.text]).choices
            total = math.fsum(token.logprob for token in answer.logprobs)
            assert choice.logprob == pytest.approx(total, **near)


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
