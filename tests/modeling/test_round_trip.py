"""Video-Panda within transformers: saving, Auto classes, batched generation."""

from pathlib import Path

import pytest
import torch
from sentencepiece import SentencePieceProcessor
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from pandacli.modeling import (
    VideoPandaConfig,
    VideoPandaForConditionalGeneration,
    VideoPandaProcessor,
    VideoPandaTokenizer,
)
from tests.parity_weights import fill

BOXES = {"wide": (14, 42, 0, 56), "tall": (0, 56, 14, 42), "square": (0, 56, 0, 56)}


@pytest.fixture(scope="module")
def model() -> VideoPandaForConditionalGeneration:
    config = VideoPandaConfig(
        image_size=56,
        patch_size=7,
        video_hidden_size=24,
        video_num_heads=4,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=32000,
    )
    return fill(VideoPandaForConditionalGeneration(config).eval(), "")


@pytest.fixture(scope="module")
def prepare(processor: SentencePieceProcessor) -> VideoPandaProcessor:
    return VideoPandaProcessor(VideoPandaTokenizer(processor), image_size=56, patch_size=7)


def video(shape: str, real: int = 8, frames: int = 8, seed: int = 0) -> Tensor:
    """(frames, 4, 56, 56): noise, the content in a box, frames from `real` on padded."""
    values = torch.zeros(frames, 4, 56, 56)
    values[:, :3] = torch.randn(frames, 3, 56, 56, generator=torch.Generator().manual_seed(seed))
    top, bottom, left, right = BOXES[shape]
    values[:, 3, top:bottom, left:right] = 1
    values[real:] = 0
    return values


def answers(
    model: VideoPandaForConditionalGeneration,
    prepare: VideoPandaProcessor,
    questions: list[str],
    videos: list[Tensor],
    side: str = "left",
) -> list[list[int]]:
    inputs = prepare(text=questions, pixel_values=torch.stack(videos), padding_side=side)
    generated = model.generate(**inputs, max_new_tokens=12, min_new_tokens=12, do_sample=False)
    rows: list[list[int]] = generated[:, inputs["input_ids"].shape[1] :].tolist()
    return rows


def test_saved_model_loads_through_auto_classes(
    model: VideoPandaForConditionalGeneration, prepare: VideoPandaProcessor, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    prepare.save_pretrained(tmp_path)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert isinstance(loaded, VideoPandaForConditionalGeneration)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), VideoPandaConfig)
    assert loaded.config.image_size == 56
    assert not loaded.training
    inputs = AutoProcessor.from_pretrained(tmp_path)(text="what?", pixel_values=video("wide"))
    with torch.no_grad():
        assert loaded(**inputs).logits.equal(model(**inputs).logits)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtype_survives_saving(
    model: VideoPandaForConditionalGeneration, tmp_path: Path, dtype: torch.dtype
) -> None:
    model.save_pretrained(tmp_path / "full")
    half = VideoPandaForConditionalGeneration.from_pretrained(tmp_path / "full", dtype=dtype)
    half.save_pretrained(tmp_path / "half")
    loaded = VideoPandaForConditionalGeneration.from_pretrained(tmp_path / "half")
    assert {value.dtype for value in loaded.state_dict().values()} == {dtype, torch.int64}
    for name, value in loaded.state_dict().items():
        assert value.equal(half.state_dict()[name]), name


def test_sharded_save_loads_like_single_file(
    model: VideoPandaForConditionalGeneration, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path, max_shard_size="200KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    loaded = VideoPandaForConditionalGeneration.from_pretrained(tmp_path)
    for name, value in model.state_dict().items():
        assert loaded.state_dict()[name].equal(value), name


@pytest.mark.parametrize("side", ["left", "right"])
def test_batch_generates_like_single_prompts(
    model: VideoPandaForConditionalGeneration, prepare: VideoPandaProcessor, side: str
) -> None:
    questions = ["what?", "what does the panda do over there?", "why is that so?", "hm"]
    videos = [
        video("wide", seed=1),
        video("tall", seed=2),
        video("square", real=3, seed=3),
        video("wide", real=1, seed=4),
    ]
    together = answers(model, prepare, questions, videos, side)
    apart = [answers(model, prepare, [q], [v])[0] for q, v in zip(questions, videos, strict=True)]
    assert together == apart
    assert len({tuple(row) for row in together}) == len(together)


@pytest.mark.parametrize("frames", [1, 4, 12])
def test_other_frame_counts_generate(
    model: VideoPandaForConditionalGeneration, prepare: VideoPandaProcessor, frames: int
) -> None:
    (answer,) = answers(model, prepare, ["what?"], [video("wide", frames, frames)])
    assert len(answer) == 12


def test_generate_follows_logits(
    model: VideoPandaForConditionalGeneration, prepare: VideoPandaProcessor
) -> None:
    inputs = prepare(text="what?", pixel_values=video("tall"))
    (answer,) = answers(model, prepare, ["what?"], [video("tall")])
    for token in answer[:4]:
        with torch.no_grad():
            assert model(**inputs).logits[0, -1].argmax() == token
        inputs["input_ids"] = torch.cat((inputs["input_ids"], torch.tensor([[token]])), 1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])


def test_num_return_sequences_gives_several_answers(
    model: VideoPandaForConditionalGeneration, prepare: VideoPandaProcessor
) -> None:
    inputs = prepare(text="what?", pixel_values=video("wide"))
    torch.manual_seed(0)
    drawn = model.generate(
        **inputs,
        max_new_tokens=4,
        min_new_tokens=4,
        do_sample=True,
        num_return_sequences=3,
        return_dict_in_generate=True,
    )
    assert drawn.sequences.shape == (3, inputs["input_ids"].shape[1] + 4)


def test_text_without_video_generates(model: VideoPandaForConditionalGeneration) -> None:
    ids = torch.tensor([[1, 50, 60]])
    assert model.generate(ids, max_new_tokens=3, do_sample=False).shape[1] > 3


def test_slot_count_must_equal_frame_count(
    model: VideoPandaForConditionalGeneration, prepare: VideoPandaProcessor
) -> None:
    ids = prepare(text="what?", pixel_values=video("wide"))["input_ids"]
    with pytest.raises(ValueError, match="no pixel_values"):
        model.generate(ids)
    with pytest.raises(ValueError, match="do not fit 1 videos of 4 frames"):
        model.generate(ids, pixel_values=video("wide", 4, 4).unsqueeze(0))
    with pytest.raises(ValueError, match="do not fit 2 videos of 8 frames"):
        model(input_ids=ids, pixel_values=torch.stack([video("wide")] * 2))


def test_loss_covers_labelled_text_only(
    model: VideoPandaForConditionalGeneration, prepare: VideoPandaProcessor
) -> None:
    inputs = prepare(text="what?", pixel_values=video("wide"))
    labels = torch.full_like(inputs["input_ids"], -100)
    labels[:, -2:] = inputs["input_ids"][:, -2:]
    with torch.no_grad():
        output = model(**inputs, labels=labels)
    wanted = torch.nn.functional.cross_entropy(output.logits[0, -3:-1], labels[0, -2:])
    torch.testing.assert_close(output.loss, wanted)
