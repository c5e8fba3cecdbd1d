"""A checkpoint folder as the authors of Video-Panda publish it: names, shapes and small files.

The values are for the caller to choose; what is said here holds for a folder of any size.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pandacli.modeling import VideoPandaConfig, VideoPandaForConditionalGeneration

INDEX = "pytorch_model.bin.index.json"

_TEACHER = "model.video_teacher.encoder.layers.0.weight"
_COPIES_OF_THE_TEACHER = (
    "model.image_teacher.encoder.layers.0.weight",
    "model.video_tower_compressor.norm_layer.0.0.weight",
    "model.video_tower_compressor.teacher_layer.encoder.weight",
    "model.vision_tower_compressor.input_layer.weight",
)


@dataclass(frozen=True)
class Layout:
    """The tensors in the files of a checkpoint.

    Attributes:
        shapes: Of each tensor that has bytes of its own.
        aliases: Further names, each with the one in `shapes` whose bytes it shares.
    """

    shapes: dict[str, tuple[int, ...]]
    aliases: dict[str, str]


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


def layout_of(config: Mapping[str, Any], teacher_numbers: int) -> Layout:
    """The names of an official checkpoint: those that the model needs, aliases, and the rest.

    Args:
        config: What `config.json` holds.
        teacher_numbers: The numbers in a teacher's tensor, which inference never uses.
    """
    with torch.device("meta"):
        model = VideoPandaForConditionalGeneration(VideoPandaConfig.from_dict(dict(config)))
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    shapes |= {
        name.replace(".lmhra1.", ".lmhra2."): shape
        for name, shape in shapes.items()
        if ".lmhra1." in name
    }
    aliases = {}
    for name in shapes:
        alias = name.replace(".video_tower.", ".vision_tower.")
        alias = alias.replace(".video_projector.", ".mm_projector.")
        if alias != name:
            aliases[alias] = name
    for layer in range(config["num_hidden_layers"]):
        half_a_head = config["hidden_size"] // config["num_attention_heads"] // 2
        shapes[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = (half_a_head,)
    shapes[_TEACHER] = (teacher_numbers,)
    aliases |= dict.fromkeys(_COPIES_OF_THE_TEACHER, _TEACHER)
    return Layout(shapes, aliases)


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write `config.json`, and a `generation_config.json` like Vicuna's."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    generation = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    (folder / "generation_config.json").write_text(
        json.dumps(
            generation | {"temperature": 0.9, "top_p": 0.6, "transformers_version": "4.31.0"}
        )
    )


def shard_name(number: int, count: int) -> str:
    """The name of the shard `number`, from 1, of `count`."""
    return f"pytorch_model-{number:05}-of-{count:05}.bin"


def write_index(folder: Path, places: Mapping[str, str], total_bytes: int = 0) -> None:
    """Write the index of the shards: in which file each tensor is."""
    index = {"metadata": {"total_size": total_bytes}, "weight_map": places}
    (folder / INDEX).write_text(json.dumps(index))
