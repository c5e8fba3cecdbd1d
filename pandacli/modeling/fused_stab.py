"""STAB for inference: the same function with everything folded that the frames do not change.

    BatchNorm, and the patch embedding itself, go into the narrow convolution of LSTE; its biases
    into a channel that is always one; the residual of the 3x3x3 convolution into its middle tap
    a query that is always the same goes through W_k once, and what it found through W_v afterwards
    LSD's query for a 2x2 block goes through W_k in place of the four patches it asks
    the affine half of a LayerNorm goes into the linear layer behind it
    bars are one patch; a chunk of padded frames is a constant

Everything is channels-last, so that 1x1 convolutions are matrix products. The weights made here
are derived from those of the model and are never saved. C is the width, t the frames of a chunk;
positions are those of a `Canvas`.

The parts of STAB with what the frames do not change folded into their weights.

Each takes its weights in single precision and reads them once. Everything is channels-last, so that
1x1 convolutions are matrix products. C is the width, t the frames of a chunk; positions are those
of a `Canvas`.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from functools import reduce
from itertools import islice
from operator import or_
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from weakref import proxy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pandacli.modeling.patches import Canvas, FrameTokens, PatchBox, group_by_box, padded_box
from pandacli.modeling.stab import LSD, LSTE, depthwise

if TYPE_CHECKING:
    from pandacli.modeling.stab import STAB

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


class _Chunk(NamedTuple):
    """What is known of a chunk before its contexts are concluded."""

    attended: Tensor | None  # (1, C), by GSTRA's query
    grids: list[Tensor]  # for each frame (h, w, C)
    frames: Tensor  # (t, C), by FSRA's query


class FoldedSTAB:
    """What STAB computes in evaluation mode, as long as its weights stay as they are.

    Args:
        stab: The model. Its weights are read here; those behind the two attentions of contexts,
            which take no time, also later: it has to live as long as this.
    """

    def __init__(self, stab: "STAB") -> None:
        self._stab = proxy(stab)  # which holds this
        weight = stab.patch_embedding.weight
        self._patch_size: int = stab.patch_embedding.kernel_size[0]
        exact = stab if weight.dtype.itemsize >= 4 else deepcopy(stab).float()
        gstra, fsra = exact.dec, exact.global_attention
        lste = FoldedLSTE(exact.patch_embedding.weight, exact.lmhra1, exact.dpe)
        self._lste = lste.to(weight.dtype)
        self._lsd = FoldedLSD(exact.local_attention).to(weight.dtype)

        attention = gstra.attn
        w_q, w_k, w_v = attention.in_proj_weight.chunk(3)
        b_q, _, b_v = attention.in_proj_bias.chunk(3)
        query = F.linear(gstra.ln_1(exact.temporal_cls_token[0, 0]), w_q, b_q)
        scale = attention.head_dim**-0.5
        of_chunks = OneQuery(query, gstra.ln_3, w_k, w_v, attention.num_heads, scale)
        of_chunks.b_v = of_chunks.b_v + b_v
        self._gstra = of_chunks.to(weight.dtype)

        norm, kv = layers(fsra.kv)
        w_k, w_v = kv.weight.chunk(2)
        query = fsra.q(exact.class_embedding)
        of_frames = OneQuery(query, norm, w_k, w_v, fsra.heads, len(w_k) ** -0.5)
        self._fsra = of_frames.to(weight.dtype)
        self._padding: dict[tuple[int, ...], list[FrameTokens]] = {}

    def __call__(
        self, rgb: Tensor, spans: Sequence[PatchBox | None], related: bool
    ) -> list[FrameTokens]:
        """Encode chunks of frames.

        Args:
            rgb: (chunks, t, 3, S, S).
            spans: The box of the content of each frame; None for a padded one.
            related: Whether frames are related in time; an image is not.

        Returns:
            Of each frame its tokens.
        """
        length = rgb.shape[1]
        of_chunks = [spans[start : start + length] for start in range(0, len(spans), length)]
        padded = [related and not any(own) and not rgb[i].any() for i, own in enumerate(of_chunks)]
        live = [
            self._chunk(chunk, own, related)
            for chunk, own, skipped in zip(rgb, of_chunks, padded, strict=True)
            if not skipped
        ]
        frames = iter(self._conclude(live) if live else ())
        return [
            frame
            for skipped in padded
            for frame in (self._padded(rgb) if skipped else islice(frames, length))
        ]

    def _padded(self, like: Tensor) -> list[FrameTokens]:
        """The tokens of a chunk of padded frames, which are always the same."""
        shape = tuple(like.shape[1:])
        if shape not in self._padding:
            chunk = self._chunk(like.new_zeros(shape), [None] * shape[0], True)
            self._padding[shape] = [replace(frame, fixed=True) for frame in self._conclude([chunk])]
        return self._padding[shape]

    def _chunk(self, rgb: Tensor, spans: Sequence[PatchBox | None], related: bool) -> _Chunk:
        """A chunk (t, 3, S, S), up to the contexts."""
        canvas = self._canvas(rgb, spans)
        patches = canvas.patches(rgb, self._patch_size)  # (t, positions, pixels)
        embedded = self._lste.embed(patches)
        attended = mixed = None
        if related:
            grid = canvas.lay_out(self._lste.relate(patches, embedded))
            mixed = self._lste.spread_out(grid)  # (t, rows, columns, C)
            often = canvas.multiplicity(mixed).repeat(len(mixed), 1, 1) if canvas.has_bars else None
            attended = self._gstra(mixed.flatten(0, 2)[None], often)

        padded = padded_box(canvas.rows.size)
        boxes = [span or padded for span in spans]
        grids: list[Tensor] = [embedded] * len(boxes)
        contexts = embedded.new_empty(len(boxes), embedded.shape[2])
        for box, members in group_by_box(boxes).items():
            blocks = _blocks(canvas, box, members, embedded, mixed)  # (frames, h, w, 4, C)
            tokens = self._lsd(blocks.flatten(0, 2)).unflatten(0, blocks.shape[:3])
            contexts[members] = self._fsra(tokens.flatten(1, 2))
            for member, frame in zip(members, tokens, strict=True):
                grids[member] = frame
        return _Chunk(attended, grids, contexts)

    def _canvas(self, rgb: Tensor, spans: Sequence[PatchBox | None]) -> Canvas:
        """Where the content of a chunk is; all over, unless the rest is of one colour."""
        grid = rgb.shape[-1] // self._patch_size
        whole = Canvas.around(PatchBox(0, grid, 0, grid), grid)
        boxes = [span for span in spans if span]
        canvas = Canvas.around(reduce(or_, boxes), grid) if boxes else whole
        plain = not canvas.has_bars or canvas.bars_are_plain(rgb, self._patch_size)
        return canvas if plain else whole

    def _conclude(self, chunks: Sequence[_Chunk]) -> list[FrameTokens]:
        """The tokens of the frames of chunks, with their contexts, which are made together."""
        stab = self._stab
        found = torch.cat([chunk.frames for chunk in chunks])
        contexts = stab.global_attention.conclude(stab.class_embedding, found)
        attended = [chunk.attended for chunk in chunks if chunk.attended is not None]
        if attended:
            of_chunks = stab.dec.conclude(stab.temporal_cls_token, torch.cat(attended))
            contexts = stab.fuse(of_chunks.repeat_interleave(len(chunks[0].grids), 0), contexts)
        grids = [grid for chunk in chunks for grid in chunk.grids]
        return [FrameTokens(*frame) for frame in zip(contexts, grids, strict=True)]


def _blocks(
    canvas: Canvas, box: PatchBox, members: list[int], embedded: Tensor, mixed: Tensor | None
) -> Tensor:
    """What LSD reads of some frames of a chunk: the blocks in a box, (N, h, w, 4, C).

    Args:
        canvas: Where the content of the chunk is.
        box: What is read of the frames.
        members: Which frames.
        embedded: (t, positions, C), the patches as they were embedded.
        mixed: (t, rows, columns, C), what is added to them.
    """
    if box == canvas.box:
        frames = slice(None) if len(members) == len(embedded) else members
        parts = [canvas.content(embedded)[frames]]
        if mixed is not None:
            parts += [mixed[frames, canvas.rows.content, canvas.columns.content]]
    else:
        rows = canvas.rows.places[box.top : box.bottom]
        columns = canvas.columns.places[box.left : box.right]
        laid = [canvas.lay_out(embedded)] + ([] if mixed is None else [mixed])
        parts = [grid[members][:, rows][:, :, columns] for grid in laid]
    n, height, width, channels = parts[0].shape
    blocks = embedded.new_empty(n, height // 2, width // 2, 2, 2, channels)
    views = [part.unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).transpose(2, 3) for part in parts]
    if mixed is None:
        blocks.copy_(views[0])
    else:
        torch.add(*views, out=blocks)
    return blocks.flatten(3, 4)
