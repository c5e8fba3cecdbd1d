"""The configuration that transformers reads; its checks are those of `ModelConfig`."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import LlamaConfig

from pandacli.modeling.configuration import check_sizes, check_video_sizes, checked_fields


@strict
class VideoPandaConfig(LlamaConfig):
    """Sizes of a Video-Panda, by default those of Video-Panda-7B; see `ModelConfig`."""

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
        """Build a configuration from an untrusted `config.json` of the official layout or of ours.

        Raises:
            ValueError: A field is out of bounds, or sizes contradict each other.
        """
        built = super().from_dict(checked_fields(config_dict), **kwargs)
        check_sizes(built[0] if isinstance(built, tuple) else built)  # with return_unused_kwargs
        return built

    def validate_video_sizes(self) -> None:
        """Refuse sizes that STAB cannot have; called by `strict`."""
        check_video_sizes(self)
