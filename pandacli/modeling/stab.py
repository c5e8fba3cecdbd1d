r"""STAB, the Spatio-Temporal Alignment Block of Video-Panda (arXiv 2412.18609, section 3).

    patches -> LSTE -> +patches -> crop -> LSD -> one token per 2x2 block of patches
                  \-> GSTRA (one context vector per chunk) --\
                                LSD -> FSRA (one per frame) ----> fused context token

This is the block as it is trained; `fused_stab` computes the same function faster for inference.
Parameter names are those of the published checkpoint. Shapes: B videos of T frames, N frames or
chunks, t frames of a chunk, C channels, g patches along a side.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pandacli.modeling.configuration import ModelConfig
from pandacli.modeling.patches import FrameTokens, group_by_box, split_into_chunks


class LSTE(nn.Module):
    """Local spatio-temporal encoding, first half: mixes each patch along time within a chunk."""

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
        weight, bias = along_time.get_parameter("weight"), along_time.get_parameter("bias")
        mixed: Tensor = widen(depthwise(narrow(norm(patches)), weight, bias))
        return mixed


class QuickGELU(nn.Module):
    """The approximation of GELU that GSTRA was trained with."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class GSTRA(nn.Module):
    """Global spatio-temporal relationship aggregator: a learned query, then a two-layer MLP.

    It attends to every position of every frame of a chunk, bars and padded frames included.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_1, self.ln_2, self.ln_3 = (nn.LayerNorm(width) for _ in range(3))
        layers = nn.Linear(width, 4 * width), QuickGELU(), nn.Linear(4 * width, width)
        self.mlp = nn.Sequential(OrderedDict(zip(("c_fc", "gelu", "c_proj"), layers, strict=True)))

    def forward(self, token: Tensor, memory: Tensor) -> Tensor:
        """Token (1, 1, C) and memory (N, positions, C) -> (N, C)."""
        query, memory = self.ln_1(token).expand(len(memory), -1, -1), self.ln_3(memory)
        attended, _ = self.attn(query, memory, memory, need_weights=False)
        return self.finish(token, attended[:, 0])

    def finish(self, token: Tensor, attended: Tensor) -> Tensor:
        """Add residual and MLP: token (1, 1, C), attended (N, C) -> (N, C)."""
        context = token[0] + attended
        return torch.add(context, self.mlp(self.ln_2(context)))


class _SpatialAttention(nn.Module):
    """Pre-norm attention of one query to few keys, as in LSD and FSRA."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width, bias=False))
        self.kv = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width, bias=False))
        self.proj = nn.Linear(width, width)

    def attend(self, query: Tensor, memory: Tensor) -> Tensor:
        """Query (N or 1, C) and memory (N, positions, C) -> (N, C), with the residual."""
        heads = self.q(query).unflatten(-1, (self.heads, 1, -1))  # (N, heads, 1, head size)
        halves = self.kv(memory).unflatten(-1, (2, self.heads, -1))
        key, value = halves.permute(2, 0, 3, 1, 4)  # each (N, heads, positions, head size)
        scale = query.shape[-1] ** -0.5  # not that of one head: the weights were trained so
        weights = (heads * key).sum(-1, keepdim=True).mul(scale).softmax(2)
        attended: Tensor = query + self.proj((weights * value).sum(2).flatten(1))
        return attended


class LSD(_SpatialAttention):
    """Local spatial downsampling: the mean of a 2x2 block of patches attends to the four."""

    def forward(self, patches: Tensor) -> Tensor:
        """(N, rows, columns, C), both even -> (N, rows/2, columns/2, C)."""
        n, rows, columns, width = patches.shape
        blocks = patches.view(n, rows // 2, 2, columns // 2, 2, width)
        blocks = blocks.transpose(2, 3).reshape(-1, 4, width)  # (blocks, 4, C)
        return self.attend(blocks.mean(1), blocks).view(n, rows // 2, columns // 2, width)


class FSRA(_SpatialAttention):
    """Frame-wise spatial relationship aggregator: a learned query attends to a frame's tokens."""

    def forward(self, token: Tensor, memory: Tensor) -> Tensor:
        """Token (C,) and memory (N, positions, C) -> (N, C)."""
        return self.attend(token[None], memory)


def _learned_token(*shape: int) -> nn.Parameter:
    # of variance 1 / width; normal_ imports torch._dynamo on the meta device, which takes a second
    bound = (3 / shape[-1]) ** 0.5
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))


def depthwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Depthwise 3-D convolution of (N, C, t, g, g) as a sum of 2-D ones, one for each tap in time.

    torch has a fast depthwise kernel for the 2-D case only. The weight is (C, 1, taps, height,
    width), all odd; the edges are padded with zeros.
    """
    n, channels, t, rows, columns = x.shape
    taps, height, width = weight.shape[2:]
    padded = F.pad(x.transpose(1, 2), (0, 0, 0, 0, 0, 0, taps // 2, taps // 2))
    total = sum(
        F.conv2d(
            padded[:, tap : tap + t].reshape(-1, channels, rows, columns),  # (N*t, C, g, g)
            weight[:, :, tap],
            bias if tap == 0 else None,
            padding=(height // 2, width // 2),
            groups=channels,
        )
        for tap in range(taps)
    )
    assert isinstance(total, Tensor)
    return total.view(n, t, channels, rows, columns).transpose(1, 2)


class STAB(nn.Module):
    """The Spatio-Temporal Alignment Block: frames to tokens of width C, before the projector."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, heads = config.video_hidden_size, config.video_num_heads
        self.chunk_frames = config.num_frames
        patch = self.patch_size = config.patch_size
        self.patch_embedding = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.class_embedding = _learned_token(width)
        self.split_embedding = _learned_token(width)
        self.temporal_cls_token = _learned_token(1, 1, width)
        self.balance = nn.Parameter(torch.zeros(width))
        self.lmhra1 = LSTE(width)
        self.dpe = nn.Conv3d(width, width, 3, padding=1, groups=width)
        self.dec = GSTRA(width, heads)
        self.local_attention = LSD(width, heads)
        self.global_attention = FSRA(width, heads)
        self.proj = nn.Sequential(nn.LayerNorm(width), nn.Dropout(0.0), nn.Linear(width, width))

    def forward(self, pixel_values: Tensor) -> list[FrameTokens]:
        """Encode videos (B, T, 4, S, S) to the tokens of all B * T frames.

        The channels are normalised RGB and a mask that is 1 inside the content and 0 in the bars; a
        padded frame is zero in all four. With T = 1 the image branch runs, without LSTE and GSTRA.
        """
        chunks, spans = split_into_chunks(pixel_values, self.chunk_frames, self.patch_size)
        patches = self.patch_embedding(chunks.flatten(0, 1))  # (N, C, g, g)
        of_chunks = None
        if pixel_values.shape[1] > 1:
            patches, of_chunks = self._mix_in_time(patches, chunks.shape[1])
        grid = patches.permute(0, 2, 3, 1)  # (N, g, g, C)
        encoded: dict[int, FrameTokens] = {}
        for box, members in group_by_box(spans, grid.shape[1]).items():
            content = grid[members, box.top : box.bottom, box.left : box.right]
            tokens = self.local_attention(content)  # (frames, h, w, C)
            contexts = self.global_attention(self.class_embedding, tokens.flatten(1, 2))
            if of_chunks is not None:
                contexts = self.fuse_contexts(of_chunks[members], contexts)
            encoded.update(zip(members, map(FrameTokens, contexts, tokens), strict=True))
        return [encoded[frame] for frame in range(len(spans))]

    def fuse_contexts(self, of_chunks: Tensor, of_frames: Tensor) -> Tensor:
        """Context vectors (N, C) of the frames' chunks and of the frames -> context tokens."""
        share = torch.sigmoid(self.balance)
        context: Tensor = self.proj((1 - share) * of_chunks + share * of_frames)
        return context

    def _mix_in_time(self, patches: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """LSTE and GSTRA by chunk: (N, C, g, g) -> patches of the same shape, contexts (N, C)."""
        chunked = patches.unflatten(0, (-1, length)).transpose(1, 2)  # (chunks, C, t, g, g)
        mixed = chunked + self.lmhra1(chunked)
        mixed = mixed + depthwise(mixed, self.dpe.weight, self.dpe.bias)
        memory = mixed.flatten(2).transpose(1, 2)  # (chunks, t*g*g, C)
        context = self.dec(self.temporal_cls_token, memory)  # (chunks, C)
        dense = (mixed + chunked).transpose(1, 2).flatten(0, 1)
        return dense, context.repeat_interleave(length, 0)
