"""STAB as the paper writes it down, unfused and complete, as a baseline.

It reads the weights of a `STAB` and computes the same function, step by step: every key and every
value of every attention, BatchNorm by itself, the bars like any other patch, a video and then a
frame after the other, the split token projected as often as it is read. torch chooses its kernels.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pandacli.modeling.patches import chunk_length, content_boxes
from pandacli.modeling.stab import STAB


def plain_sequences(stab: STAB, pixel_values: Tensor) -> list[list[Tensor]]:
    """The tokens (1 + h * (w + 1), C) of each frame of each video, split tokens among them.

    Args:
        stab: Whose weights; in evaluation mode.
        pixel_values: (B, T, 4, S, S), T at least as many as a chunk has.
    """
    return [_video(stab, video) for video in pixel_values]


def plain_frames(stab: STAB, projector: nn.Module, pixel_values: Tensor) -> list[list[Tensor]]:
    """The tokens of each frame of each video, projected; see `plain_sequences`."""
    videos = plain_sequences(stab, pixel_values)
    frames = [frame for video in videos for frame in video]
    projected = iter(projector(torch.cat(frames)).split([len(frame) for frame in frames]))
    return [[next(projected) for _ in video] for video in videos]


def _video(stab: STAB, frames: Tensor) -> list[Tensor]:
    """Frames (T, 4, S, S), chunk by chunk."""
    boxes = content_boxes(frames[:, 3], stab.patch_size)
    sequences: list[Tensor] = []
    for chunk in frames[:, :3].split(chunk_length(len(frames), stab.chunk_frames)):
        embedded = stab.patch_embedding(chunk).transpose(0, 1).unsqueeze(0)  # (1, C, t, g, g)
        mixed = embedded + stab.lmhra1.pos_embed(embedded)
        mixed = mixed + stab.dpe(mixed)
        of_chunk = _gstra(stab, mixed)
        for grid in (mixed + embedded)[0].transpose(0, 1):
            box = boxes[len(sequences)]
            content = grid[:, box.top : box.bottom, box.left : box.right]
            sequences.append(_frame(stab, content, of_chunk))
    return sequences


def _gstra(stab: STAB, mixed: Tensor) -> Tensor:
    """The context (C,) of a chunk (1, C, t, g, g)."""
    gstra, token = stab.dec, stab.temporal_cls_token
    memory = gstra.ln_3(mixed.flatten(2).transpose(1, 2))
    token = token + gstra.attn(gstra.ln_1(token), memory, memory, need_weights=False)[0]
    context: Tensor = token + gstra.mlp(gstra.ln_2(token))
    return context[0, 0]


def _frame(stab: STAB, content: Tensor, of_chunk: Tensor) -> Tensor:
    """The sequence of a frame with content (C, rows, columns)."""
    _, rows, columns = content.shape
    blocks = content.unfold(1, 2, 2).unfold(2, 2, 2)  # (C, h, w, 2, 2)
    blocks = blocks.permute(1, 2, 3, 4, 0).flatten(2, 3).flatten(0, 1)  # (h * w, 4, C)
    mean = blocks.mean(1, keepdim=True)
    tokens = mean + _attend(stab.local_attention, mean, blocks)
    tokens = tokens.squeeze(1)  # (h * w, C)

    query = stab.class_embedding.view(1, 1, -1)
    of_frame = (query + _attend(stab.global_attention, query, tokens.unsqueeze(0)))[0, 0]
    share = torch.sigmoid(stab.balance)
    context = stab.proj((1 - share) * of_chunk + share * of_frame)

    grid = tokens.unflatten(0, (rows // 2, columns // 2))
    split = stab.split_embedding.expand(rows // 2, 1, -1)
    return torch.cat((context[None], torch.cat((grid, split), 1).flatten(0, 1)))


def _attend(part: nn.Module, query: Tensor, memory: Tensor) -> Tensor:
    """LSD's or FSRA's attention: query (N, 1, C) to memory (N, positions, C) -> (N, 1, C)."""
    heads = int(part.heads)  # type: ignore[arg-type]  # of a module mypy knows nothing about
    size = query.shape[-1]

    def by_head(values: Tensor) -> Tensor:
        return values.view(*values.shape[:2], heads, -1).transpose(1, 2)

    key, value = part.get_submodule("kv")(memory).chunk(2, -1)
    asked = by_head(part.get_submodule("q")(query))
    found = F.scaled_dot_product_attention(asked, by_head(key), by_head(value), scale=size**-0.5)
    attended: Tensor = part.get_submodule("proj")(found.transpose(1, 2).flatten(2))
    return attended
