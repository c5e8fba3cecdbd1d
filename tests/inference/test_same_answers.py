"""A greedy answer is the same wherever its prefix comes from, in every form of a model.

The model is random, so its logits lie close together, and rounding that would hardly affect a
trained model changes its answers. Where a single question is computed, all logits must be equal.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from pandacli import Panda
from pandacli.chat.conversation import Conversation
from pandacli.inference import Answer, GenerationOptions, Request
from pandacli.inference.session import VideoSession
from pandacli.inference.windows import WindowBatch
from pandacli.modeling import VideoPandaConfig, VideoPandaForConditionalGeneration
from pandacli.prefix_cache.clip_cache import ClipCache
from pandacli.video import Clip, sample_frames

QUESTIONS = [
    "what?",
    "Is there a circle, and what colour is the square that stays still while it moves left?",
    "which colour is it?",
    "What happens? " * 12,
]
TOKENS = 12
OPTIONS = GenerationOptions(TOKENS)


def _form(quant: str, engine: str, *, slow: bool = False) -> Any:
    marks = [pytest.mark.slow] if slow else []
    if engine == "llama" and not find_spec("xllamacpp"):
        marks.append(pytest.mark.skip(reason="no llama.cpp"))
    return pytest.param((quant, engine), marks=marks, id=f"{quant}-{engine}")


FORMS = [
    _form("none", "torch"),
    _form("8bit", "torch"),
    _form("8bit", "bitsandbytes", slow=True),
    _form("8bit", "llama"),
    _form("4bit", "torch", slow=True),
    _form("4bit", "bitsandbytes", slow=True),
    _form("4bit", "llama", slow=True),
]

Ids = list[tuple[int, ...]]


@pytest.fixture(scope="module")
def sensitive(tmp_path_factory: pytest.TempPathFactory, tokenizer_model: bytes) -> Path:
    """A random model, as wide as the quantised types of llama.cpp need, that never ends."""
    config = VideoPandaConfig(
        image_size=112,
        patch_size=14,
        video_hidden_size=32,
        video_num_heads=4,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=400,
        max_position_embeddings=1024,
        initializer_range=0.15,
    )
    torch.manual_seed(11)
    folder = tmp_path_factory.mktemp("models") / "sensitive"
    model = VideoPandaForConditionalGeneration(config)
    with torch.no_grad():
        model.lm_head.weight[config.eos_token_id] = 0.0
    model.save_pretrained(folder)
    (folder / "tokenizer.model").write_bytes(tokenizer_model)
    return folder


@pytest.fixture(scope="module", params=FORMS)
def loaded(request: pytest.FixtureRequest, sensitive: Path) -> Panda:
    """The model in one of its forms."""
    quant, engine = request.param
    return Panda.load(sensitive, device="cpu", quant=quant, engine=engine)


@pytest.fixture(scope="module")
def uncached(loaded: Panda, clip: Path) -> Ids:
    """What the model answers where nothing is kept, each question on a clip opened for it."""
    ids = [answered(loaded.open(clip), [question])[0] for question in QUESTIONS]
    assert len(set(ids)) == len(ids), "answers must depend on the question"
    return ids


@pytest.fixture
def open_cached(loaded: Panda, clip: Path, tmp_path: Path) -> Callable[[], VideoSession]:
    """Opens the clip, with its prefix from a folder if it was kept there."""

    def open_one() -> VideoSession:
        return loaded.open(clip, cache=ClipCache(Clip(clip), 8, folder=tmp_path / "kept"))

    return open_one


def answered(opened: VideoSession, questions: list[str]) -> Ids:
    return [opened.ask(question, max_tokens=TOKENS).ids for question in questions]


def first_logits(opened: VideoSession) -> torch.Tensor:
    """Of the first token of an answer."""
    prefix = opened.shared_prefix()[0]
    return prefix.append(opened._encode(QUESTIONS[1], ()))


def test_logits_are_identical_uncached_cold_warm_and_restored(
    loaded: Panda, clip: Path, open_cached: Callable[[], VideoSession]
) -> None:
    expected = first_logits(loaded.open(clip))
    cold = open_cached()
    assert torch.equal(first_logits(cold), expected)
    answered(cold, QUESTIONS)
    assert torch.equal(first_logits(cold), expected), "warm"
    cold.keep()
    assert torch.equal(first_logits(cold), expected), "after it was kept"
    found = open_cached()
    assert torch.equal(first_logits(found), expected)
    assert found._prefix is not None
    assert found._prefix.prefilled < found.prefix_tokens, "it came from the disk"


def test_answers_are_identical_cold_warm_and_restored(
    uncached: Ids, open_cached: Callable[[], VideoSession]
) -> None:
    cold = open_cached()
    assert answered(cold, QUESTIONS) == uncached
    assert answered(cold, QUESTIONS[::-1]) == uncached[::-1]
    cold.keep()
    assert answered(open_cached(), QUESTIONS) == uncached


def test_the_first_turn_of_a_chat_equals_a_single_question(
    uncached: Ids, open_cached: Callable[[], VideoSession]
) -> None:
    opened = open_cached()
    for question, expected in zip(QUESTIONS, uncached, strict=True):
        conversation = Conversation(opened)
        for said in (question, "And then?"):
            list(conversation.ask(said, GenerationOptions(max_tokens=TOKENS)))
        assert conversation.turns[0].ids == expected
        opened.keep()
        opened = open_cached()


def test_a_batch_of_one_equals_a_single_question(
    uncached: Ids, open_cached: Callable[[], VideoSession]
) -> None:
    opened = open_cached()
    for question, expected in zip(QUESTIONS, uncached, strict=True):
        ((_, answer),) = opened.generate([Request(question)], OPTIONS).results()
        assert isinstance(answer, Answer)
        assert answer.ids == expected
        opened.keep()
        opened = open_cached()


def test_a_batch_of_many_equals_single_questions_with_torch(
    loaded: Panda, uncached: Ids, open_cached: Callable[[], VideoSession]
) -> None:
    if loaded.engine != "torch":
        pytest.skip("rounding depends on what is read at once: near-ties may differ")
    answers = dict(open_cached().generate(map(Request, QUESTIONS), OPTIONS).results())
    assert [answers[n].ids for n in range(len(QUESTIONS))] == uncached  # type: ignore[union-attr]


def test_windows_together_equal_single_questions(loaded: Panda, clip: Path) -> None:
    if loaded.engine != "torch":
        pytest.skip("rounding depends on what is read at once: near-ties may differ")
    frames = [sample_frames(Clip(clip, start, start + 3), 8) for start in (0, 2, 4)]
    expected = [answered(loaded.open(each), QUESTIONS[:1]) for each in frames]
    found = WindowBatch(loaded, frames).ask(QUESTIONS[:1], OPTIONS)
    assert [[answer.ids] for (answer,) in found] == expected  # type: ignore[union-attr]
    assert len({ids for (ids,) in expected}) == 3, "answers must depend on the frames"


@pytest.mark.slow
def test_another_process_restores_the_same_answers(
    loaded: Panda,
    sensitive: Path,
    clip: Path,
    uncached: Ids,
    open_cached: Callable[[], VideoSession],
    tmp_path: Path,
) -> None:
    cold = open_cached()
    cold.prepare()
    cold.keep()
    script = """
import json, sys
from pathlib import Path
from pandacli import Panda
from pandacli.prefix_cache.clip_cache import ClipCache
from pandacli.video import Clip, sample_frames
folder, quant, engine, clip, kept, tokens, *questions = sys.argv[1:]
panda = Panda.load(folder, device="cpu", quant=quant, engine=engine)
opened = panda.open(clip, cache=ClipCache(Clip(Path(clip)), 8, folder=Path(kept)))
answers = [opened.ask(question, max_tokens=int(tokens)) for question in questions]
read = answers[0].stats.prefilled_tokens == answers[0].stats.question_tokens
print(json.dumps([read, [answer.ids for answer in answers]]))
"""
    arguments = [sensitive, loaded.quant, loaded.engine, clip, tmp_path / "kept", TOKENS]
    command = [sys.executable, "-c", script, *map(str, arguments), *QUESTIONS]
    read, ids = json.loads(subprocess.check_output(command))
    assert read, "from the disk"
    assert [tuple(answer) for answer in ids] == uncached
