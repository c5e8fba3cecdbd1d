"""The configuration of a model: sizes of STAB and of the Llama, checked as untrusted input."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

# of each number in a config.json, far beyond those of published models; sizes are whole numbers
_BOUNDS: dict[str, tuple[float, float]] = {
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
    "rms_norm_eps": (0.0, 1.0),
    "attention_dropout": (0.0, 1.0),
    "initializer_range": (0.0, 1.0),
    "rope_theta": (1.0, 1e12),
}
_ROPE_THETA = 10000.0
_MAX_PATCHES = 256  # along a side of the canvas; published models have 32
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
_FIELDS = frozenset((*_BOUNDS, *_TOKEN_IDS, *_OTHERS))
"""The fields of a `config.json` that are read. Others are ignored: those that name code to run or
download (`auto_map`, `attn_implementation`), paths, and training switches such as `use_cache`."""

_PROJECTOR = "mlp2x_gelu"
# official files use these names in another sense, if at all: the defaults apply
_UNSTATED_SIZES = ("image_size", "patch_size", "video_num_heads", "num_frames", "all_num_frames")


@dataclass
class ModelConfig:
    """Sizes of a Video-Panda, by default those of Video-Panda-7B (arXiv 2412.18609).

    The names are those of `VideoPandaConfig`, which transformers reads.
    """

    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int = 0  # 0 for as many as attention heads
    head_dim: int = 0  # 0 for an equal share of hidden_size
    vocab_size: int = 32000
    max_position_embeddings: int = 4096
    rms_norm_eps: float = 1e-5
    hidden_act: str = "silu"
    rope_parameters: dict[str, Any] = field(
        default_factory=lambda: {"rope_type": "default", "rope_theta": _ROPE_THETA}
    )
    image_size: int = 448  # side of the square canvas, in pixels; a multiple of twice patch_size
    patch_size: int = 14  # in pixels; 2x2 patches make one token
    video_hidden_size: int = 1024  # width of STAB, "C" in the paper
    video_num_heads: int = 8  # of GSTRA, LSD and FSRA
    num_frames: int = 4  # per chunk; STAB encodes chunks independently
    all_num_frames: int = 8  # sampled per clip
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    pad_token_id: int | None = 0
    dtype: str | None = None  # of the weights as they are stored
    quantization_config: dict[str, Any] | None = None  # of weights that bitsandbytes stored

    def __post_init__(self) -> None:
        self.num_key_value_heads = self.num_key_value_heads or self.num_attention_heads
        self.head_dim = self.head_dim or self.hidden_size // self.num_attention_heads

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Self:
        """Build a configuration from an untrusted `config.json` of the official layout or of ours.

        Raises:
            ValueError: A field is out of bounds, or sizes contradict each other.
        """
        given = checked_fields(stored)
        own = {each.name for each in fields(cls)}
        sizes = {name: value for name, value in given.items() if name in own and value is not None}
        rope = dict(given.get("rope_parameters") or given.get("rope_scaling") or {})
        kind = rope.pop("type", "default")
        sizes["rope_parameters"] = {
            "rope_theta": given.get("rope_theta") or _ROPE_THETA,
            **rope,
            "rope_type": rope.get("rope_type", kind),
        }
        for name in _TOKEN_IDS:
            if name in given:  # null is no token, not the default
                sizes[name] = given[name]
        if "dtype" not in sizes and given.get("torch_dtype"):
            sizes["dtype"] = given["torch_dtype"]
        config = cls(**sizes)
        check_sizes(config)
        return config

    def to_dict(self) -> dict[str, Any]:
        """The content of a `config.json` that transformers reads, too."""
        own = asdict(self)
        optional = ("dtype", "quantization_config")
        return {
            "architectures": ["VideoPandaForConditionalGeneration"],
            "model_type": "videopanda",
            **{name: own[name] for name in own if name not in optional or own[name] is not None},
        }


def checked_fields(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The known fields of an untrusted `config.json`, in our layout; a ValueError if one is bad."""
    given = _from_official(dict(stored))
    known = {name: value for name, value in given.items() if name in _FIELDS}
    _check_fields(known)
    return known


def check_token_ids(fields: Mapping[str, Any], vocabulary: int) -> None:
    """Raise a `ValueError` for ids of control tokens outside the vocabulary; -1 stands for none."""
    for name in _TOKEN_IDS:
        value = fields.get(name)
        for number in value if isinstance(value, list) and name == "eos_token_id" else [value]:
            valid = number is None or (type(number) is int and -1 <= number < vocabulary)
            _require(valid, f"{name} {_short(number)} is not in the vocabulary of {vocabulary}")


def _from_official(fields: dict[str, Any]) -> dict[str, Any]:
    """Translate the fields of the official layout; others are returned as they are."""
    if not (
        fields.get("model_type") == "eve"
        or fields.keys() & {"mm_hidden_size", "mm_projector_type"}
        or "VideoPandaLlamaForCausalLM" in (fields.get("architectures") or ())
    ):
        return fields
    projector = fields.get("mm_projector_type", _PROJECTOR)
    _require(projector == _PROJECTOR, f"mm_projector_type {projector!r} is not {_PROJECTOR}")
    known = {name: value for name, value in fields.items() if name not in _UNSTATED_SIZES}
    if "mm_hidden_size" in fields:
        known.setdefault("video_hidden_size", fields["mm_hidden_size"])
    return known


def _check_fields(fields: dict[str, Any]) -> None:
    """Refuse single values out of bounds, before anything is computed from them."""
    given = {name: value for name, value in fields.items() if value is not None}
    for name, (low, high) in _BOUNDS.items():
        value, is_whole = given.get(name, low), isinstance(low, int)
        kind = "whole number" if is_whole else "number"
        valid = (type(value) is int if is_whole else _is_number(value)) and low <= value <= high
        _require(valid, f"{name} {_short(value)} is not a {kind}, {low} to {high}")
    check_token_ids(fields, fields.get("vocab_size") or ModelConfig.vocab_size)
    for name in ("dtype", "torch_dtype"):
        value = given.get(name, "float32")
        _require(value in _DTYPES, f"{name} {_short(value)} is none of {', '.join(_DTYPES)}")
    act = given.get("hidden_act", "silu")
    _require(isinstance(act, str) and _is_activation(act), f"hidden_act {_short(act)} is not known")
    for name in ("attention_bias", "mlp_bias", "tie_word_embeddings"):
        # no Video-Panda has them, and not every backend would apply them
        value = given.get(name, False)
        _require(value is False, f"{name} {_short(value)} is not supported")
    for name in ("rope_parameters", "rope_scaling"):
        if name in given:
            _check_rope(name, given[name])
    if (stored := fields.pop("quantization_config", None)) is not None:
        fields["quantization_config"] = _bitsandbytes_fields(stored)


def _check_rope(name: str, rope: Any) -> None:
    _require(isinstance(rope, dict), f"{name} is not an object")
    kind = rope.get("rope_type", rope.get("type", "default"))
    _require(kind in _ROPE_TYPES, f"rope_type {_short(kind)} is none of {', '.join(_ROPE_TYPES)}")
    for part, value in rope.items():
        if part in ("rope_type", "type", "truncate"):
            continue
        _require(part in _ROPE_NUMBERS, f"{name} holds the unknown field {_short(part)}")
        in_range = value is None or (_is_number(value) and 0 < value <= 1e12)
        _require(in_range, f"{part} {_short(value)} is not a positive number")


def _bitsandbytes_fields(stored: Any) -> dict[str, Any]:
    """The fields of a `quantization_config` that transformers needs, without the list of layers."""
    _require(isinstance(stored, dict), "quantization_config is not an object")
    method = stored.get("quant_method", "bitsandbytes")
    supported = method in ("bitsandbytes", "bitsandbytes_8bit", "bitsandbytes_4bit")
    _require(supported, f"quant_method {_short(method)} is not 'bitsandbytes'")
    in_8bit, in_4bit = (stored.get(name, False) for name in ("load_in_8bit", "load_in_4bit"))
    one = {in_8bit, in_4bit} == {True, False}
    _require(one, "exactly one of load_in_8bit and load_in_4bit has to be true")
    kind = stored.get("bnb_4bit_quant_type", "fp4")
    _require(kind in ("nf4", "fp4"), f"bnb_4bit_quant_type {_short(kind)} is not 'nf4' or 'fp4'")
    threshold = stored.get("llm_int8_threshold", 6.0)
    in_range = isinstance(threshold, int | float) and 0 <= threshold < math.inf
    _require(in_range, f"llm_int8_threshold {_short(threshold)} is not a positive number")
    return {
        "quant_method": "bitsandbytes",
        "load_in_8bit": in_8bit,
        "load_in_4bit": in_4bit,
        "bnb_4bit_quant_type": kind,
        "bnb_4bit_use_double_quant": bool(stored.get("bnb_4bit_use_double_quant", False)),
        "llm_int8_threshold": float(threshold),
    }


def check_sizes(config: Any) -> None:
    """Raise a ValueError if the sizes of a configuration of either kind contradict each other."""
    _require_multiple(config, "num_attention_heads", "num_key_value_heads")
    _require_multiple(config, "hidden_size", "num_attention_heads")
    _require((config.head_dim or 1) % 2 == 0, f"head_dim {config.head_dim} is not even")
    size, excess = config.image_size, f"more than {_MAX_PATCHES} patches along a side"
    _require(size // config.patch_size <= _MAX_PATCHES, f"image_size {size} has {excess}")
    check_video_sizes(config)


def check_video_sizes(config: Any) -> None:
    """Raise a ValueError for sizes that STAB cannot have."""
    side, patch = config.image_size, config.patch_size
    fits = patch > 0 and side > 0 and side % (2 * patch) == 0
    _require(fits, f"image_size {side} is not a multiple of twice the patch_size {patch}")
    _require_multiple(config, "video_hidden_size", "video_num_heads")


def _is_activation(name: str) -> bool:
    if name == "silu":
        return True
    from transformers.activations import ACT2FN  # slow to import, and no Video-Panda has another

    return name in ACT2FN


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _require_multiple(config: Any, name: str, of: str) -> None:
    value, unit = getattr(config, name), getattr(config, of)
    _require(value % unit == 0, f"{name} {value} is not a multiple of {of} {unit}")


def _is_number(value: object) -> bool:
    # isfinite would overflow on a large int
    return type(value) is int or (type(value) is float and math.isfinite(value))


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 40 else f"{shown[:40]}..."
