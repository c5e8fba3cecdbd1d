"""Answers to batched requests equal those to single ones, whatever else is in the batch."""

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from pandacli import Panda
from pandacli.errors import UsageError
from pandacli.inference import Answer, GenerationOptions, Request
from pandacli.inference.session import VideoSession
from tests.inference.batches import QUESTIONS, REQUESTS, ask, texts

SAMPLING = GenerationOptions(6, temperature=1.0, seed=4)


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


class Arriving(Iterator[Request]):
    """Requests that have come so far."""

    def __init__(self) -> None:
        self.come: deque[Request] = deque()

    def __next__(self) -> Request:
        if not self.come:
            raise StopIteration
        return self.come.popleft()


@pytest.mark.parametrize("seed", range(6))
def test_requests_that_come_later_join_those_that_run(
    session: VideoSession, single: list[str], seed: int
) -> None:
    rng = Random(seed)
    gaps = [rng.choice([0, 0, 1, 2, 5]) for _ in REQUESTS]
    arriving, later = Arriving(), deque(zip(gaps, REQUESTS, strict=True))
    arriving.come.append(later.popleft()[1])
    found: dict[int, str] = {}
    waited = 0
    generation = session.generate(arriving, joining=True)
    for events in generation.passes():
        found |= {index: str(event) for index, event in events if isinstance(event, Answer)}
        waited += 1
        while later and waited > later[0][0]:
            arriving.come.append(later.popleft()[1])
            waited = 0
    answered = len(found)
    assert [found[index] for index in range(answered)] == single[:answered]
    assert answered == len(REQUESTS) - len(later) - len(arriving.come)
    assert answered > 1


def test_short_request_does_not_wait_for_a_long_one_that_runs_alone(session: VideoSession) -> None:
    arriving = Arriving()
    arriving.come.append(REQUESTS[6])
    generation = session.generate(arriving, joining=True)
    passes = generation.passes()
    first = [next(passes) for _ in range(3)]
    arriving.come.append(REQUESTS[0])
    order = [index for events in passes for index, event in events if isinstance(event, Answer)]
    assert not any(isinstance(event, Answer) for events in first for _, event in events)
    assert order == [1, 0]


@pytest.mark.parametrize("seed", range(6))
def test_cancelled_requests_end_and_change_no_other(
    session: VideoSession, single: list[str], seed: int
) -> None:
    rng = Random(seed)
    size = rng.choice([1, 2, 4, None])
    generation = session.generate(REQUESTS, batch_size=size)
    cancelled: dict[int, int] = {}
    answers: dict[int, str] = {}
    for number, events in enumerate(generation.passes()):
        for index, event in events:
            assert index not in cancelled
            if isinstance(event, Answer):
                answers[index] = event.text
        if rng.random() < 0.3:
            index = rng.randrange(len(REQUESTS))
            if index not in answers:
                cancelled.setdefault(index, number)
                generation.cancel(index)
    assert answers.keys() | cancelled.keys() == set(range(len(REQUESTS)))
    assert all(text == single[index] for index, text in answers.items())
