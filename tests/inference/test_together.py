"""Questions answered together get the answers that they get alone, in any company."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from pandacli import Panda
from pandacli.errors import DeviceError, UsageError
from pandacli.inference import Answer, VideoSession
from pandacli.inference.backends.torch.batch import TorchSequenceBatch
from pandacli.inference.continuous_batching import Ask, Together
from pandacli.inference.prefix import PrefixCache

QUESTIONS = [
    "what?",
    "Is there a circle, and what colour is the square that stays still while it moves left?",
    "which colour is it?",
    "What happens?",
    "yes, no, one, two, three",
    "left, right, up, down; is the triangle green?",
    "Is it white?",
]
ASKS = [Ask(question, 5 + 3 * number) for number, question in enumerate(QUESTIONS)]


@pytest.fixture
def opened(panda: Panda, clip: Path) -> VideoSession:
    return panda.open(clip)


@pytest.fixture
def alone(opened: VideoSession) -> list[str]:
    """The answers to `ASKS`, each asked by itself."""
    return [opened.ask(ask.question, max_tokens=ask.max_tokens).text for ask in ASKS]


def texts(together: Together) -> list[str]:
    """The answers in the order of their questions."""
    answers = dict(together)
    assert all(isinstance(answer, Answer) for answer in answers.values())
    return [str(answers[number]) for number in range(len(answers))]


@pytest.mark.parametrize("at_once", [1, 2, 3, 7, None])
def test_an_answer_does_not_depend_on_its_company(
    opened: VideoSession, alone: list[str], at_once: int | None
) -> None:
    assert texts(opened.ask_together(ASKS, at_once=at_once)) == alone


def test_the_clip_is_as_before_when_all_are_answered(
    opened: VideoSession, alone: list[str]
) -> None:
    texts(opened.ask_together(ASKS))
    assert opened.ask(ASKS[1].question, max_tokens=ASKS[1].max_tokens).text == alone[1]


def test_the_clip_is_as_before_when_the_rest_is_left(
    opened: VideoSession, alone: list[str]
) -> None:
    together = opened.ask_together(ASKS, at_once=3)
    next(together)
    together.close()
    assert opened.ask(ASKS[0].question, max_tokens=ASKS[0].max_tokens).text == alone[0]


def test_questions_are_drawn_only_as_there_is_room(opened: VideoSession) -> None:
    drawn = 0

    def endless() -> Iterator[Ask]:
        nonlocal drawn
        while True:
            drawn += 1
            yield Ask("what?", 4)

    together = opened.ask_together(endless(), at_once=3)
    next(together)
    together.close()
    assert drawn <= 4


def test_a_question_that_is_too_long_does_not_keep_the_others(
    opened: VideoSession, alone: list[str]
) -> None:
    answers = dict(opened.ask_together([ASKS[0], Ask("what? " * 500), ASKS[1]]))
    assert isinstance(answers[1], UsageError)
    assert [str(answers[0]), str(answers[2])] == alone[:2]


def test_an_answer_says_what_it_took(opened: VideoSession) -> None:
    expected = opened.ask(QUESTIONS[0], max_tokens=6)
    ((_, answer),) = opened.ask_together([Ask(QUESTIONS[0], 6)])
    assert isinstance(answer, Answer)
    assert answer.finish_reason == expected.finish_reason
    assert answer.ids == expected.ids
    assert answer.stats.answer_tokens == expected.stats.answer_tokens
    assert answer.stats.question_tokens == expected.stats.question_tokens
    assert answer.stats.prefix_tokens == expected.stats.prefix_tokens


def test_drawn_answers_are_repeated_by_their_seed(opened: VideoSession) -> None:
    alone = [opened.ask(q, max_tokens=6, temperature=1.0, seed=4).text for q in QUESTIONS]
    asks = [Ask(question, 6) for question in QUESTIONS]
    assert texts(opened.ask_together(asks, temperature=1.0, seed=4)) == alone


def test_no_questions_no_answers(opened: VideoSession) -> None:
    assert list(opened.ask_together([])) == []


def test_no_question_at_a_time_is_refused(opened: VideoSession) -> None:
    with pytest.raises(UsageError, match="0 questions at a time"):
        opened.ask_together(ASKS, at_once=0)


@pytest.mark.parametrize("which", [0, 3, 6])
def test_a_token_chosen_by_a_hair_is_chosen_again_alone(
    opened: VideoSession, alone: list[str], which: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_alone: list[str] = []
    ask = opened.ask

    def watched(question: str, **how: Any) -> Answer:
        asked_alone.append(question)
        return ask(question, **how)

    monkeypatch.setattr(opened, "ask", watched)
    spoil_reading(monkeypatch, opened, at=which)
    assert texts(opened.ask_together(ASKS)) == alone
    assert asked_alone == [QUESTIONS[which]]


def test_too_little_memory_for_many_at_once_is_enough_for_fewer(
    opened: VideoSession, alone: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = limit_readings(monkeypatch, opened, most=2)
    assert texts(opened.ask_together(ASKS)) == alone
    assert max(sizes) == 7


def test_too_little_memory_for_two_at_once_is_enough_for_one_alone(
    opened: VideoSession, alone: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_readings(monkeypatch, opened, most=0)
    assert texts(opened.ask_together(ASKS)) == alone


def test_too_little_memory_for_one_fails_that_one(
    opened: VideoSession, alone: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_readings(monkeypatch, opened, most=0)
    ask = opened.ask

    def reluctant(question: str, **how: Any) -> Answer:
        if question == QUESTIONS[1]:
            raise DeviceError("out of memory")
        return ask(question, **how)

    monkeypatch.setattr(opened, "ask", reluctant)
    answers = dict(opened.ask_together(ASKS[:3]))
    assert isinstance(answers[1], DeviceError)
    assert [str(answers[0]), str(answers[2])] == [alone[0], alone[2]]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(("asks", "at_once"), [(ASKS[:1], None), (ASKS[:3], 1)])
def test_a_question_without_others_is_asked_as_any_single_one(
    opened: VideoSession,
    monkeypatch: pytest.MonkeyPatch,
    asks: list[Ask],
    at_once: int | None,
    temperature: float,
) -> None:
    how = {"temperature": temperature, "seed": 4}
    expected = [opened.ask(ask.question, max_tokens=ask.max_tokens, **how).ids for ask in asks]  # type: ignore[arg-type]

    def fail(*_: object) -> None:
        raise AssertionError("other kernels than those of a single question")

    monkeypatch.setattr(PrefixCache, "batch", fail)
    answers = dict(opened.ask_together(asks, at_once=at_once, **how))  # type: ignore[arg-type]
    assert [answers[n].ids for n in range(len(asks))] == expected  # type: ignore[union-attr]


def test_where_too_much_room_was_asked_for_less_is_made_do_with(
    opened: VideoSession, alone: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened.prepare()
    prefix = opened._prefix
    assert prefix is not None
    branch, rooms = prefix.batch, []

    def reluctant(room: int) -> object:
        rooms.append(room)
        if room > 300:
            raise DeviceError("out of memory")
        return branch(room)

    monkeypatch.setattr(prefix, "batch", reluctant)
    assert texts(opened.ask_together(ASKS)) == alone
    assert rooms[-1] <= 300 < rooms[-2]


def test_long_questions_join_a_few_at_a_time(
    opened: VideoSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pandacli.inference.continuous_batching._READ_AT_ONCE", 40)
    longest: list[int] = []
    read = TorchSequenceBatch.append

    def measured(branches: TorchSequenceBatch, texts: Mapping[int, Sequence[int]]) -> object:
        longest.append(sum(map(len, texts.values())))
        return read(branches, texts)

    monkeypatch.setattr(TorchSequenceBatch, "append", measured)
    questions = [Ask("what? " * 12, 3) for _ in range(5)]
    assert len(texts(opened.ask_together(questions))) == 5
    assert max(longest) < 60


def test_the_youngest_waits_where_answers_outgrow_the_room(
    opened: VideoSession, alone: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VideoSession, "_room_together", lambda _: 150)
    monkeypatch.setattr("pandacli.inference.continuous_batching._FIRST_TOKENS", 1)
    assert texts(opened.ask_together(ASKS)) == alone


def test_a_question_that_begins_anew_draws_anew(
    opened: VideoSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = [
        opened.ask(ask.question, max_tokens=ask.max_tokens, temperature=1.0, seed=4).text
        for ask in ASKS
    ]
    monkeypatch.setattr(VideoSession, "_room_together", lambda _: 150)
    monkeypatch.setattr("pandacli.inference.continuous_batching._FIRST_TOKENS", 1)
    assert texts(opened.ask_together(ASKS, temperature=1.0, seed=4)) == alone


def test_frames_are_encoded_once_for_all_system_prompts(
    panda: Panda, opened: VideoSession, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = panda.ask(clip, "what?", system="Be brief.", max_tokens=8).text
    opened.prepare()
    monkeypatch.setattr(panda.model.model, "encode_frames", None)
    assert opened.with_system("Be brief.").ask("what?", max_tokens=8).text == expected


Reads = Callable[[Mapping[int, Sequence[int]]], torch.Tensor]


def wrap_reads(
    monkeypatch: pytest.MonkeyPatch, opened: VideoSession, wrapped: Callable[[Reads], Reads]
) -> None:
    """Has all branches of a clip read by way of something else."""
    opened.prepare()
    prefix = opened._prefix
    assert prefix is not None
    branch = prefix.batch

    def lend(room: int) -> object:
        branches = branch(room)
        monkeypatch.setattr(branches, "append", wrapped(branches.append))
        return branches

    monkeypatch.setattr(prefix, "batch", lend)


def spoil_reading(monkeypatch: pytest.MonkeyPatch, opened: VideoSession, *, at: int) -> None:
    """Has two tokens lead in the third token of one question, the wrong one first."""

    def wrapped(read: Reads) -> Reads:
        passes = 0

        def reading(texts: Mapping[int, Sequence[int]]) -> torch.Tensor:
            nonlocal passes
            passes += 1
            logits = read(texts).clone()
            if passes == 3:
                row = logits[list(texts).index(at)]
                row[7] = row.max() * (1 + 1e-6)
            return logits

        return reading

    wrap_reads(monkeypatch, opened, wrapped)


def limit_readings(
    monkeypatch: pytest.MonkeyPatch, opened: VideoSession, *, most: int
) -> list[int]:
    """Has reading more than so many texts at once run out of memory; returns what was tried."""
    sizes: list[int] = []

    def wrapped(read: Reads) -> Reads:
        def reading(texts: Mapping[int, Sequence[int]]) -> torch.Tensor:
            sizes.append(len(texts))
            if len(texts) > most:
                raise MemoryError
            return read(texts)

        return reading

    wrap_reads(monkeypatch, opened, wrapped)
    return sizes
