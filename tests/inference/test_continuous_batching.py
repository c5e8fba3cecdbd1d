"""Answers to batched requests equal those to single ones, whatever else is in the batch."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from pandacli import Panda
from pandacli.errors import DeviceError, UsageError
from pandacli.inference import Answer, GenerationOptions, Request
from pandacli.inference.backends.torch import TorchSequenceBatch
from pandacli.inference.continuous_batching import Generation
from pandacli.inference.generation import RequestState
from pandacli.inference.session import SharedPrefix, VideoSession

QUESTIONS = [
    "what?",
    "Is there a circle, and what colour is the square that stays still while it moves left?",
    "which colour is it?",
    "What happens?",
    "yes, no, one, two, three",
    "left, right, up, down; is the triangle green?",
    "Is it white?",
]
REQUESTS = [
    Request(question, options=GenerationOptions(5 + 3 * number))
    for number, question in enumerate(QUESTIONS)
]
SAMPLING = GenerationOptions(6, temperature=1.0, seed=4)


@pytest.fixture
def session(panda: Panda, clip: Path) -> VideoSession:
    return panda.open(clip)


def ask(session: VideoSession, request: Request) -> Answer:
    options = request.options or GenerationOptions()
    return session.ask(request.question, history=request.history, max_tokens=options.max_tokens)


@pytest.fixture
def single(session: VideoSession) -> list[str]:
    """The answers to `REQUESTS`, each asked by itself."""
    return [ask(session, request).text for request in REQUESTS]


def texts(generation: Generation) -> list[str]:
    """The answers in the order of their requests; their pieces must join to them."""
    pieces: dict[int, str] = {}
    answers: dict[int, str] = {}
    for index, event in generation:
        if isinstance(event, str):
            pieces[index] = pieces.get(index, "") + event
        else:
            assert isinstance(event, Answer)
            answers[index] = event.text
    assert all(pieces.get(index, "") == text for index, text in answers.items())
    return [answers[index] for index in range(len(answers))]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, None])
def test_batched_answers_equal_single_ones(
    session: VideoSession, single: list[str], batch_size: int | None
) -> None:
    assert texts(session.generate(REQUESTS, batch_size=batch_size)) == single


def test_requests_may_have_earlier_turns(session: VideoSession) -> None:
    turns = [("Is there a circle?", "yes"), ("Where?", "left")]
    requests = [Request(question, turns, GenerationOptions(8)) for question in QUESTIONS]
    expected = [ask(session, request).text for request in requests]
    assert texts(session.generate(requests)) == expected
    assert expected != [ask(session, Request(q, (), GenerationOptions(8))).text for q in QUESTIONS]


def test_session_is_usable_after_a_generation(session: VideoSession, single: list[str]) -> None:
    texts(session.generate(REQUESTS))
    assert ask(session, REQUESTS[1]).text == single[1]


def test_session_is_usable_after_closing_early(session: VideoSession, single: list[str]) -> None:
    with session.generate(REQUESTS, batch_size=3) as generation:
        next(generation)
    assert list(generation) == []
    assert ask(session, REQUESTS[0]).text == single[0]


def test_requests_are_drawn_only_as_there_is_room(session: VideoSession) -> None:
    drawn = 0

    def endless() -> Iterator[Request]:
        nonlocal drawn
        while True:
            drawn += 1
            yield Request("what?")

    generation = session.generate(endless(), GenerationOptions(4), batch_size=3)
    next(generation.results())
    generation.close()
    assert drawn <= 4


def test_nothing_is_computed_before_the_first_event_is_read(session: VideoSession) -> None:
    session.generate(REQUESTS)
    assert session._prefix is None


def test_a_request_that_is_too_long_fails_alone(session: VideoSession, single: list[str]) -> None:
    requests = [REQUESTS[0], Request("what? " * 500), REQUESTS[1]]
    results = dict(session.generate(requests).results())
    assert isinstance(results[1], UsageError)
    assert [str(results[0]), str(results[2])] == single[:2]


def test_a_request_with_wrong_options_fails_alone(session: VideoSession, single: list[str]) -> None:
    requests = [REQUESTS[0], Request("what?", options=GenerationOptions(0))]
    results = dict(session.generate(requests).results())
    assert isinstance(results[1], UsageError)
    assert str(results[0]) == single[0]


@pytest.mark.parametrize("batch_size", [1, None])
def test_stats_of_a_request_do_not_depend_on_batching(
    session: VideoSession, batch_size: int | None
) -> None:
    turns = [("Is there a circle?", "yes")]
    session.prepare()
    expected = session.ask(QUESTIONS[0], history=turns, max_tokens=6)
    requests = [Request(QUESTIONS[1], options=GenerationOptions(6)), Request(QUESTIONS[0], turns)]
    options = GenerationOptions(6)
    answer = dict(session.generate(requests, options, batch_size=batch_size).results())[1]
    assert isinstance(answer, Answer)
    assert answer.finish_reason == expected.finish_reason
    assert answer.ids == expected.ids
    for name in ("answer_tokens", "question_tokens", "prefix_tokens", "history_tokens"):
        assert getattr(answer.stats, name) == getattr(expected.stats, name)
    assert answer.stats.prefilled_tokens <= expected.stats.prefilled_tokens
    assert answer.stats.first_token_seconds > 0
    assert answer.stats.decode_seconds > 0


def test_a_seed_repeats_sampled_answers(session: VideoSession) -> None:
    single = [session.ask(q, max_tokens=6, temperature=1.0, seed=4).text for q in QUESTIONS]
    assert texts(session.generate(map(Request, QUESTIONS), SAMPLING)) == single


def test_greedy_and_sampled_requests_share_a_batch(
    session: VideoSession, single: list[str]
) -> None:
    sampled = session.ask(QUESTIONS[2], max_tokens=6, temperature=1.0, seed=4).text
    requests = [*REQUESTS[:2], Request(QUESTIONS[2], options=SAMPLING)]
    assert texts(session.generate(requests)) == [*single[:2], sampled]


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("stream", [True, False])
def test_a_stop_string_ends_its_own_request_only(
    session: VideoSession, single: list[str], batch_size: int, stream: bool
) -> None:
    place = len(single[6]) // 2
    stop = single[6][place : place + 2]
    options = GenerationOptions(23, stop=(stop,))
    requests = [REQUESTS[0], REQUESTS[1], Request(QUESTIONS[6], options=options)]
    results = dict(session.generate(requests, batch_size=batch_size, stream=stream).results())
    answer = results[2]
    assert isinstance(answer, Answer)
    assert answer.text == single[6][: single[6].index(stop)].rstrip()
    assert (answer.finish_reason, answer.ids) == ("stop", ())
    assert [str(results[0]), str(results[1])] == single[:2]


def test_no_requests_give_no_events(session: VideoSession) -> None:
    assert list(session.generate([])) == []


def test_batch_size_zero_is_refused(session: VideoSession) -> None:
    with pytest.raises(UsageError, match="a batch size cannot be 0"):
        session.generate(REQUESTS, batch_size=0)


@pytest.mark.parametrize("index", [0, 3, 6])
def test_a_request_with_a_near_tie_is_run_again_alone(
    session: VideoSession, single: list[str], index: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran_alone = watch_single_runs(monkeypatch)
    insert_near_tie(monkeypatch, session, index)
    assert texts(session.generate(REQUESTS)) == single
    assert ran_alone == [index]


def test_out_of_memory_for_a_batch_halves_it(
    session: VideoSession, single: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = limit_batch(monkeypatch, session, most=2)
    assert texts(session.generate(REQUESTS)) == single
    assert max(sizes) == 7


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_out_of_memory_in_mid_answer_loses_no_text(
    session: VideoSession, monkeypatch: pytest.MonkeyPatch, temperature: float
) -> None:
    options = GenerationOptions(12, temperature, seed=4)
    expected = [
        session.ask(q, max_tokens=12, temperature=temperature, seed=4).text for q in QUESTIONS
    ]
    passes = 0

    def wrapped(append: Append) -> Append:
        def fail_once(texts: Mapping[int, list[int]]) -> torch.Tensor:
            nonlocal passes
            passes += 1
            if passes == 6:
                raise MemoryError
            return append(texts)

        return fail_once

    wrap_append(monkeypatch, session, wrapped)
    assert texts(session.generate(map(Request, QUESTIONS), options)) == expected
    assert passes > 6


def test_out_of_memory_for_two_runs_requests_alone(
    session: VideoSession, single: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_batch(monkeypatch, session, most=0)
    assert texts(session.generate(REQUESTS)) == single


def test_out_of_memory_for_one_fails_that_one(
    session: VideoSession, single: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_batch(monkeypatch, session, most=0)
    session.prepare()
    append = SharedPrefix.append

    def fail_for_long(prefix: SharedPrefix, ids: list[int], history: int = 0) -> torch.Tensor:
        if len(ids) > 20:
            raise MemoryError
        return append(prefix, ids, history)

    monkeypatch.setattr(SharedPrefix, "append", fail_for_long)
    results = dict(session.generate(REQUESTS[:3]).results())
    assert isinstance(results[1], DeviceError)
    assert [str(results[0]), str(results[2])] == [single[0], single[2]]


def test_out_of_memory_for_the_prefix_is_raised(
    session: VideoSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: VideoSession) -> None:
        raise MemoryError

    monkeypatch.setattr(VideoSession, "shared_prefix", fail)
    with pytest.raises(DeviceError, match="out of memory"):
        list(session.generate(REQUESTS))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(("count", "batch_size"), [(1, None), (3, 1)])
def test_a_request_alone_is_computed_as_a_single_question(
    session: VideoSession,
    monkeypatch: pytest.MonkeyPatch,
    count: int,
    batch_size: int | None,
    temperature: float,
) -> None:
    questions, options = QUESTIONS[:count], GenerationOptions(8, temperature, seed=4)
    expected = [
        session.ask(question, max_tokens=8, temperature=temperature, seed=4).ids
        for question in questions
    ]

    def fail(*_: object) -> None:
        raise AssertionError("other kernels than those of a single question")

    monkeypatch.setattr(SharedPrefix, "batch", fail)
    results = dict(
        session.generate(map(Request, questions), options, batch_size=batch_size).results()
    )
    assert [results[n].ids for n in range(count)] == expected  # type: ignore[union-attr]


def test_room_that_cannot_be_allocated_is_halved(
    session: VideoSession, single: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix, _ = session.shared_prefix()
    batch, rooms = prefix.batch, []

    def refuse_large(room: int) -> object:
        rooms.append(room)
        if room > 300:
            raise DeviceError("out of memory")
        return batch(room)

    monkeypatch.setattr(prefix, "batch", refuse_large)
    assert texts(session.generate(REQUESTS)) == single
    assert rooms[-1] <= 300 < rooms[-2]


def test_long_requests_join_a_few_at_a_time(
    session: VideoSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pandacli.inference.continuous_batching._MAX_PREFILL", 40)
    longest: list[int] = []
    append = TorchSequenceBatch.append

    def measured(batch: TorchSequenceBatch, texts: Mapping[int, list[int]]) -> object:
        longest.append(sum(map(len, texts.values())))
        return append(batch, texts)

    monkeypatch.setattr(TorchSequenceBatch, "append", measured)
    requests = [Request("what? " * 12) for _ in range(5)]
    assert len(texts(session.generate(requests, GenerationOptions(3)))) == 5
    assert max(longest) < 60


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_newest_request_is_preempted_when_the_batch_outgrows_its_room(
    session: VideoSession, monkeypatch: pytest.MonkeyPatch, temperature: float
) -> None:
    expected = [
        session.ask(q, max_tokens=5 + 3 * n, temperature=temperature, seed=4).text
        for n, q in enumerate(QUESTIONS)
    ]
    preempted = 0
    preempt = Generation._preempt

    def count(generation: Generation, *args: Any) -> None:
        nonlocal preempted
        before = len(generation._running)
        preempt(generation, *args)
        preempted += before - len(generation._running)

    monkeypatch.setattr(Generation, "_preempt", count)
    monkeypatch.setattr(VideoSession, "batch_positions", lambda _: 150)
    monkeypatch.setattr("pandacli.inference.continuous_batching._RESERVED", 1)
    requests = [
        Request(q, options=GenerationOptions(5 + 3 * n, temperature, seed=4))
        for n, q in enumerate(QUESTIONS)
    ]
    assert texts(session.generate(requests)) == expected
    assert preempted


def test_an_older_generation_is_superseded_by_a_newer_one(session: VideoSession) -> None:
    older, newer = (session.generate([Request("What happens?")]) for _ in range(2))
    next(older)
    next(newer)
    with pytest.raises(RuntimeError, match="newer question"):
        list(older)
    assert isinstance(list(newer)[-1][1], Answer)


def test_frames_are_encoded_once_for_all_system_prompts(
    panda: Panda, session: VideoSession, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = panda.ask(clip, "what?", system="Be brief.", max_tokens=8).text
    session.prepare()
    monkeypatch.setattr(panda.model.model, "encode_frames", None)
    assert session.with_system("Be brief.").ask("what?", max_tokens=8).text == expected


Append = Callable[[Mapping[int, list[int]]], torch.Tensor]


def wrap_append(
    monkeypatch: pytest.MonkeyPatch, session: VideoSession, wrapped: Callable[[Append], Append]
) -> None:
    """Replace `append` of every batch of a session."""
    prefix, _ = session.shared_prefix()
    make_batch = prefix.batch

    def batch(room: int) -> object:
        made = make_batch(room)
        monkeypatch.setattr(made, "append", wrapped(made.append))
        return made

    monkeypatch.setattr(prefix, "batch", batch)


def insert_near_tie(monkeypatch: pytest.MonkeyPatch, session: VideoSession, index: int) -> None:
    """Let two tokens lead at the third token of a request, the wrong one first."""

    def wrapped(append: Append) -> Append:
        passes = 0

        def near_tie(texts: Mapping[int, list[int]]) -> torch.Tensor:
            nonlocal passes
            passes += 1
            logits = append(texts).clone()
            if passes == 3:
                row = logits[list(texts).index(index)]
                row[7] = row.max() * (1 + 1e-6)
            return logits

        return near_tie

    wrap_append(monkeypatch, session, wrapped)


def limit_batch(monkeypatch: pytest.MonkeyPatch, session: VideoSession, *, most: int) -> list[int]:
    """Let more than `most` sequences at once run out of memory; returns the sizes tried."""
    sizes: list[int] = []

    def wrapped(append: Append) -> Append:
        def limited(texts: Mapping[int, list[int]]) -> torch.Tensor:
            sizes.append(len(texts))
            if len(texts) > most:
                raise MemoryError
            return append(texts)

        return limited

    wrap_append(monkeypatch, session, wrapped)
    return sizes


def watch_single_runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The indices of requests that run alone, from now on."""
    indices: list[int] = []
    run_alone = Generation._run_alone

    def watched(generation: Generation, state: RequestState, *rest: Any) -> Iterator[object]:
        indices.append(state.index)
        return run_alone(generation, state, *rest)

    monkeypatch.setattr(Generation, "_run_alone", watched)
    return indices
