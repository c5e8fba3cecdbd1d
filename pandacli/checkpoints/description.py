"""What a checkpoint says of itself in its small files and headers: no weight is read."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pandacli.errors import ModelError
from pandacli.file_io import parse_object, read_object

_CONFIG = {  # how `panda info` calls the fields of config.json
    "hidden_size": "width",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "intermediate_size": "MLP width",
    "vocab_size": "vocabulary",
    "max_position_embeddings": "context",
}
_LONGEST_HEADER = 100_000_000  # as safetensors itself has it
_MOST_VALUES = 1 << 63
_MOST_DIMENSIONS = 16
_LARGEST_SIDE = 2048
PUBLISHED_SIDE = 448
"""Of the canvas of the published models, whose configurations do not name it."""

_DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class CheckpointInfo:
    """A checkpoint.

    Args:
        sizes: The sizes that its configuration names.
        parameters: How many values the weights have; None where nothing tells.
        exact: Whether that is counted, and not computed from the size of the files.
        files: The size of each file by name.
    """

    sizes: dict[str, int]
    parameters: int | None
    exact: bool
    files: dict[str, int]


def describe_checkpoint(folder: Path) -> CheckpointInfo:
    """Look at a checkpoint folder.

    Raises:
        ModelError: A file of it is damaged or cannot be read.
    """
    try:
        config = read_object(folder / "config.json")
        files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
        weights = [path for path in sorted(folder.glob("*.safetensors")) if path.is_file()]
        headers = list(map(_tensor_values, weights))
        values = {name: config.get(key) for key, name in _CONFIG.items()}
    except OSError as error:
        raise ModelError(f"cannot read {error.filename}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(f"a file in {folder} is damaged", "get the model again") from error
    sizes = {name: value for name, value in values.items() if isinstance(value, int)}
    count = sum(headers) if headers else _from_file_sizes(config, files)
    return CheckpointInfo(sizes, count, bool(headers), files)


def read_image_size(folder: Path) -> int:
    """The side, in pixels, of the square in which the model in a checkpoint folder sees a frame.

    Raises:
        ModelError: Its configuration is damaged or cannot be read.
    """
    path = folder / "config.json"
    try:
        side = read_object(path).get("image_size", PUBLISHED_SIDE)
        if not isinstance(side, int) or not 1 < side <= _LARGEST_SIDE:
            raise ValueError("no side of a canvas")
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ModelError(f"{path} is damaged", "get the model again") from error
    return side


def _tensor_values(path: Path) -> int:
    """How many values a safetensors file holds, by the JSON header that it begins with."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(path.stat().st_size, _LONGEST_HEADER):
            raise ValueError("the header is too long")
        header = parse_object(file.read(length))
    shapes = [entry["shape"] for name, entry in header.items() if name != "__metadata__"]
    if any(len(shape) > _MOST_DIMENSIONS for shape in shapes):
        raise ValueError("too many dimensions")
    count = sum(map(math.prod, shapes))
    if not isinstance(count, int) or not 0 <= count < _MOST_VALUES:
        raise ValueError("no shapes")
    return count


def _from_file_sizes(config: dict[str, Any], files: dict[str, int]) -> int | None:
    """How many values .bin files hold, nearly: opening them takes torch."""
    dtype = str(config.get("dtype") or config.get("torch_dtype"))
    weights = [size for name, size in files.items() if name.endswith(".bin")]
    width = _DTYPE_BYTES.get(dtype)
    return sum(weights) // width if width and weights else None
