"""Writes checkpoint folders as the authors of Video-Panda publish them, with random weights."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from pandacli.model import VideoPandaConfig, VideoPandaForConditionalGeneration
from tests.parity_weights import tensor_for

SMALL = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "video_hidden_size": 32,
    "mm_hidden_size": 32,
}
"""Sizes of a model of which only the shapes matter."""


def config_of(**sizes: Any) -> dict[str, Any]:
    """An official `config.json`, with what it says about the machine it was trained on."""
    return {
        "_name_or_path": "checkpoints/EVE-7B-HD-v1.0",
        "architectures": ["VideoPandaLlamaForCausalLM"],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "freeze_mm_mlp_adapter": False,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "max_position_embeddings": 4096,
        "mm_hidden_size": 1024,
        "mm_projector_type": "mlp2x_gelu",
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "mm_video_tower": "lmms/LB-video",
        "mm_vision_tower": "lmms/LB-video",
        "model_type": "videopanda",
        "pad_token_id": 0,
        "pretraining_tp": 1,
        "requires_image_distill": False,
        "requires_video_distill": True,
        "rms_norm_eps": 1e-05,
        "rope_scaling": None,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "transformers_version": "4.31.0",
        "use_cache": False,
        "video_hidden_size": 1024,
        "video_tower_teacher": "LanguageBind/LanguageBind_Video_FT",
        **sizes,
    }


def tensors_of(config: dict[str, Any], teacher_megabytes: float = 0.1) -> dict[str, Tensor]:
    """Every tensor of an official checkpoint; aliases share their storage."""
    with torch.device("meta"):
        model = VideoPandaForConditionalGeneration(VideoPandaConfig.from_dict(dict(config)))
    tensors = {
        name: tensor_for(name, tuple(wanted.shape)) for name, wanted in model.state_dict().items()
    }
    for name in list(tensors):
        if ".lmhra1." in name:
            tensors[name.replace(".lmhra1.", ".lmhra2.")] = torch.full_like(tensors[name], 3)
    for name in list(tensors):
        alias = name.replace(".video_tower.", ".vision_tower.")
        tensors[alias.replace(".video_projector.", ".mm_projector.")] = tensors[name]
    for layer in range(config["num_hidden_layers"]):
        tensors[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    teacher = torch.ones(int(teacher_megabytes * 2**18))
    for name in (
        "model.video_teacher.encoder.layers.0.weight",
        "model.image_teacher.encoder.layers.0.weight",
        "model.video_tower_compressor.norm_layer.0.0.weight",
        "model.video_tower_compressor.teacher_layer.encoder.weight",
        "model.vision_tower_compressor.input_layer.weight",
    ):
        tensors[name] = teacher
    return tensors


def write_config(folder: Path, config: dict[str, Any]) -> None:
    """Write `config.json`, and a `generation_config.json` like Vicuna's."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    generation = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    (folder / "generation_config.json").write_text(
        json.dumps(
            generation | {"temperature": 0.9, "top_p": 0.6, "transformers_version": "4.31.0"}
        )
    )


def write_bin_shards(folder: Path, tensors: dict[str, Tensor], shards: int = 2) -> None:
    """Write `pytorch_model-0000x-of-0000N.bin` and their index."""
    places = {}
    for shard in range(shards):
        names = list(tensors)[shard::shards]
        file = f"pytorch_model-{shard + 1:05}-of-{shards:05}.bin"
        torch.save({name: tensors[name] for name in names}, folder / file)
        places |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": 0}, "weight_map": places}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def write_safetensors(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Write `model.safetensors`, which keeps one name of tensors that share their storage."""
    kept = {tensor.data_ptr(): name for name, tensor in tensors.items()}
    save_file({name: tensors[name] for name in kept.values()}, folder / "model.safetensors")
