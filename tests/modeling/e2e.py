"""Recorded runs of the official model from pixels to tokens, with small Llamas."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from pandacli.video import preprocess
from tests.parity_weights import pixels, raw_frames

PARITY = Path(__file__).parent.parent / "data" / "parity"


@dataclass(frozen=True)
class Vectors:
    """One recorded file: its tensors and their parameters."""

    tensors: dict[str, Tensor]
    meta: dict[str, Any]


def load_vectors(name: str) -> Vectors:
    """Read `tests/data/parity/NAME.safetensors`."""
    with safe_open(PARITY / f"{name}.safetensors", framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return Vectors(tensors, json.loads(file.metadata()["meta"]))


def llama_sizes(vectors: Vectors) -> dict[str, Any]:
    """The fields of the configuration of a recorded run; `rope_theta` is the default."""
    sizes = dict(vectors.meta["llama"])
    assert sizes.pop("rope_theta") == 10000.0
    return sizes


def input_pixels(vectors: Vectors) -> Tensor:
    """(1, 8, 4, 448, 448): the input of a recorded run."""
    source = vectors.meta["input"]
    if source["kind"] == "pixels":
        return pixels(source["seed"], [source["size"]], [source["real"]])
    frames = raw_frames(source["frames"], source["height"], source["width"], source["seed"])
    return preprocess(frames).unsqueeze(0)


def last_logits(model: torch.nn.Module, vectors: Vectors) -> Tensor:
    """The logits after the recorded prompt, (vocabulary,)."""
    ids = vectors.tensors["input_ids"].unsqueeze(0)
    with torch.no_grad():
        output = model(input_ids=ids, pixel_values=input_pixels(vectors), logits_to_keep=1)
    logits: Tensor = output.logits[0, -1]
    return logits
