"""Video-Panda as panda runs it: STAB, a projector, and a Llama that reads frames as tokens."""

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from pandacli.modeling.configuration import ModelConfig
from pandacli.modeling.fused_stab import FusedSTAB
from pandacli.modeling.llama import Cache, Llama
from pandacli.modeling.patches import FrameTokens, project
from pandacli.modeling.stab import STAB
from pandacli.modeling.tokenization_videopanda import FRAME_SLOT


class FrameEncoder(nn.Module):
    """A module with a video tower (STAB) and a projector.

    For inference the tower runs on fused weights (`FusedSTAB`), outside the state dict, which are
    built at the first use and again after `train()`, `eval()`, `to()` and changes in place.
    """

    config: Any  # with the sizes of a `ModelConfig`

    def add_tower(self) -> None:
        """Make the modules; `config` has to be set."""
        config = self.config
        self._fused: FusedSTAB | None = None
        self.video_tower = STAB(config)
        self._tower_types = [type(module) for module in self.video_tower.modules()]
        self.video_projector = nn.Sequential(
            nn.Linear(config.video_hidden_size, config.hidden_size),
            nn.GELU(),
            nn.Linear(config.hidden_size, config.hidden_size),
        )

    def encode_frames(self, pixel_values: Tensor) -> list[list[Tensor]]:
        """Encode and project videos (B, T, 4, S, S): normalised RGB and the mask of the content.

        Returns for each video the (tokens, hidden_size) of each frame.

        Raises:
            ValueError: Another shape, or T frames cannot be cut into equal chunks.
        """
        frames = self.run_tower(pixel_values)
        projected = project(frames, self.video_tower.split_embedding, self.video_projector)
        count = pixel_values.shape[1]
        return [projected[i : i + count] for i in range(0, len(projected), count)]

    def run_tower(self, pixel_values: Tensor) -> list[FrameTokens]:
        """The tokens of all B * T frames before the projector; see `encode_frames`."""
        shape, size = tuple(pixel_values.shape), self.config.image_size
        if len(shape) != 5 or shape[2:] != (4, size, size):
            raise ValueError(f"pixel_values of shape {shape}: wanted (B, T, 4, {size}, {size})")
        weight = self.video_tower.patch_embedding.weight
        pixel_values = pixel_values.to(weight.device, weight.dtype)
        if not self._can_fuse(pixel_values):
            return self.video_tower(pixel_values)  # type: ignore[no-any-return]
        if self._fused is None or not self._fused.is_current():
            self._fused = FusedSTAB(self.video_tower)
        return self._fused(pixel_values)

    def train(self, mode: bool = True) -> Self:
        self._fused = None
        super().train(mode)
        return self

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        self._fused = None  # `to` and the like move or cast the weights
        return super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]

    def _can_fuse(self, pixel_values: Tensor) -> bool:
        """Whether only the function is needed: no gradients, statistics, autocast, other layers."""
        modules = list(self.video_tower.modules())
        weights = [*self.video_tower.parameters(), *self.video_tower.buffers()]
        needs_grad = pixel_values.requires_grad or any(weight.requires_grad for weight in weights)
        return not (
            any(module.training for module in modules)
            # adapters, quantised layers
            or [type(module) for module in modules] != self._tower_types
            or torch.is_autocast_enabled(pixel_values.device.type)
            # changes of inference tensors are not counted
            or any(weight.is_inference() for weight in weights)
            or (torch.is_grad_enabled() and needs_grad)
        )


class Decoder(Llama, FrameEncoder):
    """The Llama, with the tower and the projector that make its tokens of frames."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.config = config
        self.add_tower()


class VideoPanda(nn.Module):
    """Video-Panda for inference, with the parameter names of the published checkpoint.

    `VideoPandaForConditionalGeneration` is the same model as a class of transformers.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.eos_ids: tuple[int, ...] = ()  # that end an answer, besides the tokenizer's

    @property
    def device(self) -> torch.device:
        """Where frames and tokens are embedded."""
        return self.model.embed_tokens.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """What is computed in; embeddings may be stored in less."""
        return self.model.video_projector[0].weight.dtype  # type: ignore[return-value]

    def embed(self, ids: Tensor) -> Tensor:
        """Embed tokens (...) to (..., hidden_size)."""
        embedded: Tensor = self.model.embed_tokens(ids)
        return embedded.to(self.dtype)

    def embed_frames(self, input_ids: Tensor, videos: list[list[Tensor]]) -> list[Tensor]:
        """Embed prompts (B, length), frames in their slots; returns B times (sequence, hidden)."""
        return embed_frames(self.embed, input_ids, videos)

    def forward(
        self,
        input_ids: Tensor,
        cache: Cache,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        kept: Tensor | None = None,
    ) -> Tensor:
        """Append token ids (B, n) to a cache; see `Llama.forward`.

        Returns the logits (B, m, vocabulary) after the m `kept` ones, by default the last.
        """
        hidden = self.model(self.embed(input_ids), cache, positions, mask)
        hidden = hidden[:, -1:] if kept is None else hidden[:, kept.to(hidden.device)]
        logits: Tensor = self.lm_head(hidden)
        return logits


def empty_model(config: ModelConfig) -> VideoPanda:
    """Build a model on the meta device."""
    with torch.device("meta"):
        return VideoPanda(config)


def embed_frames(
    embed: Callable[[Tensor], Tensor], input_ids: Tensor, videos: list[list[Tensor]]
) -> list[Tensor]:
    """Embed prompts (B, length), frames in their slots; returns B times (sequence, hidden)."""
    text = embed(input_ids.clamp(min=0))
    slots = input_ids == FRAME_SLOT
    return [splice(*row) for row in zip(text, slots, videos, strict=True)]


def splice(values: Tensor, slots: Tensor, replacements: list[Tensor]) -> Tensor:
    """Replace each slot row of values (length, ...) by the rows of its replacement."""
    pieces, start = [], 0
    for place, rows in zip(slots.nonzero().flatten().tolist(), replacements, strict=True):
        pieces += [values[start:place], rows.to(values)]
        start = place + 1
    return torch.cat([*pieces, values[start:]])
