"""The parts of STAB with what the frames do not change folded into their weights.

Each takes its weights in single precision and reads them once. Everything is channels-last, so that
1x1 convolutions are matrix products. C is the width, t the frames of a chunk; positions are those
of a `Canvas`.
"""

from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pandacli.model.stab_parts import LSD, LSTE, depthwise

_TILE_BYTES = 8 << 20
"""On a CPU, LSD's queries are spread over so much memory at a time: about what caches hold."""

_LANES = 16
"""Float32 values in the widest vector of a CPU; LSTE's inner width is rounded up to it."""


class _Weights:
    """Folded weights, made in single precision."""

    def to(self, dtype: torch.dtype) -> Self:
        """Have them all in a type."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, value.to(dtype))
        return self


def layers(sequence: nn.Sequential) -> list[Any]:
    """The layers of a sequence, of which mypy knows no more than that they are modules."""
    return list(sequence)


class FoldedLSTE(_Weights):
    """Patches to what LSTE makes of them, and that through the 3x3x3 convolution."""

    def __init__(self, embedding: Tensor, lste: LSTE, spread: nn.Conv3d) -> None:
        norm, narrow, along_time, widen = layers(lste.pos_embed)
        gain = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        shift = norm.bias - norm.running_mean * gain
        w_narrow, w_widen = narrow.weight.flatten(1), widen.weight.flatten(1)
        inner = len(w_narrow)
        lanes = (0, -(inner + 1) % _LANES + 1)  # room for the channel that is one, at least

        self.embedding = embedding.flatten(1)
        self.w_narrow = F.pad((w_narrow * gain) @ self.embedding, (0, 0, *lanes))
        self.b_narrow = F.pad(narrow.bias + w_narrow @ shift, lanes)
        self.taps = F.pad(along_time.weight[..., 0], (0, 0, 0, 0, 0, 0, *lanes))
        self.ones = F.pad(torch.zeros_like(narrow.bias), lanes)
        self.ones[inner] = 1
        self.w_widen = F.pad(w_widen, lanes)
        self.w_widen[:, inner] = widen.bias + w_widen @ along_time.bias

        self.spread_bias = spread.bias
        self.spread = spread.weight.clone(memory_format=torch.channels_last_3d)
        self.spread[:, 0, 1, 1, 1] += 1

    def embed(self, patches: Tensor) -> Tensor:
        """(t, positions, pixels) -> (t, positions, C)."""
        return F.linear(patches, self.embedding)

    def relate(self, patches: Tensor, embedded: Tensor) -> Tensor:
        """Patches and their embedding -> LSTE's output with the residual, (t, positions, C)."""
        narrow = F.linear(patches, self.w_narrow, self.b_narrow)
        image = narrow.permute(2, 0, 1).unsqueeze(0)  # (1, inner, t, positions)
        along = F.conv2d(image, self.taps, self.ones, padding=(1, 0), groups=len(self.ones))
        mixed = along.squeeze(0).permute(1, 2, 0).flatten(0, 1)
        return torch.addmm(embedded.flatten(0, 1), mixed, self.w_widen.T).view_as(embedded)

    def spread_out(self, grid: Tensor) -> Tensor:
        """(t, rows, columns, C) -> the same through the 3x3x3 convolution, with the residual."""
        x = grid.permute(3, 0, 1, 2).unsqueeze(0)  # (1, C, t, rows, columns), channels last
        if x.device.type == "cpu":
            spread = F.conv3d(x, self.spread, self.spread_bias, padding=1, groups=len(self.spread))
        else:
            spread = depthwise(x, self.spread, self.spread_bias)
        return spread.squeeze(0).permute(1, 2, 3, 0)


class OneQuery(_Weights):
    """Multi-head attention of a query that is always the same, LayerNorm of the memory included."""

    def __init__(
        self, query: Tensor, norm: nn.LayerNorm, w_k: Tensor, w_v: Tensor, heads: int, scale: float
    ) -> None:
        by_head = w_k.unflatten(0, (heads, -1))
        folded = torch.einsum("hd,hdc->hc", query.view(heads, -1), by_head)
        self.query = folded * norm.weight * scale  # (heads, C)
        self.w_v = (w_v * norm.weight).unflatten(0, (heads, -1)).mT.contiguous()
        self.b_v = w_v @ norm.bias
        self.eps = norm.eps

    def __call__(self, memory: Tensor, multiplicity: Tensor | None = None) -> Tensor:
        """Attend.

        Args:
            memory: (N, positions, C), as it is before its norm.
            multiplicity: How often each position is there; once by default.

        Returns:
            (N, C), the heads concatenated.
        """
        memory = F.layer_norm(memory, memory.shape[-1:], eps=self.eps)
        logits = self.query @ memory.transpose(1, 2)  # (N, heads, positions)
        if multiplicity is not None:
            logits = logits + multiplicity.flatten().log()
        pooled = logits.softmax(2) @ memory  # (N, heads, C)
        found: Tensor = pooled.transpose(0, 1) @ self.w_v  # (heads, N, head size)
        return torch.add(found.transpose(0, 1).flatten(1), self.b_v)


class FoldedLSD(_Weights):
    """LSD with its query folded: a fourth of the products with keys and values."""

    def __init__(self, lsd: LSD) -> None:
        norm_q, query = layers(lsd.q)
        norm_kv, kv = layers(lsd.kv)
        w_k, w_v = kv.weight.chunk(2)
        scale = len(w_k) ** -0.5
        self.heads = lsd.heads
        self.w_q = query.weight * norm_q.weight * scale
        self.b_q = query.weight @ norm_q.bias * scale
        self.w_k = (w_k * norm_kv.weight).unflatten(0, (self.heads, -1))  # (heads, head size, C)
        self.w_v = (w_v * norm_kv.weight).unflatten(0, (self.heads, -1)).mT.contiguous()
        self.w_out = lsd.proj.weight
        self.b_out = lsd.proj.bias + self.w_out @ (w_v @ norm_kv.bias)
        self.eps_q, self.eps_kv = norm_q.eps, norm_kv.eps

    def __call__(self, blocks: Tensor) -> Tensor:
        """Blocks of four patches (blocks, 4, C) -> tokens (blocks, C)."""
        if blocks.device.type != "cpu":
            return self._tokens(blocks)
        spread = self.heads * blocks.shape[2] * blocks.element_size()
        tiles = blocks.split(max(1, _TILE_BYTES // spread))
        return torch.cat([self._tokens(tile) for tile in tiles])

    def _tokens(self, blocks: Tensor) -> Tensor:
        width = blocks.shape[2:]
        mean = blocks.mean(1)
        query = F.linear(F.layer_norm(mean, width, eps=self.eps_q), self.w_q, self.b_q)
        asking = query.unflatten(1, (self.heads, -1)).transpose(0, 1) @ self.w_k
        patches = F.layer_norm(blocks, width, eps=self.eps_kv)
        logits = asking.transpose(0, 1) @ patches.transpose(1, 2)  # (blocks, heads, 4)
        found = logits.softmax(2) @ patches  # (blocks, heads, C)
        values = found.transpose(0, 1) @ self.w_v  # (heads, blocks, head size)
        attended = values.transpose(0, 1).flatten(1)
        return mean.add_(F.linear(attended, self.w_out, self.b_out))
