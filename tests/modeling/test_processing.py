"""The processor: inputs from questions and frames, and refusals."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sentencepiece import SentencePieceProcessor
from transformers import AutoProcessor

from benchmarks.official_layout import config_of, write_config
from pandacli.errors import ModelError
from pandacli.modeling import VideoPandaProcessor, VideoPandaTokenizer, encode_prompt
from pandacli.video import preprocess
from tests.modeling.official_layout import SMALL


@pytest.fixture
def small(processor: SentencePieceProcessor) -> VideoPandaProcessor:
    """A processor for a canvas of 112 px."""
    return VideoPandaProcessor(VideoPandaTokenizer(processor), image_size=112, patch_size=7)


def frames(count: int = 8, height: int = 90, width: int = 160) -> NDArray[np.uint8]:
    rng = np.random.default_rng(count * height)
    return rng.integers(0, 256, (count, height, width, 3), np.uint8)


def test_question_and_clip_give_model_input(small: VideoPandaProcessor) -> None:
    inputs = small(text="what?", videos=frames())
    assert inputs["input_ids"].tolist() == [encode_prompt([("what?", None)], small.tokenizer)]
    assert inputs["attention_mask"].tolist() == [[1] * inputs["input_ids"].shape[1]]
    wanted = preprocess(frames(), image_size=112, patch_size=7)
    assert inputs["pixel_values"].equal(wanted.unsqueeze(0))
    assert set(inputs) == set(small.model_input_names)


def test_frames_may_be_a_tensor(small: VideoPandaProcessor) -> None:
    inputs = small(text="what?", videos=torch.from_numpy(frames()))
    assert inputs["pixel_values"].equal(small(text="what?", videos=frames())["pixel_values"])


def test_pixel_values_are_passed_through(small: VideoPandaProcessor) -> None:
    pixels = preprocess(frames(3), image_size=112, patch_size=7)
    for given in (pixels, pixels.unsqueeze(0)):
        inputs = small(text="what?", pixel_values=given)
        assert inputs["pixel_values"].equal(pixels.unsqueeze(0))


def test_videos_without_text_give_pixel_values(small: VideoPandaProcessor) -> None:
    inputs = small(videos=[frames(2), frames(8, 50, 50)])
    assert list(inputs) == ["pixel_values"]
    assert inputs["pixel_values"].shape == (2, 8, 4, 112, 112)


def test_single_image_uses_image_branch(small: VideoPandaProcessor) -> None:
    inputs = small(text="what?", videos=frames(1), num_frames=1)
    assert inputs["pixel_values"].shape == (1, 1, 4, 112, 112)
    assert (inputs["input_ids"] == -200).sum() == 1


def test_conversation_is_accepted_as_text(small: VideoPandaProcessor) -> None:
    turns = [("what?", "a panda"), ("why?", None)]
    inputs = small(text=[turns], videos=frames(), system="Be brief.")
    wanted = encode_prompt(turns, small.tokenizer, "Be brief.")
    assert inputs["input_ids"].tolist() == [wanted]


@pytest.mark.parametrize("side", ["left", "right"])
def test_shorter_prompts_are_padded(small: VideoPandaProcessor, side: str) -> None:
    questions = ["why?", "what does the panda do there, and why?"]
    inputs = small(text=questions, videos=[frames(), frames(4)], padding_side=side)
    for row, question in enumerate(questions):
        mask = inputs["attention_mask"][row].bool()
        wanted = encode_prompt([(question, None)], small.tokenizer)
        assert inputs["input_ids"][row][mask].tolist() == wanted
    short = inputs["attention_mask"][0].tolist()
    assert short == sorted(short, reverse=side == "right")
    assert 0 in short


def test_generated_ids_are_decoded(small: VideoPandaProcessor) -> None:
    hello = small.tokenizer.encode("hello there")
    assert small.decode([-200, *hello, 2], skip_special_tokens=True) == "hello there"
    assert small.batch_decode(torch.tensor([[*hello, 2], [*hello, 0]])) == ["hello there"] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": "q"}, "videos or pixel_values"),
        ({"text": "q", "videos": frames(), "pixel_values": torch.zeros(1)}, "not both"),
        ({"text": ["q", "r"], "videos": frames()}, "2 questions for 1 videos"),
        ({"text": "q", "videos": [frames(), frames()]}, "1 questions for 2 videos"),
        ({"text": "q", "videos": frames(9)}, "8 frames"),
        ({"text": "q", "videos": frames().astype(np.float32)}, "uint8"),
        ({"text": "q", "videos": frames(), "padding_side": "top"}, "'top'"),
        ({"text": "q", "videos": frames(), "return_tensors": "np"}, "'np'"),
    ],
)
def test_inconsistent_arguments_are_refused(
    small: VideoPandaProcessor, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        small(**arguments)


def test_save_and_load_round_trip(small: VideoPandaProcessor, tmp_path: Path) -> None:
    small.tokenizer.legacy = True
    small.num_frames = 16
    small.save_pretrained(tmp_path)
    for loaded in (
        VideoPandaProcessor.from_pretrained(tmp_path),
        AutoProcessor.from_pretrained(tmp_path),
        AutoProcessor.from_pretrained(tmp_path.parent, subfolder=tmp_path.name),
    ):
        assert isinstance(loaded, VideoPandaProcessor)
        assert loaded.to_dict() == small.to_dict()
        assert loaded.tokenizer.legacy is True
        assert loaded.tokenizer.encode("hello") == small.tokenizer.encode("hello")


def test_official_folder_gives_processor(sentencepiece_file: Path, tmp_path: Path) -> None:
    write_config(tmp_path, config_of(**SMALL))
    (tmp_path / "tokenizer.model").write_bytes(sentencepiece_file.read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"legacy": False, "tokenizer_class": "LlamaTokenizer"})
    )
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert isinstance(loaded, VideoPandaProcessor)
    assert (loaded.image_size, loaded.patch_size, loaded.num_frames) == (448, 14, 8)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nowhere"):
        VideoPandaProcessor.from_pretrained(tmp_path / "nowhere")


@pytest.mark.parametrize("content", ["{", '{"image_size": "wide"}', '{"image_size": 0}'])
def test_damaged_folder_is_explained(
    small: VideoPandaProcessor, tmp_path: Path, content: str
) -> None:
    small.save_pretrained(tmp_path)
    (tmp_path / "processor_config.json").write_text(content)
    with pytest.raises(ModelError, match=r"processor_config\.json"):
        VideoPandaProcessor.from_pretrained(tmp_path)
