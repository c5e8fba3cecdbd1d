r"""STAB, the Spatio-Temporal Alignment Block of Video-Panda (arXiv 2412.18609, section 3).

Eight frames go in, one sequence of tokens comes out, with no pre-trained encoder on the way:

    patches -> LSTE -> +patches -> crop -> LSD -> tokens of a 2x2 block of patches
                  \-> GSTRA (a context vector a chunk) --\
                                LSD -> FSRA (a frame) ----> fused context token

The names of parameters are those of the published checkpoint. B counts videos, T frames of a
video, N frames or chunks of any video, C is the width, g the patches along a side of the canvas.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pandacli.model.config import VideoPandaConfig


@dataclass(frozen=True)
class PatchBox:
    """The rows and columns of patches that hold a frame's content, half-open."""

    top: int
    bottom: int
    left: int
    right: int


class LSTE(nn.Module):
    """Local spatio-temporal encoding, first half: mixes each patch along time within a chunk.

    BatchNorm, a 1x1x1 convolution to two thirds of the width, a depthwise convolution over three
    frames, a 1x1x1 convolution back. The residual is added by STAB.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = width * 2 // 3  # the paper's C / 1.5, rounded down
        self.pos_embed = nn.Sequential(
            nn.BatchNorm3d(width),
            nn.Conv3d(width, inner, 1),
            nn.Conv3d(inner, inner, (3, 1, 1), padding=(1, 0, 0), groups=inner),
            nn.Conv3d(inner, width, 1),
        )

    def forward(self, patches: Tensor) -> Tensor:
        """(N, C, t, g, g) -> (N, C, t, g, g)."""
        norm, narrow, along_time, widen = self.pos_embed
        mixed: Tensor = widen(depthwise(narrow(norm(patches)), along_time))
        return mixed


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), the approximation GSTRA was trained with."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return x * torch.sigmoid(1.702 * x)


class GSTRA(nn.Module):
    """Global spatio-temporal relationship aggregator: one context vector for a chunk of frames.

    A learned query attends to every position of every frame of the chunk, bars and padded frames
    included, and passes through a two-layer perceptron.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_1 = nn.LayerNorm(width)
        self.ln_2 = nn.LayerNorm(width)
        self.ln_3 = nn.LayerNorm(width)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(width, 4 * width))
        self.mlp.add_module("gelu", QuickGELU())
        self.mlp.add_module("c_proj", nn.Linear(4 * width, width))

    def forward(self, token: Tensor, memory: Tensor) -> Tensor:
        """Token (1, 1, C) and memory (N, positions, C) -> (N, C)."""
        head_size = self.attn.head_dim
        w_q, w_k, w_v = self.attn.in_proj_weight.chunk(3)
        b_q, _, b_v = self.attn.in_proj_bias.chunk(3)
        query = F.linear(self.ln_1(token[0, 0]), w_q, b_q)
        attended = attend_with_one_query(
            query, self.ln_3(memory), w_k, w_v, self.attn.num_heads, head_size**-0.5
        )
        context: Tensor = token[0] + self.attn.out_proj(attended + b_v)
        return torch.add(context, self.mlp(self.ln_2(context)))


class LSD(nn.Module):
    """Local spatial downsampling: each 2x2 block of patches becomes one token.

    The mean of the block asks, its four patches answer. The scale is C**-0.5, not that of a head:
    the published weights were trained so.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width, bias=False))
        self.kv = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width, bias=False))
        self.proj = nn.Linear(width, width)

    def forward(self, patches: Tensor) -> Tensor:
        """(N, rows, columns, C), both even -> (N, rows/2, columns/2, C)."""
        n, rows, columns, width = patches.shape
        blocks = patches.view(n, rows // 2, 2, columns // 2, 2, width)
        blocks = blocks.transpose(2, 3).reshape(-1, 4, width)  # (blocks, 4, C)
        mean = blocks.mean(1)
        query = self.q(mean).view(-1, self.heads, 1, width // self.heads)
        key, value = (
            half.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (blocks, heads, 4, head size)
            for half in self.kv(blocks).chunk(2, -1)
        )
        weights = (query * key).sum(-1, keepdim=True).mul(width**-0.5).softmax(2)
        attended = (weights * value).sum(2).flatten(1)  # (blocks, C)
        tokens: Tensor = mean + self.proj(attended)
        return tokens.view(n, rows // 2, columns // 2, width)


class FSRA(nn.Module):
    """Frame-wise spatial relationship aggregator: one context vector for a frame.

    A learned query attends to the tokens that LSD made of the frame, with the same scale.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width, bias=False))
        self.kv = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width, bias=False))
        self.proj = nn.Linear(width, width)

    def forward(self, token: Tensor, memory: Tensor) -> Tensor:
        """Token (C,) and memory (N, positions, C) -> (N, C)."""
        w_k, w_v = self.kv.get_parameter("1.weight").chunk(2)
        attended = attend_with_one_query(
            self.q(token), self.kv[0](memory), w_k, w_v, self.heads, token.shape[-1] ** -0.5
        )
        context: Tensor = token + self.proj(attended)
        return context


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

    def forward(self, pixel_values: Tensor) -> list[list[Tensor]]:
        """Encode videos.

        Args:
            pixel_values: (B, T, 4, S, S): normalised RGB and a mask that is 1 inside the content
                and 0 in the bars; a padded frame is zero in all four channels.

        Returns:
            For each video, for each of its frames, tokens (1 + h * (w + 1), C): the context token,
            then h rows of w tokens, each row closed by the split token.

        Raises:
            ValueError: T frames cannot be cut into equal chunks (paper: 4 frames each).
        """
        videos, frames = pixel_values.shape[:2]
        patches = self.patch_embedding(pixel_values[:, :, :3].flatten(0, 1))  # (B*T, C, g, g)
        if frames == 1:  # an image: nothing to relate in time
            mixed, chunk_context = patches, None
        else:
            mixed, chunk_context = self._relate_in_time(patches, videos, frames)
        mixed = mixed.permute(0, 2, 3, 1)  # (B*T, g, g, C)

        boxes = content_boxes(pixel_values[:, :, 3].flatten(0, 1), self.patch_embedding.stride[0])
        encoded: list[Tensor] = [mixed] * len(boxes)
        for box, members in group_by_box(boxes).items():
            index = torch.tensor(members, device=mixed.device)
            content = mixed[index, box.top : box.bottom, box.left : box.right]
            context = None if chunk_context is None else chunk_context[index]
            for member, tokens in zip(members, self._encode(content, context), strict=True):
                encoded[member] = tokens
        return [encoded[i : i + frames] for i in range(0, len(encoded), frames)]

    def _relate_in_time(self, patches: Tensor, videos: int, frames: int) -> tuple[Tensor, Tensor]:
        """LSTE and GSTRA, chunk by chunk: patches (B*T, C, g, g), and a context (B*T, C)."""
        length = chunk_length(frames, self.chunk_frames)
        _, width, rows, columns = patches.shape
        chunked = patches.view(-1, length, width, rows, columns).transpose(1, 2)
        mixed = chunked + self.lmhra1(chunked)
        mixed = mixed + depthwise(mixed, self.dpe)  # (chunks, C, t, g, g)
        memory = mixed.flatten(2).transpose(1, 2)  # (chunks, t*g*g, C)
        context = self.dec(self.temporal_cls_token, memory)  # (chunks, C)
        dense = (mixed + chunked).transpose(1, 2).reshape(videos * frames, width, rows, columns)
        return dense, context.repeat_interleave(length, 0)

    def _encode(self, content: Tensor, chunk_context: Tensor | None) -> Tensor:
        """Content (N, rows, columns, C) of frames that share a box -> tokens (N, tokens, C)."""
        tokens = self.local_attention(content)  # (N, h, w, C)
        context = self.global_attention(self.class_embedding, tokens.flatten(1, 2))
        if chunk_context is not None:
            share = torch.sigmoid(self.balance)
            context = self.proj((1 - share) * chunk_context + share * context)
        n, rows, _, width = tokens.shape
        split = self.split_embedding.to(tokens.dtype).expand(n, rows, 1, width)
        lines = torch.cat((tokens, split), 2).flatten(1, 2)  # (N, h*(w+1), C)
        return torch.cat((context.unsqueeze(1).to(lines.dtype), lines), 1)


def depthwise(x: Tensor, conv: nn.Module) -> Tensor:
    """A depthwise 3-D convolution as a sum of 2-D ones, one for each of its taps in time.

    The same function; torch has a fast kernel for the flat ones only.

    Args:
        x: (N, C, t, g, g).
        conv: A `Conv3d` with as many groups as channels, odd sizes, padded to keep the shape.
    """
    assert isinstance(conv, nn.Conv3d)
    n, channels, t, rows, columns = x.shape
    taps, height, width = conv.kernel_size
    padded = F.pad(x.transpose(1, 2), (0, 0, 0, 0, 0, 0, taps // 2, taps // 2))
    total = sum(
        F.conv2d(
            padded[:, tap : tap + t].reshape(-1, channels, rows, columns),  # (N*t, C, g, g)
            conv.weight[:, :, tap],
            conv.bias if tap == 0 else None,
            padding=(height // 2, width // 2),
            groups=channels,
        )
        for tap in range(taps)
    )
    assert isinstance(total, Tensor)
    return total.view(n, t, channels, rows, columns).transpose(1, 2)


def attend_with_one_query(
    query: Tensor, memory: Tensor, w_k: Tensor, w_v: Tensor, heads: int, scale: float
) -> Tensor:
    """Multi-head attention of one query, without building a key or a value for every position.

    The query does not depend on the memory, so it is carried through W_k once, and the weighted
    sum of positions is carried through W_v afterwards: the same function, thousands of projections
    fewer. A bias of the keys shifts all logits alike and falls out of the softmax.

    Args:
        query: (C,), already projected.
        memory: (N, positions, C), already normalised.
        w_k: (C, C), rows in the order of the heads.
        w_v: (C, C), likewise; a bias of the values is for the caller to add.
        heads: Number of heads.
        scale: What the logits are multiplied by.

    Returns:
        (N, C), the heads concatenated.
    """
    folded = torch.einsum("hd,hdc->hc", query.view(heads, -1), w_k.unflatten(0, (heads, -1)))
    weights = (memory @ (folded * scale).T).softmax(1)  # (N, positions, heads)
    pooled = weights.transpose(1, 2) @ memory  # (N, heads, C)
    return torch.einsum("nhc,hdc->nhd", pooled, w_v.unflatten(0, (heads, -1))).flatten(1)


def chunk_length(frames: int, preferred: int) -> int:
    """Frames a chunk, when `frames` are cut into as many equal chunks as `preferred` allows.

    Raises:
        ValueError: The chunks would not be equally long, which the model does not define.
    """
    chunks = frames // preferred
    if chunks == 0 or frames % chunks:
        raise ValueError(
            f"{frames} frames cannot be cut into equal chunks of {preferred} or slightly more"
        )
    return frames // chunks


def content_boxes(masks: Tensor, patch_size: int) -> list[PatchBox]:
    """The box of patches that each mask (N, S, S) covers.

    An empty mask marks a padded frame; its box is the top left quarter of the canvas, as in the
    reference.
    """
    cells = masks[:, patch_size // 2 :: patch_size, patch_size // 2 :: patch_size] > 0.5
    grid = cells.shape[-1]
    quarter = PatchBox(0, grid // 4 * 2, 0, grid // 4 * 2)
    spans = zip(cells.any(2).tolist(), cells.any(1).tolist(), strict=True)
    return [
        PatchBox(
            rows.index(True),
            grid - rows[::-1].index(True),
            columns.index(True),
            grid - columns[::-1].index(True),
        )
        if any(rows)
        else quarter
        for rows, columns in spans
    ]


def group_by_box(boxes: list[PatchBox]) -> dict[PatchBox, list[int]]:
    """Which frames share a box: frames of one shape are encoded together."""
    groups: dict[PatchBox, list[int]] = {}
    for index, box in enumerate(boxes):
        groups.setdefault(box, []).append(index)
    return groups
