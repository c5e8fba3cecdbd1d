"""STAB for inference: the same function with constant products folded into the weights.

- BatchNorm, and the patch embedding itself, go into the narrow convolution of LSTE; its biases into
  a channel that is always one; the residual of the 3x3x3 convolution into its centre tap.
- A constant query goes through W_k once, and the values it attends to through W_v afterwards.
- LSD multiplies the query of a 2x2 block by W_k, instead of the four patches.
- The affine half of a LayerNorm goes into the linear layer behind it.
- Bars are computed as one patch.

Everything is channels-last, so that 1x1 convolutions are matrix products. Shapes: C is the width,
t the frames of a chunk, positions those of a `Canvas`.
"""

from collections.abc import Sequence
from copy import deepcopy
from functools import reduce
from itertools import chain
from operator import or_
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pandacli.background import current_step
from pandacli.modeling.patches import Canvas, FrameTokens, PatchBox, group_by_box, split_into_chunks
from pandacli.modeling.stab import LSD, LSTE, STAB, depthwise

_TILE_BYTES = 8 << 20  # of the per-head queries of LSD on a CPU: about the size of its caches
_LANES = 16  # float32 values in the widest vector of a CPU; LSTE's inner width is rounded up to it


class _FusedWeights:
    """Tensors computed in single precision."""

    def to(self, dtype: torch.dtype) -> Self:
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, value.to(dtype))
        return self


class FusedLSTE(_FusedWeights):
    """Patch embedding, LSTE and the 3x3x3 convolution behind it."""

    def __init__(self, embedding: Tensor, lste: LSTE, conv: nn.Conv3d) -> None:
        norm, narrow, along_time, widen = _layers(lste.pos_embed)
        gain = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        shift = norm.bias - norm.running_mean * gain
        w_narrow, w_widen = narrow.weight.flatten(1), widen.weight.flatten(1)
        inner = len(w_narrow)
        lanes = (0, -(inner + 1) % _LANES + 1)  # at least one more, for the channel of ones
        self.embedding = embedding.flatten(1)
        self.w_narrow = F.pad((w_narrow * gain) @ self.embedding, (0, 0, *lanes))
        self.b_narrow = F.pad(narrow.bias + w_narrow @ shift, lanes)
        self.taps = F.pad(along_time.weight[..., 0], (0, 0, 0, 0, 0, 0, *lanes))
        self.ones = F.pad(torch.zeros_like(narrow.bias), lanes)
        self.ones[inner] = 1
        self.w_widen = F.pad(w_widen, lanes)
        self.w_widen[:, inner] = widen.bias + w_widen @ along_time.bias
        self.conv_bias = conv.bias
        self.conv = conv.weight.clone(memory_format=torch.channels_last_3d)
        self.conv[:, 0, 1, 1, 1] += 1

    def mix_in_time(self, patches: Tensor, embedded: Tensor) -> Tensor:
        """Patches and their embedding -> LSTE's output with the residual, (t, positions, C)."""
        narrow = F.linear(patches, self.w_narrow, self.b_narrow)
        image = narrow.permute(2, 0, 1).unsqueeze(0)  # (1, inner, t, positions)
        along = F.conv2d(image, self.taps, self.ones, padding=(1, 0), groups=len(self.ones))
        mixed = along.squeeze(0).permute(1, 2, 0).flatten(0, 1)
        return torch.addmm(embedded.flatten(0, 1), mixed, self.w_widen.T).view_as(embedded)

    def convolve(self, grid: Tensor) -> Tensor:
        """The 3x3x3 convolution with its residual, (t, rows, columns, C) -> the same shape."""
        x = grid.permute(3, 0, 1, 2).unsqueeze(0)  # (1, C, t, rows, columns), channels last
        if x.device.type == "cpu":
            out = F.conv3d(x, self.conv, self.conv_bias, padding=1, groups=len(self.conv))
        else:
            out = depthwise(x, self.conv, self.conv_bias)
        return out.squeeze(0).permute(1, 2, 3, 0)


class ConstantQueryAttention(_FusedWeights):
    """Multi-head attention of a constant query, LayerNorm of the memory included."""

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
        """Attend to memory (N, positions, C) before its norm -> (N, C), the heads concatenated."""
        memory = F.layer_norm(memory, memory.shape[-1:], eps=self.eps)
        logits = self.query @ memory.transpose(1, 2)  # (N, heads, positions)
        if multiplicity is not None:
            logits = logits + multiplicity.flatten().log()
        pooled = logits.softmax(2) @ memory  # (N, heads, C)
        values: Tensor = pooled.transpose(0, 1) @ self.w_v  # (heads, N, head size)
        return torch.add(values.transpose(0, 1).flatten(1), self.b_v)


class FusedLSD(_FusedWeights):
    """LSD with W_k applied to the query, so with a fourth of the products."""

    def __init__(self, lsd: LSD) -> None:
        norm_q, query = _layers(lsd.q)
        norm_kv, kv = _layers(lsd.kv)
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
        block_bytes = self.heads * blocks.shape[2] * blocks.element_size()
        tiles = blocks.split(max(1, _TILE_BYTES // block_bytes))
        return torch.cat([self._tokens(tile) for tile in tiles])

    def _tokens(self, blocks: Tensor) -> Tensor:
        width = blocks.shape[2:]
        mean = blocks.mean(1)
        query = F.linear(F.layer_norm(mean, width, eps=self.eps_q), self.w_q, self.b_q)
        query = query.unflatten(1, (self.heads, -1)).transpose(0, 1) @ self.w_k
        patches = F.layer_norm(blocks, width, eps=self.eps_kv)
        logits = query.transpose(0, 1) @ patches.transpose(1, 2)  # (blocks, heads, 4)
        pooled = logits.softmax(2) @ patches  # (blocks, heads, C)
        values = pooled.transpose(0, 1) @ self.w_v  # (heads, blocks, head size)
        attended = values.transpose(0, 1).flatten(1)
        return mean.add_(F.linear(attended, self.w_out, self.b_out))


class FusedSTAB:
    """STAB in evaluation mode; the cheap layers behind the context attentions are not fused."""

    def __init__(self, stab: STAB) -> None:
        self._stab = stab
        self._weights = [*stab.parameters(), *stab.buffers()]
        self._versions = [weight._version for weight in self._weights]
        dtype = stab.patch_embedding.weight.dtype
        with torch.inference_mode(False), torch.no_grad():
            exact = stab if dtype.itemsize >= 4 else deepcopy(stab).float()
            lste = FusedLSTE(exact.patch_embedding.weight, exact.lmhra1, exact.dpe)
            self._lste = lste.to(dtype)
            self._lsd = FusedLSD(exact.local_attention).to(dtype)
            self._gstra = _fuse_gstra(exact).to(dtype)
            self._fsra = _fuse_fsra(exact).to(dtype)

    def is_current(self) -> bool:
        """Whether no weight was replaced or changed in place; edits of `.data` go unnoticed."""
        weights = [*self._stab.parameters(), *self._stab.buffers()]
        same = list(map(id, weights)) == list(map(id, self._weights))
        return same and [weight._version for weight in weights] == self._versions

    @torch.no_grad()
    def __call__(self, pixel_values: Tensor) -> list[FrameTokens]:
        """Encode videos (B, T, 4, S, S), see `STAB.forward`."""
        stab = self._stab
        rgb, spans = split_into_chunks(pixel_values, stab.chunk_frames, stab.patch_size)
        length = rgb.shape[1]
        is_video = pixel_values.shape[1] > 1
        parts = (spans[i : i + length] for i in range(0, len(spans), length))
        chunks, step = [], current_step()
        for part in zip(rgb, parts, strict=True):
            chunks.append(self._encode_chunk(*part, is_video))
            if step is not None:
                step.reach(len(chunks), len(rgb) + 1)  # and the projector
        grids, of_frames, of_chunks = zip(*chunks, strict=True)
        # the contexts of all chunks together
        contexts = stab.class_embedding + stab.global_attention.proj(torch.cat(of_frames))
        if is_video:
            attended = stab.dec.attn.out_proj(torch.cat(of_chunks))
            attended = stab.dec.finish(stab.temporal_cls_token, attended)
            contexts = stab.fuse_contexts(attended.repeat_interleave(length, 0), contexts)
        return list(map(FrameTokens, contexts, chain.from_iterable(grids)))

    def _encode_chunk(
        self, rgb: Tensor, spans: Sequence[PatchBox | None], is_video: bool
    ) -> tuple[list[Tensor], Tensor, Tensor | None]:
        """Encode a chunk (t, 3, S, S), without what follows the context attentions.

        Returns the tokens (h, w, C) of its frames, FSRA's contexts (t, C), and GSTRA's (1, C).
        """
        canvas = self._canvas(rgb, spans)
        patches = canvas.patches(rgb, self._stab.patch_size)  # (t, positions, pixels)
        embedded = F.linear(patches, self._lste.embedding)  # (t, positions, C)
        attended = mixed = None
        if is_video:
            mixed = self._lste.convolve(canvas.to_grid(self._lste.mix_in_time(patches, embedded)))
            counts = canvas.multiplicity(mixed).repeat(len(mixed), 1) if canvas.has_bars else None
            attended = self._gstra(mixed.flatten(0, 2)[None], counts)
        grids: list[Tensor] = [embedded] * len(spans)
        contexts = embedded.new_empty(len(spans), embedded.shape[2])
        for box, members in group_by_box(spans, canvas.grid).items():
            blocks = _blocks(canvas, box, members, embedded, mixed)  # (frames, h, w, 4, C)
            tokens = self._lsd(blocks.flatten(0, 2)).unflatten(0, blocks.shape[:3])
            contexts[members] = self._fsra(tokens.flatten(1, 2))
            for member, frame in zip(members, tokens, strict=True):
                grids[member] = frame
        return grids, contexts, attended

    def _canvas(self, rgb: Tensor, spans: Sequence[PatchBox | None]) -> Canvas:
        """The content of a chunk on its canvas; the whole canvas if its bars are not uniform."""
        grid = rgb.shape[-1] // self._stab.patch_size
        whole = Canvas(PatchBox(0, grid, 0, grid), grid)
        boxes = [span for span in spans if span]
        canvas = Canvas(reduce(or_, boxes), grid) if boxes else whole
        uniform = not canvas.has_bars or canvas.has_uniform_bars(rgb, self._stab.patch_size)
        return canvas if uniform else whole


def _fuse_gstra(stab: STAB) -> ConstantQueryAttention:
    attention = stab.dec.attn
    w_q, w_k, w_v = attention.in_proj_weight.chunk(3)
    b_q, _, b_v = attention.in_proj_bias.chunk(3)
    query = F.linear(stab.dec.ln_1(stab.temporal_cls_token[0, 0]), w_q, b_q)
    heads, scale = attention.num_heads, attention.head_dim**-0.5
    fused = ConstantQueryAttention(query, stab.dec.ln_3, w_k, w_v, heads, scale)
    fused.b_v = fused.b_v + b_v
    return fused


def _fuse_fsra(stab: STAB) -> ConstantQueryAttention:
    fsra = stab.global_attention
    norm, kv = _layers(fsra.kv)
    w_k, w_v = kv.weight.chunk(2)
    query = fsra.q(stab.class_embedding)
    return ConstantQueryAttention(query, norm, w_k, w_v, fsra.heads, len(w_k) ** -0.5)


def _blocks(
    canvas: Canvas, box: PatchBox, members: list[int], embedded: Tensor, mixed: Tensor | None
) -> Tensor:
    """The input of LSD (N, h, w, 4, C), embedded plus mixed, for a chunk's frames with this box."""
    if box == canvas.box:
        frames = slice(None) if len(members) == len(embedded) else members
        parts = [canvas.content(embedded)[frames]]
        if mixed is not None:
            parts += [mixed[frames, canvas.rows.content, canvas.columns.content]]
    else:
        rows = canvas.rows.places[box.top : box.bottom]
        columns = canvas.columns.places[box.left : box.right]
        grids = [canvas.to_grid(embedded)] + ([] if mixed is None else [mixed])
        parts = [grid[members][:, rows][:, :, columns] for grid in grids]
    n, height, width, channels = parts[0].shape
    blocks = embedded.new_empty(n, height // 2, width // 2, 2, 2, channels)
    views = [part.unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).transpose(2, 3) for part in parts]
    if mixed is None:
        blocks.copy_(views[0])
    else:
        torch.add(*views, out=blocks)
    return blocks.flatten(3, 4)


def _layers(sequence: nn.Sequential) -> list[Any]:
    """The layers of a sequence, typed loosely: mypy only knows that they are modules."""
    return list(sequence)
