"""A small Video-Panda on disk whose Llama is wide enough for the quantised types of llama.cpp."""

from pathlib import Path
from typing import Any

from pandacli.modeling import VideoPandaConfig, VideoPandaForConditionalGeneration
from tests.parity_weights import fill

SIZES: dict[str, Any] = {
    "image_size": 56,
    "patch_size": 7,
    "video_hidden_size": 24,
    "video_num_heads": 4,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 400,
    "max_position_embeddings": 2048,
}


def save_small_llama(folder: Path, **sizes: Any) -> VideoPandaForConditionalGeneration:
    """Write a checkpoint folder with weights like those of the parity vectors."""
    model = VideoPandaForConditionalGeneration(VideoPandaConfig(**SIZES | sizes)).eval()
    fill(model, "")
    model.save_pretrained(folder)
    return model
