"""The grid of patches on a canvas: chunks of frames, the box of the content, and the bars.

What STAB makes of a frame, and how a projector is taken over it.
"""

from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

_REACH = 1
"""How many patches the widest convolution over the grid looks to each side."""


@dataclass(frozen=True)
class PatchBox:
    """The rows and columns of patches that hold a frame's content, half-open."""

    top: int
    bottom: int
    left: int
    right: int

    def __or__(self, other: "PatchBox") -> "PatchBox":
        """The smallest box that holds both."""
        return PatchBox(
            min(self.top, other.top),
            max(self.bottom, other.bottom),
            min(self.left, other.left),
            max(self.right, other.right),
        )


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


def padded_box(grid: int) -> PatchBox:
    """What is read of a padded frame: the top left quarter, as in the reference."""
    return PatchBox(0, grid // 4 * 2, 0, grid // 4 * 2)


def content_spans(masks: Tensor, patch_size: int) -> list[PatchBox | None]:
    """The box of patches that each mask (N, S, S) covers; None where it is empty."""
    cells = masks[:, patch_size // 2 :: patch_size, patch_size // 2 :: patch_size] > 0.5
    grid = cells.shape[-1]
    spans = zip(cells.any(2).tolist(), cells.any(1).tolist(), strict=True)
    return [
        PatchBox(
            rows.index(True),
            grid - rows[::-1].index(True),
            columns.index(True),
            grid - columns[::-1].index(True),
        )
        if any(rows)
        else None
        for rows, columns in spans
    ]


def content_boxes(masks: Tensor, patch_size: int) -> list[PatchBox]:
    """The box of patches that is read of each frame, by its mask (N, S, S).

    An empty mask marks a padded frame; see `padded_box`.
    """
    padded = padded_box(masks.shape[-1] // patch_size)
    return [span or padded for span in content_spans(masks, patch_size)]


def group_by_box(boxes: list[PatchBox]) -> dict[PatchBox, list[int]]:
    """Which frames share a box: frames of one shape are encoded together."""
    groups: dict[PatchBox, list[int]] = {}
    for index, box in enumerate(boxes):
        groups.setdefault(box, []).append(index)
    return groups


@dataclass(frozen=True)
class Axis:
    """The rows, or the columns, of a canvas with the inside of its bars left out.

    Lines of a bar that are further from its ends than a convolution reaches are all alike: one of
    them stands for all. A convolution over the lines that are kept gives each what it would give
    it on the whole canvas, its borders included.
    """

    start: int
    stop: int
    size: int

    @cached_property
    def counts(self) -> list[int]:
        """For how many lines of the canvas each kept one stands."""
        return [
            *_thinned(self.start),
            *[1] * (self.stop - self.start),
            *_thinned(self.size - self.stop),
        ]

    @cached_property
    def places(self) -> list[int]:
        """The kept line that stands for each line of the canvas."""
        return [place for place, count in enumerate(self.counts) for _ in range(count)]

    @property
    def content(self) -> slice:
        """The content, in kept lines."""
        first = len(_thinned(self.start))
        return slice(first, first + self.stop - self.start)


def _thinned(lines: int) -> list[int]:
    """Counts of the lines kept of a bar."""
    inside = lines - 2 * _REACH
    return [1] * lines if inside <= 1 else [*[1] * _REACH, inside, *[1] * _REACH]


@dataclass(frozen=True)
class Canvas:
    """Where the content of a chunk's frames is, on a grid the rest of which is bars.

    Its positions are the patches of the content, row by row, and after them, where there are bars,
    one patch of a bar.
    """

    rows: Axis
    columns: Axis

    @classmethod
    def around(cls, box: PatchBox, grid: int) -> "Canvas":
        """The canvas of grid x grid patches with its content in a box."""
        return cls(Axis(box.top, box.bottom, grid), Axis(box.left, box.right, grid))

    @property
    def box(self) -> PatchBox:
        """Where the content is."""
        rows, columns = self.rows, self.columns
        return PatchBox(rows.start, rows.stop, columns.start, columns.stop)

    @cached_property
    def has_bars(self) -> bool:
        """Whether anything is outside the content."""
        lines = self.rows.size, self.columns.size
        return lines != (self._height, self._width)

    def patches(self, frames: Tensor, patch_size: int) -> Tensor:
        """The pixels of each position: frames (t, c, S, S) -> (t, positions, c * patch_size**2)."""
        t, channels = frames.shape[:2]
        area = self._height * self._width
        values = frames.new_empty(t, area + self.has_bars, channels, patch_size**2)
        grid = values[:, :area].view(t, self._height, self._width, channels, patch_size, patch_size)
        content = self._content(frames, patch_size)
        content = content.unflatten(3, (-1, patch_size)).unflatten(2, (-1, patch_size))
        grid.copy_(content.permute(0, 2, 4, 1, 3, 5))
        if self.has_bars:
            values[:, area] = self._colour(frames).expand(-1, -1, patch_size**2)
        return values.flatten(2)

    def bars_are_plain(self, frames: Tensor, patch_size: int) -> bool:
        """Whether everything outside the content has one colour in each of the frames."""
        rows, columns = self.rows, self.columns
        top, bottom = rows.start * patch_size, rows.stop * patch_size
        strips = (
            frames[:, :, :top],
            frames[:, :, bottom:],
            frames[:, :, top:bottom, : columns.start * patch_size],
            frames[:, :, top:bottom, columns.stop * patch_size :],
        )
        colour = self._colour(frames).unsqueeze(3)
        return all(bool((strip == colour).all()) for strip in strips if strip.numel())

    def lay_out(self, values: Tensor) -> Tensor:
        """Values (t, positions, C) -> (t, rows, columns, C), of the rows and columns kept."""
        if not self.has_bars:
            return self.content(values)
        rows, columns = self.rows, self.columns
        index = torch.full((len(rows.counts), len(columns.counts)), self._height * self._width)
        content = torch.arange(self._height * self._width).view(self._height, self._width)
        index[rows.content, columns.content] = content
        laid = values.index_select(1, index.flatten().to(values.device))
        return laid.view(len(values), *index.shape, -1)

    def content(self, values: Tensor) -> Tensor:
        """Values (t, positions, C) -> (t, rows, columns, C), of the content."""
        t, _, width = values.shape
        content = values[:, : self._height * self._width]
        return content.view(t, self._height, self._width, width)

    def multiplicity(self, like: Tensor) -> Tensor:
        """For how many cells of the grid each kept one stands: (rows, columns)."""
        rows, columns = like.new_tensor(self.rows.counts), like.new_tensor(self.columns.counts)
        return rows[:, None] * columns

    @property
    def _height(self) -> int:
        return self.rows.stop - self.rows.start

    @property
    def _width(self) -> int:
        return self.columns.stop - self.columns.start

    def _content(self, frames: Tensor, patch_size: int) -> Tensor:
        rows, columns = self.rows, self.columns
        across = slice(rows.start * patch_size, rows.stop * patch_size)
        return frames[:, :, across, columns.start * patch_size : columns.stop * patch_size]

    def _colour(self, frames: Tensor) -> Tensor:
        """The colour (t, c, 1) of a pixel outside the content."""
        corner = 0 if self.rows.start or self.columns.start else -1
        return frames[:, :, corner, corner, None]


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
