"""The grid of patches on a canvas: chunks of frames, the box of the content, the bars around it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import cached_property

import torch
from torch import Tensor

_REACH = 1  # patches that the widest convolution over the grid reaches to each side


@dataclass(frozen=True)
class PatchBox:
    """The rows and columns of patches that hold a frame's content, half-open."""

    top: int
    bottom: int
    left: int
    right: int

    def __or__(self, other: "PatchBox") -> "PatchBox":
        """The smallest box that holds both."""
        top, bottom = min(self.top, other.top), max(self.bottom, other.bottom)
        left, right = min(self.left, other.left), max(self.right, other.right)
        return PatchBox(top, bottom, left, right)


def chunk_length(frames: int, preferred: int) -> int:
    """Frames per chunk: `preferred`, or slightly more to get equal chunks."""
    chunks = frames // preferred
    if chunks == 0 or frames % chunks:  # the model does not define chunks of several lengths
        wanted = f"equal chunks of {preferred} or slightly more"
        raise ValueError(f"{frames} frames cannot be cut into {wanted}")
    return frames // chunks


def split_into_chunks(
    pixel_values: Tensor, chunk_frames: int, patch_size: int
) -> tuple[Tensor, list[PatchBox | None]]:
    """Cut videos (B, T, 4, S, S), RGB and mask, into the chunks that STAB encodes.

    Returns RGB (chunks, t, 3, S, S), and the box of each frame's content, None for a padded frame.
    """
    frames = pixel_values.shape[1]
    length = chunk_length(frames, chunk_frames) if frames > 1 else 1
    flat = pixel_values.flatten(0, 1)
    return flat[:, :3].unflatten(0, (-1, length)), _content_spans(flat[:, 3], patch_size)


def padded_box(grid: int) -> PatchBox:
    """The box read of a padded frame: the top left quarter, as in the reference."""
    return PatchBox(0, grid // 4 * 2, 0, grid // 4 * 2)


def _content_spans(masks: Tensor, patch_size: int) -> list[PatchBox | None]:
    cells = masks[:, patch_size // 2 :: patch_size, patch_size // 2 :: patch_size] > 0.5
    return [
        PatchBox(*_span(rows), *_span(columns)) if any(rows) else None
        for rows, columns in zip(cells.any(2).tolist(), cells.any(1).tolist(), strict=True)
    ]


def _span(covered: list[bool]) -> tuple[int, int]:
    return covered.index(True), len(covered) - covered[::-1].index(True)


def content_boxes(masks: Tensor, patch_size: int) -> list[PatchBox]:
    """The box of patches read of each frame, by its mask (N, S, S); an empty mask is padding."""
    padded = padded_box(masks.shape[-1] // patch_size)
    return [span or padded for span in _content_spans(masks, patch_size)]


def group_by_box(spans: Sequence[PatchBox | None], grid: int) -> dict[PatchBox, list[int]]:
    """Group frame numbers by the box that is read: frames of one shape are encoded together."""
    groups: dict[PatchBox, list[int]] = {}
    for index, span in enumerate(spans):
        groups.setdefault(span or padded_box(grid), []).append(index)
    return groups


@dataclass(frozen=True)
class Axis:
    """The rows, or the columns, of a canvas with the inside of its bars collapsed.

    The lines of a bar that no convolution connects with its ends are identical: one is kept for
    all, and a convolution over the kept lines gives each the value it has on the whole canvas.
    """

    start: int
    stop: int
    size: int

    @cached_property
    def counts(self) -> list[int]:
        """How many lines of the canvas each kept line stands for."""
        content = [1] * (self.stop - self.start)
        return [*_collapsed(self.start), *content, *_collapsed(self.size - self.stop)]

    @cached_property
    def places(self) -> list[int]:
        """The kept line for each line of the canvas."""
        return [place for place, count in enumerate(self.counts) for _ in range(count)]

    @property
    def content(self) -> slice:
        first = len(_collapsed(self.start))
        return slice(first, first + self.stop - self.start)


def _collapsed(lines: int) -> list[int]:
    """For each kept line of a bar, how many it stands for."""
    inside = lines - 2 * _REACH
    return [1] * lines if inside <= 1 else [*[1] * _REACH, inside, *[1] * _REACH]


@dataclass(frozen=True)
class Canvas:
    """A grid of patches with content in a box and bars of one colour around it.

    Its positions are the patches of the content, row by row, then one of a bar if there are bars.
    """

    box: PatchBox
    grid: int  # patches along a side

    @cached_property
    def rows(self) -> Axis:
        return Axis(self.box.top, self.box.bottom, self.grid)

    @cached_property
    def columns(self) -> Axis:
        return Axis(self.box.left, self.box.right, self.grid)

    @cached_property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the content."""
        return self.box.bottom - self.box.top, self.box.right - self.box.left

    @cached_property
    def has_bars(self) -> bool:
        return self.shape != (self.grid, self.grid)

    def patches(self, frames: Tensor, patch_size: int) -> Tensor:
        """The pixels of each position: frames (t, c, S, S) -> (t, positions, c * patch_size**2)."""
        t, channels = frames.shape[:2]
        height, width = self.shape
        values = frames.new_empty(t, height * width + self.has_bars, channels, patch_size**2)
        top, bottom, left, right = self._pixels(patch_size)
        content = frames[..., top:bottom, left:right]
        content = content.unflatten(3, (-1, patch_size)).unflatten(2, (-1, patch_size))
        grid = values[:, : height * width].view(t, height, width, channels, patch_size, patch_size)
        grid.copy_(content.permute(0, 2, 4, 1, 3, 5))
        if self.has_bars:
            values[:, -1] = self._bar_colour(frames).expand(-1, -1, patch_size**2)
        return values.flatten(2)

    def has_uniform_bars(self, frames: Tensor, patch_size: int) -> bool:
        """Whether everything outside the content has one colour in each of the frames."""
        top, bottom, left, right = self._pixels(patch_size)
        rows = frames[..., top:bottom, :]
        strips = frames[..., :top, :], frames[..., bottom:, :], rows[..., :left], rows[..., right:]
        colour = self._bar_colour(frames).unsqueeze(3)
        return all(bool((strip == colour).all()) for strip in strips if strip.numel())

    def to_grid(self, values: Tensor) -> Tensor:
        """Values (t, positions, C) -> (t, rows, columns, C), of the kept rows and columns."""
        if not self.has_bars:
            return self.content(values)
        area = self.shape[0] * self.shape[1]
        index = torch.full((len(self.rows.counts), len(self.columns.counts)), area)
        index[self.rows.content, self.columns.content] = torch.arange(area).view(self.shape)
        grid = values.index_select(1, index.flatten().to(values.device))
        return grid.view(len(values), *index.shape, -1)

    def content(self, values: Tensor) -> Tensor:
        """Values (t, positions, C) -> (t, rows, columns, C), of the content."""
        content = values[:, : self.shape[0] * self.shape[1]]
        return content.view(len(values), *self.shape, -1)

    def multiplicity(self, like: Tensor) -> Tensor:
        """How many cells of the grid each kept cell stands for: (rows, columns)."""
        rows, columns = like.new_tensor(self.rows.counts), like.new_tensor(self.columns.counts)
        return rows[:, None] * columns

    def _pixels(self, patch_size: int) -> Iterator[int]:
        """The box of the content in pixels."""
        return (edge * patch_size for edge in astuple(self.box))

    def _bar_colour(self, frames: Tensor) -> Tensor:
        """The colour (t, c, 1) of a pixel outside the content."""
        corner = 0 if self.box.top or self.box.left else -1
        return frames[:, :, corner, corner, None]


@dataclass(frozen=True, eq=False)
class FrameTokens:
    """The tokens of a frame, before the projector."""

    context: Tensor  # (C,), the frame as a whole
    grid: Tensor  # (h, w, C), a token for each 2x2 block of patches


def project(
    frames: Sequence[FrameTokens], split: Tensor, projector: Callable[[Tensor], Tensor]
) -> list[Tensor]:
    """Project the tokens of all frames at once, and order them as the Llama reads them.

    Returns for each frame (1 + h * (w + 1), D): context, then the grid row by row, each closed by
    the split token (C,), which is projected only once.
    """
    tokens = [torch.cat((frame.context[None], frame.grid.flatten(0, 1))) for frame in frames]
    tokens.append(split[None].to(tokens[0].dtype))
    *projected, end = projector(torch.cat(tokens)).split([len(rows) for rows in tokens])
    sequences = []
    for frame, rows in zip(frames, projected, strict=True):
        lines = rows[1:].split(frame.grid.shape[1])
        sequences.append(torch.cat((rows[:1], *(part for line in lines for part in (line, end)))))
    return sequences


def count_tokens(pixel_values: Tensor, patch_size: int) -> int:
    """How many tokens STAB makes of frames (T, 4, S, S), by their masks."""
    boxes = content_boxes(pixel_values[:, 3], patch_size)
    sizes = (((box.bottom - box.top) // 2, (box.right - box.left) // 2) for box in boxes)
    return sum(1 + rows * (columns + 1) for rows, columns in sizes)  # as `project` orders them
