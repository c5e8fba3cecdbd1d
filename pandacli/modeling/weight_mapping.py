"""Map names of the official checkpoint layout to ours.

Official checkpoints keep several names for one tensor, distillation teachers and their heads, and
paths of the training machine. Inference needs the Llama, `video_tower` and `video_projector`; sizes
missing from official files are the defaults of `VideoPandaConfig`.
"""

from typing import Any

BATCH_COUNTER = ".num_batches_tracked"
"""Suffix of BatchNorm's counters, which inference does not read."""

_ALIASES = {
    "model.vision_tower.": "model.video_tower.",
    "model.mm_projector.": "model.video_projector.",
}
_UNUSED_PARTS = (
    "model.video_teacher.",
    "model.image_teacher.",
    "model.video_tower_compressor.",
    "model.vision_tower_compressor.",
)
_UNUSED_LAYER = ".lmhra2."  # stored, but never called
_UNUSED_LEAVES = (".rotary_emb.inv_freq", BATCH_COUNTER)

_PROJECTOR = "mlp2x_gelu"
_UNSTATED_SIZES = ("image_size", "patch_size", "video_num_heads", "num_frames", "all_num_frames")
"""Sizes that official files do not state in our sense: they are the defaults."""


def tensor_name(key: str) -> str | None:
    """Our name of a tensor in an official checkpoint; None for one that inference never uses."""
    if key.startswith(_UNUSED_PARTS) or key.endswith(_UNUSED_LEAVES) or _UNUSED_LAYER in key:
        return None
    for alias, name in _ALIASES.items():
        if key.startswith(alias):
            return name + key.removeprefix(alias)
    return key


def is_official(fields: dict[str, Any]) -> bool:
    """Whether a `config.json` has the official layout rather than one our classes write."""
    return (
        fields.get("model_type") == "eve"
        or "mm_hidden_size" in fields
        or "mm_projector_type" in fields
        or "VideoPandaLlamaForCausalLM" in (fields.get("architectures") or ())
    )


def config_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """Map the fields of an official `config.json` to those of `VideoPandaConfig`.

    Raises:
        ValueError: The checkpoint has a projector other than the two layers of the paper.
    """
    projector = fields.get("mm_projector_type", _PROJECTOR)
    if projector != _PROJECTOR:
        raise ValueError(f"mm_projector_type {projector!r} is not {_PROJECTOR!r}")
    known = {name: value for name, value in fields.items() if name not in _UNSTATED_SIZES}
    if "mm_hidden_size" in fields:
        known.setdefault("video_hidden_size", fields["mm_hidden_size"])
    return known
