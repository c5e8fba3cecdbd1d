"""What STAB makes of a frame, and how a projector is taken over it."""

from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from pandacli.model.patches import content_boxes


@dataclass(frozen=True, eq=False)
class FrameTokens:
    """The tokens of a frame, before the projector.

    Attributes:
        context: (C,), the frame as a whole.
        grid: (h, w, C), a token for each 2x2 block of patches.
        fixed: Whether they depend on nothing but the weights; such an object is kept as long as
            these stay as they are.
    """

    context: Tensor
    grid: Tensor
    fixed: bool = False

    def rows(self) -> Tensor:
        """(1 + h * w, C): all tokens, without those that close a row."""
        return torch.cat((self.context[None], self.grid.flatten(0, 1)))

    def sequence(self, rows: Tensor, split: Tensor) -> Tensor:
        """The tokens in the order in which the Llama reads them.

        Args:
            rows: (1 + h * w, D), what was made of `rows()`.
            split: (D,), closes each row.

        Returns:
            (1 + h * (w + 1), D).
        """
        height, width = self.grid.shape[:2]
        sequence = rows.new_empty(1 + height * (width + 1), rows.shape[-1])
        lines = sequence[1:].unflatten(0, (height, width + 1))
        sequence[0] = rows[0]
        lines[:, :width] = rows[1:].unflatten(0, (height, width))
        lines[:, width] = split
        return sequence


def project(
    frames: Sequence[FrameTokens],
    split: Tensor,
    projector: Callable[[Tensor], Tensor],
    known: MutableMapping[FrameTokens, Tensor] | None = None,
) -> list[Tensor]:
    """The sequences of frames, projected; what is the same several times is projected once.

    Args:
        frames: What STAB made of them.
        split: (C,), closes each row of each frame.
        projector: From (tokens, C) to (tokens, D).
        known: The projected rows of frames that are fixed; it grows.

    Returns:
        For each frame (1 + h * (w + 1), D).
    """
    known = {} if known is None else known
    unknown = [frame for frame in dict.fromkeys(frames) if frame not in known]
    pieces = [*(frame.rows() for frame in unknown), split[None].to(frames[0].grid.dtype)]
    projected = projector(torch.cat(pieces)).split([len(piece) for piece in pieces])
    *parts, end = projected
    rows = dict(zip(unknown, parts, strict=True))
    known.update({frame: part.clone() for frame, part in rows.items() if frame.fixed})
    return [
        frame.sequence(rows[frame] if frame in rows else known[frame], end[0]) for frame in frames
    ]


def nothing_projected(_: nn.Module) -> MutableMapping[FrameTokens, Tensor]:
    """What is known of the projected rows of frames when a projector is new."""
    return WeakKeyDictionary()


def count_tokens(pixel_values: Tensor, patch_size: int) -> int:
    """How many tokens STAB makes of frames (T, 4, S, S), told from their masks.

    A frame of h by w tokens has a context token in front and a split token after each row.
    """
    boxes = content_boxes(pixel_values[:, 3], patch_size)
    sizes = (((box.bottom - box.top) // 2, (box.right - box.left) // 2) for box in boxes)
    return sum(1 + rows * (columns + 1) for rows, columns in sizes)
