"""Training data of `tiny`: endless batches of rendered clips and tokenised dialogues.

All clips of a batch have the same content box, so that frames have equal numbers of tokens and only
text is padded. Each clip has several dialogues packed behind its prefix; the attention mask
separates them (`training.losses`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count

import cv2
import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from pandacli.modeling.tokenization_videopanda import (
    VideoPandaTokenizer,
    encode_prefix,
    encode_prompt,
)
from pandacli.video import sample_indices
from pandacli.video.preprocessing import content_box, fit_to_canvas
from training.drawing import degrade, draw_frames, outline_of
from training.questions import QUESTION_KINDS, Dialogue, random_dialogue
from training.scenes import COLOURS, KINDS, MOTIONS, Scene, random_scene
from training.spellings import other_spelling
from training.windows import random_window

IGNORED = -100

_FRAMES = 8

_ASPECTS = (16 / 9, 4 / 3, 1.0, 3 / 4, 9 / 16, 2.39)
_ASPECT_WEIGHTS = (0.35, 0.27, 0.13, 0.08, 0.12, 0.05)

# points of a shape whose cells it is said to cover, in radii from its centre
_PROBES = ((0.0, 0.0), (0.5, 0.0), (-0.5, 0.0), (0.0, 0.5), (0.0, -0.5))

# sampling weight of each kind of question; harder ones are more frequent
_KIND_WEIGHTS = {
    "describe": 1.6,
    "colour": 2.0,
    "shape": 1.2,
    "motion": 1.0,
    "direction": 0.7,
    "count": 1.0,
    "background": 0.4,
    "position": 3.0,
    "first": 0.8,
    "yes/no": 5.0,
    "presence": 5.0,
    "follow-up": 1.2,
}

_CONVERSATIONS = 0.6
"""Share of clips whose dialogues are joined into conversations."""

_WINDOWS = 0.25
"""Share of clips that are windows of longer ones, with questions of presence only."""

_OTHER_SPELLINGS = 0.5
"""Share of answers that are spelled otherwise."""


@dataclass
class Batch:
    """Clips and dialogues about them: B clips, L text positions, T frames."""

    frames: Tensor
    """(B, T, S, S, 3) uint8 canvases."""
    box: tuple[int, int, int, int]
    """The content, in pixels: top, bottom, left, right."""
    text: Tensor
    """(B, L) ids of all dialogues, packed; 0 at padding."""
    dialogue: Tensor
    """(B, L) number of the dialogue of a position, from 1; 0 at padding."""
    offset: Tensor
    """(B, L) position within the dialogue."""
    target: Tensor
    """(B, L) the id to predict next, or `IGNORED`."""
    usual: Tensor
    """(B, L) the id of the usual spelling where `target` is the first that deviates from it, else
    `IGNORED`."""
    deviates: Tensor
    """(B, L) bool: whether `target` is in an answer that is spelled otherwise."""
    shapes: Tensor
    """(B, T, 15, 4) cells covered by shapes: cell, colour, kind and motion; -1 where unused."""
    mask: Tensor
    """(B, T, cells, 64) uint8: coverage of each 8 by 8 part of a cell, 255 for full."""

    def to(self, device: torch.device) -> "Batch":
        """The batch on another device."""
        return replace(
            self,
            **{k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)},  # type: ignore[arg-type]
        )


class TrainingData(IterableDataset[Batch]):
    """An endless stream of batches, reproducible for a seed and worker number.

    Args:
        tokenizer: The tokenizer of the model.
        image_size: Side of the canvas, in pixels.
        batch_size: Clips per batch.
        dialogues: Dialogues per clip.
        seed: Seed of everything random.
        image_share: Share of the batches that are single images, evenly spread.
        easy: Whether to draw only plain scenes of one or two shapes.
    """

    def __init__(
        self,
        tokenizer: VideoPandaTokenizer,
        *,
        image_size: int,
        batch_size: int,
        dialogues: int,
        seed: int,
        image_share: float = 0.5,
        easy: bool = False,
    ) -> None:
        self.tokenizer = tokenizer
        self.image_size = image_size
        self.batch_size = batch_size
        self.dialogues = dialogues
        self.seed = seed
        self.image_share = image_share
        self.easy = easy
        self.prefix_length = len(encode_prefix(tokenizer))

    def __iter__(self) -> Iterator[Batch]:
        """Draw batches without end."""
        worker = get_worker_info()
        rng = np.random.default_rng((self.seed, worker.id if worker else 0))
        for number in count(1):
            due = int(number * self.image_share) > int((number - 1) * self.image_share)
            yield self.draw_images(rng) if due else self.draw(rng)

    def draw_images(self, rng: Generator) -> Batch:
        """A batch without questions, in which every frame shows a different scene.

        It trains the auxiliary heads on eight times as many shapes as a batch of clips.
        """
        sizes = random_sizes(rng, self.batch_size * _FRAMES, self.image_size, longest=260)
        box = content_box(*sizes[0], image_size=self.image_size)
        frames, shapes, masks = [], [], []
        for width, height in sizes:
            shapes_shown = None if rng.random() < 0.3 else 3
            easy = self.easy or rng.random() < 0.5
            scene = random_scene(rng, width=width, height=height, shapes=shapes_shown, easy=easy)
            times = [float(rng.random())]
            drawn = draw_frames(scene, times, rng)
            drawn = drawn if easy else degrade(drawn, rng)
            frames.append(fit_to_canvas(drawn, image_size=self.image_size)[0])
            shapes.append(_visible_shapes(scene, times, box)[0])
            masks.append(_masks(scene, times, box)[0])
        seen = torch.from_numpy(np.stack(shapes)).unflatten(0, (self.batch_size, _FRAMES))
        seen[..., 3] = IGNORED
        nothing = torch.zeros(self.batch_size, 0, dtype=torch.long)
        pictures = torch.from_numpy(np.stack(frames)).unflatten(0, (self.batch_size, _FRAMES))
        mask = torch.from_numpy(np.stack(masks)).unflatten(0, (self.batch_size, _FRAMES))
        rows = nothing, nothing, nothing, nothing, nothing, nothing
        return Batch(pictures, box, *rows, seen, mask)

    def draw(self, rng: Generator) -> Batch:
        """One batch of clips and dialogues."""
        sizes = random_sizes(rng, self.batch_size, self.image_size)
        box = content_box(*sizes[0], image_size=self.image_size)
        frames, texts, shapes, masks = [], [], [], []
        for width, height in sizes:
            window = not self.easy and rng.random() < _WINDOWS
            if window:
                scene = random_window(rng, width=width, height=height)
            else:
                shapes_shown = int(rng.integers(1, 3)) if self.easy else None
                scene = random_scene(
                    rng, width=width, height=height, shapes=shapes_shown, easy=self.easy
                )
            times = scene.times(sample_indices(scene.fps, scene.frame_count))
            drawn = draw_frames(scene, times, rng)
            drawn = drawn if self.easy else degrade(drawn, rng)
            frames.append(fit_to_canvas(drawn, image_size=self.image_size))
            kinds = ("presence",) if window else QUESTION_KINDS
            asked = [self._ask(scene, kinds, rng) for _ in range(self.dialogues)]
            texts.append(self._tokenise(join_some(asked, rng), rng))
            shapes.append(_visible_shapes(scene, times, box))
            masks.append(_masks(scene, times, box))
        length = max(len(rows[0]) for rows in texts)
        text, dialogue, offset, target, usual, deviates = (
            torch.from_numpy(np.stack([_padded(rows[i], length, filler) for rows in texts]))
            for i, filler in enumerate((0, 0, 0, IGNORED, IGNORED, 0))
        )
        return Batch(
            torch.from_numpy(np.stack(frames)),
            box,
            text,
            dialogue,
            offset,
            target,
            usual,
            deviates.bool(),
            torch.from_numpy(np.stack(shapes)),
            torch.from_numpy(np.stack(masks)),
        )

    def _ask(self, scene: Scene, kinds: Sequence[str], rng: Generator) -> Dialogue:
        weights = np.array([_KIND_WEIGHTS[kind] for kind in kinds])
        kind = str(rng.choice(kinds, p=weights / weights.sum()))
        return random_dialogue(scene, kind, rng)

    def _tokenise(self, dialogues: list[Dialogue], rng: Generator) -> tuple[NDArray[np.int64], ...]:
        """The columns of `Batch` from `text` to `deviates` of packed dialogues."""
        columns: tuple[list[int], ...] = ([], [], [], [], [], [])
        for number, dialogue in enumerate(dialogues, 1):
            ids, *targets = self._tokenise_one(dialogue, rng)
            rows = (ids, [number] * len(ids), range(len(ids)), *targets)
            for column, values in zip(columns, rows, strict=True):
                column.extend(values)
        return tuple(np.array(column, np.int64) for column in columns)

    def _tokenise_one(self, dialogue: Dialogue, rng: Generator) -> tuple[list[int], ...]:
        """The ids of a dialogue, some answers spelled otherwise, and `target` to `deviates`."""
        turns = [
            (question, other_spelling(answer, rng) if rng.random() < _OTHER_SPELLINGS else answer)
            for question, answer in dialogue.turns
        ]
        ids = encode_prompt(turns, self.tokenizer)[self.prefix_length :]
        target, usual, deviates = [IGNORED] * len(ids), [IGNORED] * len(ids), [0] * len(ids)
        for number, (question, answer) in enumerate(dialogue.turns):
            asked = [*turns[:number], (question, None)]
            start = len(encode_prompt(asked, self.tokenizer)) - self.prefix_length
            end = ids.index(self.tokenizer.eos_id, start)
            target[start - 1 : end] = ids[start : end + 1]
            expected = [*self.tokenizer.encode(answer), self.tokenizer.eos_id]
            for place, token in enumerate(expected, start - 1):
                if target[place] != token:
                    usual[place] = token
                    deviates[start - 1 : end] = [1] * (end - start + 1)
                    break
        return ids, target, usual, deviates


def join_some(dialogues: list[Dialogue], rng: Generator) -> list[Dialogue]:
    """Join some of the dialogues about a clip into conversations.

    The model has to learn that history does not change an answer. For a share of the clips
    dialogues are joined with a random probability; for the others they stay separate.
    """
    join_probability = rng.random() if rng.random() < _CONVERSATIONS else 0.0
    joined = dialogues[:1]
    for dialogue in dialogues[1:]:
        if rng.random() < join_probability:
            joined[-1] = Dialogue(dialogue.kind, joined[-1].turns + dialogue.turns)
        else:
            joined.append(dialogue)
    return joined


def random_sizes(
    rng: Generator, count: int, image_size: int, *, longest: float = 420
) -> list[tuple[int, int]]:
    """Frame sizes (width, height) that share one content box."""
    aspect = float(rng.choice(_ASPECTS, p=_ASPECT_WEIGHTS))
    if rng.random() < 0.3:
        aspect = float(np.exp(rng.uniform(np.log(0.45), np.log(2.6))))
    sizes: list[tuple[int, int]] = []
    wanted = None
    while len(sizes) < count:
        nearby = aspect if rng.random() < 0.5 else aspect * float(np.exp(rng.uniform(-0.2, 0.2)))
        longer = float(np.exp(rng.uniform(np.log(150), np.log(longest))))
        width, height = (longer, longer / nearby) if nearby > 1 else (longer * nearby, longer)
        size = (max(32, round(width)), max(32, round(height)))
        box = content_box(*size, image_size=image_size)
        wanted = wanted or box
        if box == wanted:
            sizes.append(size)
    return sizes


def _visible_shapes(
    scene: Scene, times: list[float], box: tuple[int, int, int, int]
) -> NDArray[np.int64]:
    """(T, 15, 4): cells covered by each shape at each time, with its labels."""
    top, bottom, left, right = box
    rows, columns = (bottom - top) // 28, (right - left) // 28
    short = min(scene.width, scene.height)
    seen = np.full((len(times), 3 * len(_PROBES), 4), -1, np.int64)
    for t, time in enumerate(times):
        for n, shape in enumerate(scene.shapes):
            if shape.opacity(time) <= 0.5:
                continue
            x, y, radius = shape.at(time)
            places = [
                (x + dx * radius * short / scene.width, y + dy * radius * short / scene.height)
                for dx, dy in _PROBES
            ]
            cells = {
                int(py * rows) * columns + int(px * columns)
                for px, py in places
                if 0 <= px < 1 and 0 <= py < 1
            }
            what = (
                COLOURS.index(shape.colour),
                KINDS.index(shape.kind),
                MOTIONS.index(shape.motion),
            )
            for slot, cell in enumerate(sorted(cells), n * len(_PROBES)):
                seen[t, slot] = (cell, *what)
    return seen


def _masks(scene: Scene, times: list[float], box: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """(T, cells, 64): coverage by shapes, on a grid of 8 by 8 in each cell."""
    top, bottom, left, right = box
    rows, columns = (bottom - top) // 28, (right - left) // 28
    short = min(scene.width, scene.height)
    scale = np.array([columns * 8, rows * 8])
    masks = np.zeros((len(times), rows * 8, columns * 8), np.uint8)
    for mask, time in zip(masks, times, strict=True):
        for shape in scene.shapes:
            if shape.opacity(time) > 0.5:
                x, y, radius = shape.at(time)
                stretch = (radius * short / scene.width, radius * short / scene.height)
                points = (outline_of(shape) * stretch + (x, y)) * scale - 0.5
                cv2.fillPoly(mask, [(points * 16).round().astype(np.int32)], 255, cv2.LINE_AA, 4)
    parts = masks.reshape(len(times), rows, 8, columns, 8).transpose(0, 1, 3, 2, 4)
    return parts.reshape(len(times), rows * columns, 64)


def _padded(values: NDArray[np.int64], length: int, filler: int) -> NDArray[np.int64]:
    return np.pad(values, (0, length - len(values)), constant_values=filler)
