"""The configuration of a Video-Panda: the sizes of STAB beside those of the Llama."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import LlamaConfig

from pandacli.model import official


@strict
class VideoPandaConfig(LlamaConfig):
    """Sizes of a Video-Panda; the defaults are those of Video-Panda-7B (arXiv 2412.18609).

    The Llama fields (`hidden_size`, `num_hidden_layers`, ...) stand at the top level, as in the
    published `config.json`.

    Args:
        image_size: Side of the square canvas, in pixels; a multiple of twice `patch_size`.
        patch_size: Side of a patch, in pixels. Two by two patches make one token.
        video_hidden_size: Width of STAB, "C" in the paper.
        video_num_heads: Attention heads of GSTRA, LSD and FSRA.
        num_frames: Frames of a chunk; within STAB nothing crosses the border of a chunk.
        all_num_frames: Frames sampled from a clip.
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
        """Build a configuration from the fields of a `config.json`, ours or the authors'.

        Returns:
            The configuration; with `return_unused_kwargs=True` also the kwargs that are no fields.
        """
        if official.is_official(config_dict):
            config_dict = official.config_fields(config_dict)
        return super().from_dict(config_dict, **kwargs)

    def validate_video_sizes(self) -> None:
        """Refuse sizes of which no STAB can be built."""
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
