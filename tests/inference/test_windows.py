"""Windows looked at together have the answers and scores that each has alone."""

import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from pandacli import Panda
from pandacli.errors import ClipError, DeviceError, PandaError, UsageError
from pandacli.inference import Answer, GenerationOptions
from pandacli.inference.backends.torch import TorchBackend, TorchRowBatch
from pandacli.inference.continuous_batching import Generation
from pandacli.inference.generation import RequestState
from pandacli.inference.session import VideoSession
from pandacli.inference.spec import Scores
from pandacli.inference.windows import WindowBatch, windows_at_once
from pandacli.video import Clip, Frames, sample_frames

QUESTION = "What happens, and which colour is it?"
OTHER = "Which way?"
CHOICES = ("yes", "no", "A red circle moves left.", "A blue square stays")
OPTIONS = GenerationOptions(12)


@pytest.fixture(scope="module")
def windows(make_clip: Callable[..., Path]) -> list[Frames]:
    """Five wide ones, of which one has too few frames, and two tall ones, in mixed order."""
    wide = make_clip("wide.mp4", width=96, height=48, seconds=12)
    tall = make_clip("tall.mp4", width=48, height=64)
    spans = [(0, 3), (3, 6), (6, 6.75), (6, 9), (9, 12)]
    found = [sample_frames(Clip(wide, *span), 8) for span in spans]
    found[1:1] = [sample_frames(Clip(tall, 0, 4), 8)]
    return [*found, sample_frames(Clip(tall, 4, 8), 8)]


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that are prefilled from now on."""
    sizes: list[int] = []
    make = TorchBackend.rows

    def watched(backend: TorchBackend, embeddings: torch.Tensor) -> object:
        sizes.append(len(embeddings))
        return make(backend, embeddings)

    monkeypatch.setattr(TorchBackend, "rows", watched)
    return sizes


def alone(panda: Panda, windows: list[Frames], **options: Any) -> list[Answer]:
    return [panda.open(frames).ask(QUESTION, **options) for frames in windows]


def ids(answers: list[list[Answer | PandaError]]) -> list[tuple[int, ...]]:
    """Of the first answer of each clip."""
    return [answer.ids for answer, *_ in answers if isinstance(answer, Answer)]


def test_greedy_answers_are_those_of_each_alone(
    panda: Panda, windows: list[Frames], rows: list[int]
) -> None:
    expected = alone(panda, windows, max_tokens=12)
    assert len({answer.ids for answer in expected}) > 3, "answers must depend on the frames"
    answers = WindowBatch(panda, windows).ask([QUESTION], OPTIONS)
    assert ids(answers) == [answer.ids for answer in expected]
    assert sorted(rows) == [2, 4]


@pytest.mark.parametrize("quant", ["none", "8bit"])
def test_tiny_answers_and_scores_the_same(windows: list[Frames], quant: str) -> None:
    tiny = Panda.load("tiny", device="cpu", quant=quant)
    batch = WindowBatch(tiny, windows)
    assert ids(batch.ask([QUESTION])) == [answer.ids for answer in alone(tiny, windows)]
    assert_close(batch.score(QUESTION, CHOICES), tiny, windows)


def test_scores_are_those_of_each_alone(
    panda: Panda, windows: list[Frames], rows: list[int]
) -> None:
    assert_close(WindowBatch(panda, windows).score(QUESTION, CHOICES), panda, windows)
    assert sorted(rows) == [2, 4]


def test_questions_are_scored_behind_the_same_prefixes(
    panda: Panda, windows: list[Frames], rows: list[int]
) -> None:
    found = WindowBatch(panda, windows).score_all([OTHER, QUESTION], CHOICES)
    assert_close([first for first, _ in found], panda, windows, OTHER)
    assert_close([second for _, second in found], panda, windows)
    assert sorted(rows) == [2, 4], "the clips are looked at once"


def test_scores_of_more_nodes_than_a_pass_are_the_same(
    panda: Panda, windows: list[Frames], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pandacli.inference.likelihood._MAX_NODES", 25)
    assert_close(WindowBatch(panda, windows).score(QUESTION, CHOICES), panda, windows)


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 1.0, "seed": 4, "max_tokens": 9},
        {"max_tokens": 20, "stop": ("e", "o")},
        {"max_tokens": 6, "logprobs": True},
    ],
    ids=["sampled", "stopped", "logprobs"],
)
def test_options_hold_for_each(
    panda: Panda, windows: list[Frames], rows: list[int], options: dict[str, Any]
) -> None:
    answers = WindowBatch(panda, windows).ask([QUESTION], GenerationOptions(**options))
    for (answer,), expected in zip(answers, alone(panda, windows, **options), strict=True):
        assert isinstance(answer, Answer)
        assert (answer.text, answer.finish_reason) == (expected.text, expected.finish_reason)
        logprobs = [token.logprob for token in answer.logprobs]
        assert logprobs == pytest.approx([t.logprob for t in expected.logprobs], abs=1e-4)
        assert len(logprobs) == (6 if options.get("logprobs") else 0)
    assert rows


def test_several_questions_are_asked_each_on_its_own(
    panda: Panda, windows: list[Frames], rows: list[int]
) -> None:
    questions = [QUESTION, "what?", "Is there a circle?"]
    options = GenerationOptions(20, stop=("e",))  # so that rows end one after the other
    answers = WindowBatch(panda, windows).ask(questions, options)
    for frames, found in zip(windows, answers, strict=True):
        session = panda.open(frames)
        expected = [session.ask(q, max_tokens=20, stop=("e",)).text for q in questions]
        assert list(map(str, found)) == expected
    assert len(rows) == 2


def test_statistics_count_the_prefix_once(panda: Panda, windows: list[Frames]) -> None:
    first, second = WindowBatch(panda, windows).ask([QUESTION, "what?"], OPTIONS)[0]
    assert isinstance(first, Answer)
    assert isinstance(second, Answer)
    assert first.stats.prefilled_tokens == first.stats.prefix_tokens + first.stats.question_tokens
    assert second.stats.prefilled_tokens == second.stats.question_tokens


def test_a_clip_that_cannot_be_opened_has_its_error(
    panda: Panda, windows: list[Frames], monkeypatch: pytest.MonkeyPatch
) -> None:
    open_clip = Panda.open

    def refuse_one(self: Panda, frames: Frames, **options: Any) -> VideoSession:
        if frames is windows[2]:
            raise ClipError("damaged")
        return open_clip(self, frames, **options)

    expected = [answer.text for answer in alone(panda, windows, max_tokens=12)]
    expected[2] = "damaged"
    monkeypatch.setattr(Panda, "open", refuse_one)
    answers = WindowBatch(panda, windows).ask([QUESTION], OPTIONS)
    assert [str(answer) for (answer,) in answers] == expected


def test_a_question_that_does_not_fit_is_the_error_of_each(
    panda: Panda, windows: list[Frames]
) -> None:
    batch = WindowBatch(panda, windows)
    for long, short in batch.ask(["why? " * 400, QUESTION], OPTIONS):
        assert isinstance(long, UsageError)
        assert isinstance(short, Answer)
    assert all(isinstance(scores, UsageError) for scores in batch.score(QUESTION, ["yes", " "]))


def test_an_option_out_of_range_is_raised(panda: Panda, windows: list[Frames]) -> None:
    with pytest.raises(UsageError, match="temperature"):
        WindowBatch(panda, windows).ask([QUESTION], GenerationOptions(temperature=-1))


def test_out_of_memory_for_rows_halves_them(
    panda: Panda, windows: list[Frames], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = limit_rows(monkeypatch, most=2)
    answers = WindowBatch(panda, windows).ask([QUESTION], OPTIONS)
    assert ids(answers) == [answer.ids for answer in alone(panda, windows, max_tokens=12)]
    assert sorted(sizes) == [2, 2, 2, 4]


def test_out_of_memory_in_mid_answer_computes_it_again(
    panda: Panda, windows: list[Frames], monkeypatch: pytest.MonkeyPatch
) -> None:
    append, passes = TorchRowBatch.append, 0

    def fail_once(batch: TorchRowBatch, texts: Mapping[int, list[int]]) -> torch.Tensor:
        nonlocal passes
        passes += 1
        if passes == 5:
            raise MemoryError
        return append(batch, texts)

    monkeypatch.setattr(TorchRowBatch, "append", fail_once)
    answers = WindowBatch(panda, windows).ask([QUESTION], OPTIONS)
    assert ids(answers) == [answer.ids for answer in alone(panda, windows, max_tokens=12)]
    assert passes > 24


def test_out_of_memory_releases_the_rows_before_fewer_are_tried(
    panda: Panda, windows: list[Frames], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[weakref.ref[object]] = []
    alive: list[int] = []
    make = TorchBackend.rows

    def watched(backend: TorchBackend, embeddings: torch.Tensor) -> object:
        alive.append(sum(rows() is not None for rows in made))
        rows = make(backend, embeddings)
        made.append(weakref.ref(rows))
        return rows

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(TorchBackend, "rows", watched)
    monkeypatch.setattr(TorchRowBatch, "append", fail)
    WindowBatch(panda, windows).ask([QUESTION], OPTIONS)
    assert alive == [0] * len(alive)
    assert len(alive) == 4


def test_out_of_memory_for_one_is_raised(
    panda: Panda, windows: list[Frames], monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_rows(monkeypatch, most=0)

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(TorchBackend, "prefill", fail)
    batch = WindowBatch(panda, windows)
    for look in (lambda: batch.ask([QUESTION]), lambda: batch.score(QUESTION, CHOICES)):
        with pytest.raises(DeviceError, match="out of memory"):
            look()


def test_a_near_tie_is_decided_alone(
    panda: Panda, windows: list[Frames], monkeypatch: pytest.MonkeyPatch
) -> None:
    append, run_alone, ran_alone = TorchRowBatch.append, Generation._run_alone, []

    def near_tie(batch: TorchRowBatch, texts: Mapping[int, list[int]]) -> torch.Tensor:
        logits = append(batch, texts).clone()
        if 1 in texts:
            logits[[*texts].index(1), 7] = logits[[*texts].index(1)].max() * (1 + 1e-6)
        return logits

    def watched(generation: Generation, state: RequestState, *rest: Any) -> Iterator[object]:
        ran_alone.append(state.index)
        return run_alone(generation, state, *rest)

    expected = [answer.ids for answer in alone(panda, windows, max_tokens=12)]
    monkeypatch.setattr(TorchRowBatch, "append", near_tie)
    monkeypatch.setattr(Generation, "_run_alone", watched)
    assert ids(WindowBatch(panda, windows).ask([QUESTION], OPTIONS)) == expected
    assert ran_alone[:2] == [1, 1]  # of the four, and of the two
    assert set(ran_alone[2:]) == {0}  # the one that was alone, and a near-tie of its own


def test_memory_limits_how_many_are_looked_at_together(
    panda: Panda, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = []
    for free in (10 << 30, 6 << 20, 0):
        monkeypatch.setattr("pandacli.inference.windows.free_memory", lambda _, free=free: free)
        counts.append(windows_at_once(panda))
    assert counts[0] == 8
    assert 1 < counts[1] < 8
    assert counts[2] == 1


def assert_close(
    found: list[Scores | PandaError],
    panda: Panda,
    windows: list[Frames],
    question: str = QUESTION,
) -> None:
    for frames, scores in zip(windows, found, strict=True):
        expected = panda.open(frames).score(question, CHOICES)
        assert isinstance(scores, Scores)
        assert [choice.text for choice in scores.choices] == list(CHOICES)
        logprobs = [choice.logprob for choice in scores.choices]
        wanted = [choice.logprob for choice in expected.choices]
        assert logprobs == pytest.approx(wanted, abs=1e-4 if panda.quant == "none" else 0.1)


def limit_rows(monkeypatch: pytest.MonkeyPatch, *, most: int) -> list[int]:
    """Let more rows than `most` run out of memory; returns the sizes tried."""
    sizes: list[int] = []
    make = TorchBackend.rows

    def limited(backend: TorchBackend, embeddings: torch.Tensor) -> object:
        sizes.append(len(embeddings))
        if len(embeddings) > most:
            raise MemoryError
        return make(backend, embeddings)

    monkeypatch.setattr(TorchBackend, "rows", limited)
    return sizes
