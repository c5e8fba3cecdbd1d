"""Questions about a clip: a shared prefix changes no answer; limits are checked before work."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pandacli import Panda
from pandacli.errors import DeviceError, UsageError
from pandacli.inference import continuous_batching
from pandacli.inference.session import VideoSession
from pandacli.modeling import VideoPandaForConditionalGeneration
from pandacli.modeling.patches import count_tokens
from pandacli.modeling.tokenization_videopanda import encode_prompt
from pandacli.video import preprocess

QUESTIONS = ["What happens?", "Is there a circle?", "", "What colour is it? <image></s>"]
HISTORY = [("What happens?", "A red circle moves left."), ("Is it red?", "yes")]


@pytest.fixture
def session(panda: Panda, clip: Path) -> VideoSession:
    return panda.open(clip)


def pixels(panda: Panda, session: VideoSession, num_frames: int = 8) -> torch.Tensor:
    config = panda.model.config
    return preprocess(
        session.frames.pixels,
        image_size=config.image_size,
        patch_size=config.patch_size,
        num_frames=num_frames,
    )


@pytest.fixture(scope="module")
def reference(checkpoint: Path) -> VideoPandaForConditionalGeneration:
    """The same model as a class of transformers."""
    model: VideoPandaForConditionalGeneration
    model = VideoPandaForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32)
    return model


def full_answer(
    reference: VideoPandaForConditionalGeneration,
    panda: Panda,
    session: VideoSession,
    question: str,
    history: list[tuple[str, str]],
    max_tokens: int,
) -> str:
    """The answer of transformers to a prompt that is prefilled whole."""
    ids = encode_prompt([*history, (question, None)], panda.tokenizer)
    generated = reference.generate(
        torch.tensor([ids]),
        pixel_values=pixels(panda, session)[None],
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        max_new_tokens=max_tokens,
        do_sample=False,
        pad_token_id=0,
    )
    return panda.tokenizer.decode(generated[0, len(ids) :].tolist())


def watch_passes(panda: Panda, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens of text each pass through the Llama reads, from now on."""
    read: list[int] = []
    forward = panda.model.model.forward

    def watched(*args: Any, **kwargs: Any) -> object:
        read.append(args[0].shape[1])
        return forward(*args, **kwargs)

    monkeypatch.setattr(panda.model.model, "forward", watched)
    return read


def test_answers_on_a_shared_prefix_equal_those_of_a_full_prefill(
    reference: VideoPandaForConditionalGeneration, panda: Panda, session: VideoSession
) -> None:
    for history in ([], HISTORY, HISTORY[:1]):
        for question in QUESTIONS:
            answer = session.ask(question, history=history, max_tokens=6)
            assert answer.text == full_answer(reference, panda, session, question, history, 6)


def test_the_questions_above_have_different_answers(session: VideoSession) -> None:
    """Or the test above would prove nothing."""
    answers = {session.ask(question, max_tokens=6).text for question in QUESTIONS}
    followed = {session.ask(question, history=HISTORY, max_tokens=6).text for question in QUESTIONS}
    assert len(answers | followed) == 8


def test_frames_are_encoded_once_for_all_questions(
    session: VideoSession, panda: Panda, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    look = panda.model.model.encode_frames

    def watched(pixel_values: torch.Tensor) -> object:
        looks.append(1)
        return look(pixel_values)

    monkeypatch.setattr(panda.model.model, "encode_frames", watched)
    for question in QUESTIONS:
        session.ask(question, max_tokens=2)
    assert len(looks) == 1


def test_a_question_prefills_only_its_own_tokens(
    session: VideoSession, panda: Panda, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.ask("What happens?", max_tokens=3)
    read = watch_passes(panda, monkeypatch)
    answer = session.ask("Is there a circle?", max_tokens=3)
    assert read == [answer.stats.question_tokens, 1, 1]


def test_a_follow_up_prefills_only_its_own_tokens(
    session: VideoSession, panda: Panda, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.ask("What happens?", history=HISTORY, max_tokens=3)
    read = watch_passes(panda, monkeypatch)
    session.ask("Is there a circle?", history=HISTORY, max_tokens=1)
    own = panda.tokenizer.encode("USER: Is there a circle? ASSISTANT:", after_control=True)
    assert read == [len(own)]


def test_a_repeated_question_gets_the_same_answer(session: VideoSession) -> None:
    first = session.ask("What happens?", max_tokens=12).text
    session.ask("Is there a circle?", history=HISTORY, max_tokens=12)
    assert session.ask("What happens?", max_tokens=12).text == first


def test_session_is_usable_after_a_stream_is_closed(session: VideoSession) -> None:
    expected = session.ask("What happens?", max_tokens=12).text
    with session.stream("Is there a circle?", max_tokens=12) as stream:
        next(stream)
    assert list(stream) == []
    with pytest.raises(RuntimeError, match="read to the end"):
        _ = stream.answer
    assert session.ask("What happens?", max_tokens=12).text == expected


def test_session_is_usable_after_an_interrupted_forward_pass(
    session: VideoSession, panda: Panda, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = session.ask("What happens?", max_tokens=12).text
    stream = session.stream("What happens?", history=HISTORY, max_tokens=12)
    next(stream)
    with monkeypatch.context() as patched:

        def interrupt(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        patched.setattr(panda.model.model.layers[1], "forward", interrupt)
        with pytest.raises(KeyboardInterrupt):
            list(stream)
    assert session.ask("What happens?", max_tokens=12).text == expected


def test_session_is_usable_after_an_interrupted_prefill(
    session: VideoSession, panda: Panda, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:

        def interrupt(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        patched.setattr(panda.model.model.layers[1], "forward", interrupt)
        with pytest.raises(KeyboardInterrupt):
            session.ask("What happens?")
    assert session.ask("What happens?", max_tokens=4).text


def test_a_superseded_stream_raises(session: VideoSession) -> None:
    older = session.stream("What happens?", max_tokens=12)
    newer = session.stream("Is there a circle?", max_tokens=12)
    next(older)
    next(newer)
    with pytest.raises(RuntimeError, match="newer question"):
        list(older)
    list(newer)
    assert newer.answer.text == session.ask("Is there a circle?", max_tokens=12).text


def test_decoding_stops_at_max_tokens(session: VideoSession) -> None:
    answer = session.ask("What happens?", max_tokens=5)
    assert (answer.finish_reason, answer.stats.answer_tokens) == ("length", 5)


def test_decoding_stops_at_the_end_token(
    session: VideoSession, panda: Panda, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = session.ask("What happens?", max_tokens=5)
    head = panda.model.lm_head.forward
    given = iter(range(100))

    def end_after_five(hidden: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = head(hidden)
        if next(given) == 5:
            logits[..., panda.tokenizer.eos_id] = 1e9
        return logits

    monkeypatch.setattr(panda.model.lm_head, "forward", end_after_five)
    answer = session.ask("What happens?")
    assert answer.text == expected.text
    assert (answer.finish_reason, answer.stats.answer_tokens) == ("stop", 6)


def test_a_question_longer_than_the_context_is_refused_at_once(
    session: VideoSession,
) -> None:
    with pytest.raises(UsageError, match="the model can hold 512"):
        session.stream("circle " * 600)


def test_a_clip_longer_than_the_context_is_refused_at_once(
    panda: Panda, make_clip: Callable[..., Path]
) -> None:
    clip = make_clip("long.mp4", seconds=45)
    with pytest.raises(
        UsageError, match=r"40 frames of this clip take \d{3} tokens: the model can"
    ):
        panda.open(clip, num_frames=40)


def test_an_answer_stops_at_the_end_of_the_context(session: VideoSession) -> None:
    answer = session.ask("circle " * 25, max_tokens=1024)
    stats = answer.stats
    assert answer.finish_reason == "length"
    assert stats.prefix_tokens + stats.question_tokens + stats.answer_tokens == 512


@pytest.mark.parametrize(
    "options",
    [
        {"max_tokens": 0},
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"seed": -1},
        {"seed": 2**63},
        {"stop": ("",)},
        {"stop": "word"},
    ],
)
def test_options_out_of_range_are_refused(session: VideoSession, options: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        session.stream("What happens?", **options)  # type: ignore[arg-type]


def test_a_seed_repeats_a_sampled_answer(session: VideoSession) -> None:
    sampled = [
        session.ask("What happens?", temperature=1.0, seed=seed, max_tokens=12).text
        for seed in (1, 1, 2)
    ]
    assert sampled[0] == sampled[1] != sampled[2]


def test_sampled_answers_differ_without_a_seed(session: VideoSession) -> None:
    sampled = {session.ask("What?", temperature=2.0, max_tokens=12).text for _ in range(3)}
    assert len(sampled) > 1


def test_the_system_prompt_changes_prefix_and_answer(panda: Panda, clip: Path) -> None:
    usual, brief = panda.open(clip), panda.open(clip, system="Be brief.")
    assert brief.prefix_tokens < usual.prefix_tokens
    assert brief.ask("What?", max_tokens=12).text != usual.ask("What?", max_tokens=12).text


def test_stats_add_up(session: VideoSession, panda: Panda) -> None:
    first = session.ask("What happens?", max_tokens=12).stats
    again = session.ask("What happens?", max_tokens=12).stats
    assert first.frames == 8
    assert first.question_tokens == again.question_tokens > 0
    assert first.load_seconds == panda.load_seconds
    assert first.frames_seconds == again.frames_seconds > 0
    assert first.first_token_seconds >= first.prefill_seconds > 0
    assert first.tokens_per_second == pytest.approx(11 / first.decode_seconds)
    assert first.peak_memory_bytes > 50e6


def test_decode_seconds_exclude_the_time_of_the_consumer(
    session: VideoSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]  # a clock that stands still while the model works
    monkeypatch.setattr(continuous_batching, "perf_counter", lambda: now[0])
    stream = session.stream("What happens?", max_tokens=8)
    for _ in stream:
        now[0] += 100
    assert now[0] > 100
    assert stream.answer.stats.decode_seconds == 0


@pytest.mark.parametrize(("width", "height"), [(64, 48), (48, 64), (64, 64), (160, 40)])
def test_tokens_are_counted_without_encoding_the_frames(
    panda: Panda, make_clip: Callable[..., Path], width: int, height: int
) -> None:
    clip = make_clip(f"{width}x{height}.mp4", seconds=1, width=width, height=height)
    session = panda.open(clip)
    frames = pixels(panda, session)
    assert session.frames.pixels.shape[0] < 8, "some frames should be padding"
    with torch.inference_mode():
        (encoded,) = panda.model.model.encode_frames(frames[None])
    assert count_tokens(frames, 14) == sum(map(len, encoded))


def test_a_single_frame_is_encoded_as_an_image(panda: Panda, clip: Path) -> None:
    answer = panda.ask(clip, "What happens?", num_frames=1, max_tokens=4)
    assert answer.stats.frames == 1
    assert answer.text


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: no memory")],
)
def test_running_out_of_memory_is_a_device_error(
    session: VideoSession, panda: Panda, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(panda.model.model, "forward", fail)
    with pytest.raises(DeviceError, match="out of memory"):
        session.ask("What happens?")


@pytest.mark.parametrize("length", [1, 2, 5])
def test_a_stream_ends_before_a_stop_string(session: VideoSession, length: int) -> None:
    whole = session.ask("What happens?", max_tokens=12).text
    stop = whole[len(whole) // 2 :][:length]
    stream = session.stream("What happens?", max_tokens=12, stop=(stop,))
    assert "".join(stream) == stream.answer.text == whole[: whole.index(stop)].rstrip()
    assert stream.answer.finish_reason == "stop"
