"""The configuration of Video-Panda: sizes of STAB and of the Llama, checked as untrusted input."""

import math
from collections.abc import Mapping
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import LlamaConfig
from transformers.activations import ACT2FN

from pandacli.modeling import weight_mapping
from pandacli.modeling.bitsandbytes_weights import quantization_fields

_BOUNDS: dict[str, tuple[int, int]] = {
    "hidden_size": (1, 1 << 16),
    "intermediate_size": (1, 1 << 18),
    "num_hidden_layers": (1, 512),
    "num_attention_heads": (1, 1024),
    "num_key_value_heads": (1, 1024),
    "head_dim": (2, 4096),
    "vocab_size": (4, 1 << 22),
    "max_position_embeddings": (16, 1 << 20),
    "image_size": (2, 2048),
    "patch_size": (1, 512),
    "video_hidden_size": (2, 1 << 14),
    "video_num_heads": (1, 1024),
    "num_frames": (1, 256),
    "all_num_frames": (1, 4096),
}
"""Bounds of each size in a `config.json`, far beyond those of published models."""

_MAX_PATCHES = 256
"""Along a side of the canvas; published models have 32."""

_NUMBERS = {
    "rms_norm_eps": (0.0, 1.0),
    "attention_dropout": (0.0, 1.0),
    "initializer_range": (0.0, 1.0),
    "rope_theta": (1.0, 1e12),
}
_DTYPES = ("float64", "float32", "float16", "bfloat16")
_TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
_ROPE_TYPES = ("default", "linear", "dynamic", "yarn", "llama3")
_ROPE_NUMBERS = {
    *("rope_theta", "factor", "original_max_position_embeddings", "attention_factor"),
    *("beta_fast", "beta_slow", "low_freq_factor", "high_freq_factor", "mscale", "mscale_all_dim"),
}
_OTHERS = {
    *("architectures", "attention_bias", "dtype", "hidden_act", "mlp_bias", "quantization_config"),
    *("rope_parameters", "rope_scaling", "tie_word_embeddings", "torch_dtype"),
    "transformers_version",
}
_FIELDS = frozenset((*_BOUNDS, *_NUMBERS, *_TOKEN_IDS, *_OTHERS))
"""The fields of a `config.json` that are read. Others are ignored: those that name code to run or
download (`auto_map`, `attn_implementation`), paths, and training switches such as `use_cache`."""


@strict
class VideoPandaConfig(LlamaConfig):
    """Sizes of a Video-Panda; the defaults are those of Video-Panda-7B (arXiv 2412.18609).

    The Llama fields (`hidden_size`, `num_hidden_layers`, ...) are at the top level, as in the
    published `config.json`.

    Args:
        image_size: Side of the square canvas, in pixels; a multiple of twice `patch_size`.
        patch_size: Side of a patch, in pixels; 2x2 patches make one token.
        video_hidden_size: Width of STAB, "C" in the paper.
        video_num_heads: Attention heads of GSTRA, LSD and FSRA.
        num_frames: Frames per chunk; STAB encodes chunks independently.
        all_num_frames: Frames sampled per clip.
    """

    model_type = "videopanda"

    image_size: int = 448
    patch_size: int = 14
    video_hidden_size: int = 1024
    video_num_heads: int = 8
    num_frames: int = 4
    all_num_frames: int = 8

    max_position_embeddings: int = 4096
    rms_norm_eps: float = 1e-5
    pad_token_id: int | None = 0

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Build a configuration from a `config.json` of the official layout or of ours.

        The fields are untrusted input; unknown ones are ignored.

        Returns:
            The configuration; with `return_unused_kwargs=True` also the kwargs that are no fields.

        Raises:
            ValueError: A field is out of bounds, or sizes contradict each other.
        """
        if weight_mapping.is_official(config_dict):
            config_dict = weight_mapping.config_fields(config_dict)
        fields = {name: value for name, value in config_dict.items() if name in _FIELDS}
        _check_fields(fields)
        built = super().from_dict(fields, **kwargs)
        _check_sizes(built[0] if isinstance(built, tuple) else built)
        return built

    def validate_video_sizes(self) -> None:
        """Refuse sizes that STAB cannot have."""
        if self.patch_size < 1 or self.image_size < 1 or self.image_size % (2 * self.patch_size):
            raise ValueError(
                f"image_size {self.image_size} is not a multiple of"
                f" twice the patch_size {self.patch_size}"
            )
        if self.video_hidden_size % self.video_num_heads:
            raise ValueError(
                f"video_hidden_size {self.video_hidden_size} is not a multiple of"
                f" video_num_heads {self.video_num_heads}"
            )


def check_token_ids(fields: Mapping[str, Any], vocabulary: int) -> None:
    """Refuse ids of control tokens outside the vocabulary; -1 stands for none.

    Raises:
        ValueError: An id is no whole number, or out of range.
    """
    for name in _TOKEN_IDS:
        value = fields.get(name)
        ids = value if isinstance(value, list) and name == "eos_token_id" else [value]
        for number in ids:
            if number is not None and not (_is_int(number) and -1 <= number < vocabulary):
                raise ValueError(
                    f"{name} {_short(number)} is not in the vocabulary of {vocabulary}"
                )


def _check_fields(fields: dict[str, Any]) -> None:
    """Refuse single values out of bounds, before anything is computed from them."""
    for name, (least, most) in _BOUNDS.items():
        value = fields.get(name)
        if value is not None and not (_is_int(value) and least <= value <= most):
            raise ValueError(f"{name} {_short(value)} is not a whole number, {least} to {most}")
    for name, (low, high) in _NUMBERS.items():
        value = fields.get(name)
        if value is not None and not (_is_number(value) and low <= value <= high):
            raise ValueError(f"{name} {_short(value)} is not a number, {low:g} to {high:g}")
    check_token_ids(fields, fields.get("vocab_size") or VideoPandaConfig.vocab_size)
    for name in ("dtype", "torch_dtype"):
        if fields.get(name) is not None and fields[name] not in _DTYPES:
            raise ValueError(f"{name} {_short(fields[name])} is none of {', '.join(_DTYPES)}")
    act = fields.get("hidden_act", "silu")
    if not isinstance(act, str) or act not in ACT2FN:
        raise ValueError(f"hidden_act {_short(act)} is not known")
    for name in ("attention_bias", "mlp_bias", "tie_word_embeddings"):
        # no Video-Panda has them, and not every backend would apply them
        if fields.get(name) not in (None, False):
            raise ValueError(f"{name} {_short(fields[name])} is not supported")
    for name in ("rope_parameters", "rope_scaling"):
        if fields.get(name) is not None:
            _check_rope(name, fields[name])
    if fields.get("quantization_config") is not None:
        fields["quantization_config"] = quantization_fields(fields["quantization_config"])
    else:
        fields.pop("quantization_config", None)


def _check_rope(name: str, rope: Any) -> None:
    if not isinstance(rope, dict):
        raise ValueError(f"{name} is not an object")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in _ROPE_TYPES:
        raise ValueError(f"rope_type {_short(kind)} is none of {', '.join(_ROPE_TYPES)}")
    for field, value in rope.items():
        if field in ("rope_type", "type", "truncate"):
            continue
        if field not in _ROPE_NUMBERS:
            raise ValueError(f"{name} holds the unknown field {_short(field)}")
        if value is not None and not (_is_number(value) and 0 < value <= 1e12):
            raise ValueError(f"{field} {_short(value)} is not a positive number")


def _check_sizes(config: VideoPandaConfig) -> None:
    """Refuse sizes that contradict each other."""
    heads, key_heads = config.num_attention_heads, config.num_key_value_heads
    if key_heads is None or heads % key_heads:
        raise ValueError(
            f"num_attention_heads {heads} is not a multiple of num_key_value_heads {key_heads}"
        )
    if config.head_dim is None or config.head_dim % 2:
        raise ValueError(f"head_dim {config.head_dim} is not even")
    if config.image_size // config.patch_size > _MAX_PATCHES:
        raise ValueError(
            f"image_size {config.image_size} has more than {_MAX_PATCHES} patches of"
            f" patch_size {config.patch_size} along a side"
        )


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    # isfinite would overflow on a large int
    return _is_int(value) or (isinstance(value, float) and math.isfinite(value))


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 40 else f"{shown[:40]}..."
