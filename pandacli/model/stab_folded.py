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
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from functools import reduce
from itertools import islice
from operator import or_
from typing import TYPE_CHECKING, NamedTuple
from weakref import proxy

import torch
from torch import Tensor
from torch.nn import functional as F

from pandacli.model.frame_tokens import FrameTokens
from pandacli.model.patches import Canvas, PatchBox, group_by_box, padded_box
from pandacli.model.stab_folded_parts import FoldedLSD, FoldedLSTE, OneQuery, layers

if TYPE_CHECKING:
    from pandacli.model.stab import STAB


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
