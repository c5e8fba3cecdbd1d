"""The names in a checkpoint as the authors of Video-Panda publish it, and ours for them.

Their training code keeps several names for one tensor, the teachers it distilled from, the heads
used for that, and fields about paths on the machine it ran on. What matters for inference is the
Llama, `video_tower` and `video_projector`; sizes that their files do not state are the defaults of
`VideoPandaConfig`.
"""

from typing import Any

BATCH_COUNTER = ".num_batches_tracked"
"""How the names of BatchNorm's counters end; nothing reads them."""

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
_UNUSED_WITHIN = (".lmhra2.",)  # stored, but never called
_UNUSED_LEAVES = (".rotary_emb.inv_freq", BATCH_COUNTER)

_PROJECTOR = "mlp2x_gelu"
_OTHERWISE_MEANT = ("image_size", "patch_size", "video_num_heads", "num_frames", "all_num_frames")
"""Sizes of `VideoPandaConfig` that official files do not state: its defaults are theirs."""


def tensor_name(key: str) -> str | None:
    """Our name of a tensor in an official checkpoint, or None for one that inference never uses."""
    if key.startswith(_UNUSED_PARTS) or key.endswith(_UNUSED_LEAVES):
        return None
    if any(part in key for part in _UNUSED_WITHIN):
        return None
    for alias, name in _ALIASES.items():
        if key.startswith(alias):
            return name + key.removeprefix(alias)
    return key


def is_official(fields: dict[str, Any]) -> bool:
    """Whether the fields of a `config.json` are the authors' and not written by our classes."""
    return (
        fields.get("model_type") == "eve"
        or "mm_hidden_size" in fields
        or "mm_projector_type" in fields
        or "VideoPandaLlamaForCausalLM" in (fields.get("architectures") or ())
    )


def config_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of an official `config.json` under the names of `VideoPandaConfig`.

    Raises:
        ValueError: The checkpoint has a projector other than the two layers of the paper.
    """
    projector = fields.get("mm_projector_type", _PROJECTOR)
    if projector != _PROJECTOR:
        raise ValueError(f"mm_projector_type {projector!r} is not {_PROJECTOR!r}")
    known = {name: value for name, value in fields.items() if name not in _OTHERWISE_MEANT}
    if "mm_hidden_size" in fields:
        known.setdefault("video_hidden_size", fields["mm_hidden_size"])
    return known
