"""Continuous batching where memory is short: smaller batches, preemption, no text lost."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch

from pandacli.errors import DeviceError
from pandacli.inference import GenerationOptions, Request
from pandacli.inference.backends import SharedPrefix
from pandacli.inference.backends.torch import TorchSequenceBatch
from pandacli.inference.continuous_batching import Generation
from pandacli.inference.generation import RequestState
from pandacli.inference.session import VideoSession
from tests.inference.batches import QUESTIONS, REQUESTS, texts


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

    def watched(
        generation: Generation, state: RequestState, *rest: Any, **named: Any
    ) -> Iterator[object]:
        indices.append(state.index)
        return run_alone(generation, state, *rest, **named)

    monkeypatch.setattr(Generation, "_run_alone", watched)
    return indices
