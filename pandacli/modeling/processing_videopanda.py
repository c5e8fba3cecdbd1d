"""The processor: questions and frames to the tensors that the model takes."""

import json
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import BatchFeature, ProcessorMixin

from pandacli.checkpoint_files import read_json
from pandacli.errors import ModelError
from pandacli.modeling.checkpoint import read_config
from pandacli.modeling.tokenization_videopanda import Turns, VideoPandaTokenizer, encode_prompt

CONFIG_FILE = "processor_config.json"
_SIZES = ("image_size", "patch_size", "num_frames")

Conversation = str | Turns
Video = NDArray[np.uint8] | Tensor


class VideoPandaProcessor(ProcessorMixin):
    """Turns questions and videos into `input_ids`, `attention_mask` and `pixel_values`.

    `image_size` and `patch_size` are in pixels; shorter clips are padded to `num_frames`.
    """

    def __init__(
        self,
        tokenizer: VideoPandaTokenizer,
        image_size: int = 448,
        patch_size: int = 14,
        num_frames: int = 8,
    ) -> None:
        self.tokenizer = tokenizer
        self.image_size, self.patch_size, self.num_frames = image_size, patch_size, num_frames
        self.chat_template = None

    def __call__(
        self,
        text: Conversation | Sequence[Conversation] | None = None,
        videos: Video | Sequence[Video] | None = None,
        *,
        pixel_values: Tensor | None = None,
        system: str | None = None,
        num_frames: int | None = None,
        padding_side: str = "left",
        return_tensors: str = "pt",
    ) -> BatchFeature:
        """Prepare one question and its video, or a list of each.

        Args:
            text: A question, or for each video a question or a conversation of `encode_prompt`.
            videos: uint8 RGB frames (T, H, W, 3), or a list of such of any sizes.
            pixel_values: Instead of `videos`, the output of `pandacli.video.preprocess`:
                (T, 4, S, S) or (B, T, 4, S, S).
            system: The system prompt; by default that of the training.
            num_frames: Overrides the processor's own for this call; 1 takes the image branch.

        Returns:
            `input_ids` (B, length) with -200 for each frame, `attention_mask` (B, length) and
            `pixel_values` (B, T, 4, S, S); without `text` only the last.

        Raises:
            ValueError: Videos and questions differ in number, or the frames have another shape or
                type, or are too many.
        """
        from pandacli.video import preprocess

        if return_tensors != "pt":
            raise ValueError(f"return_tensors has to be 'pt', not {return_tensors!r}")
        if padding_side not in ("left", "right"):
            raise ValueError(f"padding_side is 'left' or 'right', not {padding_side!r}")
        if (videos is None) == (pixel_values is None):
            raise ValueError("either videos or pixel_values are needed, and not both")
        if pixel_values is None:
            frames = self.num_frames if num_frames is None else num_frames
            sizes = {"image_size": self.image_size, "patch_size": self.patch_size}
            arrays = map(np.asarray, _as_list(videos))
            pixel_values = torch.stack([preprocess(a, num_frames=frames, **sizes) for a in arrays])
        elif pixel_values.ndim == 4:
            pixel_values = pixel_values.unsqueeze(0)
        if text is None:
            return BatchFeature({"pixel_values": pixel_values})
        conversations: list[Any] = [text] if isinstance(text, str) else list(text)
        if len(conversations) != len(pixel_values):
            counts = f"{len(conversations)} questions for {len(pixel_values)} videos"
            raise ValueError(f"{counts}: each video needs a question of its own")
        turns = ([(c, None)] if isinstance(c, str) else c for c in conversations)
        prompts = [encode_prompt(t, self.tokenizer, system, pixel_values.shape[1]) for t in turns]
        rows = [torch.tensor(prompt) for prompt in prompts]
        ones = [torch.ones_like(row) for row in rows]
        ids = pad_sequence(rows, True, self.tokenizer.unk_id, padding_side)
        mask = pad_sequence(ones, True, 0, padding_side)
        tensors = {"input_ids": ids, "attention_mask": mask, "pixel_values": pixel_values}
        return BatchFeature(tensors)

    def decode(self, token_ids: Iterable[int], **_: Any) -> str:
        """Decode generated ids without control ids and frame slots; options have no effect."""
        tokenizer: VideoPandaTokenizer = self.tokenizer
        return tokenizer.decode(token_ids)

    def batch_decode(self, sequences: Iterable[Iterable[int]], **_: Any) -> list[str]:
        return [self.decode(sequence) for sequence in sequences]

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask", "pixel_values"]

    def to_dict(self) -> dict[str, Any]:
        """The content of `processor_config.json`."""
        sizes = {name: getattr(self, name) for name in _SIZES}
        return {"processor_class": type(self).__name__, **sizes}

    def save_pretrained(
        self, save_directory: str | PathLike[str], push_to_hub: bool = False, **_: Any
    ) -> list[str]:
        """Write processor and tokenizer to a folder; returns the path of the processor's config."""
        if push_to_hub:
            raise ValueError("push_to_hub is not supported")
        self.tokenizer.save_pretrained(save_directory)
        path = Path(save_directory, CONFIG_FILE)
        path.write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")
        return [str(path)]

    @classmethod
    def from_pretrained(  # type: ignore[override]  # no downloads, so none of their options
        cls,
        pretrained_model_name_or_path: str | PathLike[str],
        *,
        subfolder: str | None = None,
        **_: Any,
    ) -> Self:
        """Load from a checkpoint folder; sizes are those of the model in it.

        Raises:
            ModelError: There is no such folder, or one of its files is missing or damaged.
        """
        folder = Path(pretrained_model_name_or_path, subfolder or "")
        if not folder.is_dir():
            raise ModelError(f"no folder {folder}")
        tokenizer = VideoPandaTokenizer.from_pretrained(folder)
        if (folder / CONFIG_FILE).is_file():
            stored = read_json(folder / CONFIG_FILE)
            sizes = {name: stored[name] for name in _SIZES if name in stored}
            if not all(type(size) is int and size > 0 for size in sizes.values()):
                raise ModelError(f"{folder / CONFIG_FILE} holds invalid sizes: {sizes}")
            return cls(tokenizer, **sizes)
        config = read_config(folder)
        return cls(tokenizer, config.image_size, config.patch_size, config.all_num_frames)


def _as_list(videos: Video | Sequence[Video] | None) -> list[Video]:
    if isinstance(videos, np.ndarray | Tensor):
        return [videos] if videos.ndim == 4 else list(videos)
    return list(videos or ())
