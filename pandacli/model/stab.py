r"""STAB, the Spatio-Temporal Alignment Block of Video-Panda (arXiv 2412.18609, section 3).

Eight frames go in, one sequence of tokens comes out, with no pre-trained encoder on the way:

    patches -> LSTE -> +patches -> crop -> LSD -> tokens of a 2x2 block of patches
                  \-> GSTRA (a context vector a chunk) --\
                                LSD -> FSRA (a frame) ----> fused context token

Here it is as it is trained; where nothing is, `FoldedSTAB` computes the same faster. The names of
parameters are those of the published checkpoint. B counts videos, T frames of a video, N frames of
any video, C is the width, g the patches along a side of the canvas.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pandacli.model.config import VideoPandaConfig
from pandacli.model.derived import Derived
from pandacli.model.frame_tokens import FrameTokens
from pandacli.model.patches import (
    PatchBox,
    chunk_length,
    content_boxes,
    content_spans,
    group_by_box,
    padded_box,
)
from pandacli.model.stab_folded import FoldedSTAB
from pandacli.model.stab_parts import FSRA, GSTRA, LSD, LSTE, depthwise

__all__ = ["STAB", "chunk_length", "content_boxes"]


class STAB(nn.Module):
    """The Spatio-Temporal Alignment Block: frames to tokens of its own width, before the projector.

    Args:
        config: Its sizes. Nothing is tied to the 448 px and 1,024 channels of the paper.
    """

    def __init__(self, config: VideoPandaConfig) -> None:
        super().__init__()
        width, heads = config.video_hidden_size, config.video_num_heads
        self.chunk_frames = config.num_frames
        self.patch_embedding = nn.Conv2d(
            3, width, config.patch_size, stride=config.patch_size, bias=False
        )
        self.class_embedding = nn.Parameter(torch.randn(width) * width**-0.5)
        self.split_embedding = nn.Parameter(torch.randn(width) * width**-0.5)
        self.temporal_cls_token = nn.Parameter(torch.randn(1, 1, width) * width**-0.5)
        self.balance = nn.Parameter(torch.zeros(width))
        self.lmhra1 = LSTE(width)
        self.dpe = nn.Conv3d(width, width, 3, padding=1, groups=width)
        self.dec = GSTRA(width, heads)
        self.local_attention = LSD(width, heads)
        self.global_attention = FSRA(width, heads)
        self.proj = nn.Sequential(nn.LayerNorm(width), nn.Dropout(0.0), nn.Linear(width, width))
        self._folded = Derived(FoldedSTAB)
        self._kinds = [type(module) for module in self.modules()]

    def forward(self, pixel_values: Tensor) -> list[list[FrameTokens]]:
        """Encode videos.

        Args:
            pixel_values: (B, T, 4, S, S): normalised RGB and a mask that is 1 inside the content
                and 0 in the bars; a padded frame is zero in all four channels.

        Returns:
            For each video, for each of its frames, the context token and h x w tokens of blocks.

        Raises:
            ValueError: T frames cannot be cut into equal chunks (paper: 4 frames each).
        """
        frames = pixel_values.shape[1]
        related = frames > 1  # an image: nothing to relate in time
        length = chunk_length(frames, self.chunk_frames) if related else 1
        flat = pixel_values.flatten(0, 1)
        rgb, spans = flat[:, :3], content_spans(flat[:, 3], self.patch_embedding.stride[0])
        folded = None if self._must_unfold(pixel_values) else self._folded.of(self)
        if folded is None:
            encoded = self._encode(rgb, spans, length, related)
        else:
            with torch.no_grad():
                encoded = folded(rgb.unflatten(0, (-1, length)), spans, related)
        return [encoded[i : i + frames] for i in range(0, len(encoded), frames)]

    def train(self, mode: bool = True) -> "STAB":
        """Set training mode; what was folded for inference is forgotten."""
        self._folded.forget()
        return super().train(mode)

    def fuse(self, of_chunks: Tensor, of_frames: Tensor) -> Tensor:
        """The context tokens (N, C) of frames: of the chunk of each, and of itself."""
        share = torch.sigmoid(self.balance)
        context: Tensor = self.proj((1 - share) * of_chunks + share * of_frames)
        return context

    def _must_unfold(self, pixel_values: Tensor) -> bool:
        """Whether more is asked for than the function: gradients, statistics, other layers."""
        modules = list(self.modules())
        if any(module.training for module in modules):
            return True
        if [type(module) for module in modules] != self._kinds:  # adapters, quantised layers
            return True
        if torch.is_autocast_enabled(pixel_values.device.type):
            return True
        wanted = pixel_values.requires_grad or any(p.requires_grad for p in self.parameters())
        return torch.is_grad_enabled() and wanted

    def _encode(
        self, rgb: Tensor, spans: Sequence[PatchBox | None], length: int, related: bool
    ) -> list[FrameTokens]:
        """Frames (N, 3, S, S), in chunks of so many, to the tokens of each."""
        patches = self.patch_embedding(rgb)  # (N, C, g, g)
        of_chunks = None
        if related:
            patches, of_chunks = self._relate_in_time(patches, length)
        grid = patches.permute(0, 2, 3, 1)  # (N, g, g, C)
        boxes = [span or padded_box(grid.shape[1]) for span in spans]
        encoded: dict[int, FrameTokens] = {}
        for box, members in group_by_box(boxes).items():
            content = grid[members, box.top : box.bottom, box.left : box.right]
            tokens = self.local_attention(content)  # (frames, h, w, C)
            contexts = self.global_attention(self.class_embedding, tokens.flatten(1, 2))
            if of_chunks is not None:
                contexts = self.fuse(of_chunks[members], contexts)
            made = map(FrameTokens, contexts, tokens)
            encoded.update(zip(members, made, strict=True))
        return [encoded[frame] for frame in range(len(boxes))]

    def _relate_in_time(self, patches: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """LSTE and GSTRA, chunk by chunk: patches (N, C, g, g), and a context (N, C)."""
        chunked = patches.unflatten(0, (-1, length)).transpose(1, 2)  # (chunks, C, t, g, g)
        mixed = chunked + self.lmhra1(chunked)
        mixed = mixed + depthwise(mixed, self.dpe.weight, self.dpe.bias)
        memory = mixed.flatten(2).transpose(1, 2)  # (chunks, t*g*g, C)
        context = self.dec(self.temporal_cls_token, memory)  # (chunks, C)
        dense = (mixed + chunked).transpose(1, 2).flatten(0, 1)
        return dense, context.repeat_interleave(length, 0)
