"""A small Video-Panda with random weights, on disk as any other checkpoint, and clips for it."""

import io
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import sentencepiece
import torch

from pandacli import Panda
from pandacli.model.config import VideoPandaConfig
from pandacli.model.modeling import VideoPandaForConditionalGeneration

SENTENCES = [
    "A red circle moves left and a blue square stays still.",
    "The green triangle grows while the white star shrinks.",
    "What happens? What colour is it? Is there a circle?",
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions. USER:",
    "ASSISTANT: yes, no, one, two, three; left, right, up, down",
]


@pytest.fixture(scope="session")
def tokenizer_model() -> bytes:
    """A SentencePiece model of the Llama kind, with byte fallback."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 4),
        model_writer=model,
        vocab_size=400,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return model.getvalue()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, tokenizer_model: bytes) -> Path:
    """A checkpoint folder of a model small enough to ask thousands of times."""
    config = VideoPandaConfig(
        image_size=112,
        patch_size=14,
        video_hidden_size=32,
        video_num_heads=4,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        vocab_size=400,
        max_position_embeddings=512,
        initializer_range=0.2,  # wide enough for answers that vary with the question
    )
    torch.manual_seed(7)
    folder = tmp_path_factory.mktemp("models") / "random"
    model = VideoPandaForConditionalGeneration(config)
    with torch.no_grad():
        model.lm_head.weight[config.eos_token_id] = 0.0  # never the likeliest: answers do not end
    model.save_pretrained(folder)
    (folder / "tokenizer.model").write_bytes(tokenizer_model)
    return folder


@pytest.fixture(scope="session")
def panda(checkpoint: Path) -> Panda:
    """The small model, loaded on the CPU."""
    return Panda.load(checkpoint, device="cpu")


@pytest.fixture(scope="session")
def make_clip(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes clips of coloured noise that drifts."""
    folder = tmp_path_factory.mktemp("clips")

    def write(name: str, *, seconds: int = 9, width: int = 64, height: int = 48) -> Path:
        path = folder / name
        scene = np.random.default_rng(len(name)).integers(0, 256, (height, width, 3), np.uint8)
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mpeg4", rate=4)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for number in range(4 * seconds):
                picture = np.roll(scene, 3 * number, axis=1)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
        return path

    return write


@pytest.fixture(scope="session")
def clip(make_clip: Callable[..., Path]) -> Path:
    """A clip of nine seconds, 4:3."""
    return make_clip("drift.mp4")
