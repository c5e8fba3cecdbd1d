"""What a checkpoint says of itself in its small files and headers: no weight is read."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pandacli.errors import ModelError

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
PUBLISHED_SIDE = 448
"""Of the canvas of the published models, whose configurations do not name it."""

_DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class Description:
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


def describe(folder: Path) -> Description:
    """Look at a checkpoint folder.

    Raises:
        ModelError: A file of it is damaged or cannot be read.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
        headers = [_tensor_values(path) for path in sorted(folder.glob("*.safetensors"))]
        values = {name: config.get(key) for key, name in _CONFIG.items()}
    except OSError as error:
        raise ModelError(f"cannot read {error.filename}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ModelError(f"a file in {folder} is damaged", "get the model again") from error
    sizes = {name: value for name, value in values.items() if isinstance(value, int)}
    count = sum(headers) if headers else _from_file_sizes(config, files)
    return Description(sizes, count, bool(headers), files)


def canvas_side(folder: Path) -> int:
    """The side, in pixels, of the square in which the model in a checkpoint folder sees a frame.

    Raises:
        ModelError: Its configuration is damaged or cannot be read.
    """
    path = folder / "config.json"
    try:
        side = json.loads(path.read_text(encoding="utf-8")).get("image_size", PUBLISHED_SIDE)
        return int(side)
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path} is damaged", "get the model again") from error


def _tensor_values(path: Path) -> int:
    """How many values a safetensors file holds, by the JSON header that it begins with."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(path.stat().st_size, _LONGEST_HEADER):
            raise ValueError("the header is too long")
        header = json.loads(file.read(length))
    tensors = (entry for name, entry in header.items() if name != "__metadata__")
    count = sum(math.prod(entry["shape"]) for entry in tensors)
    if not isinstance(count, int) or not 0 <= count < _MOST_VALUES:
        raise ValueError("no shapes")
    return count


def _from_file_sizes(config: dict[str, Any], files: dict[str, int]) -> int | None:
    """How many values .bin files hold, nearly: opening them takes torch."""
    dtype = str(config.get("dtype") or config.get("torch_dtype"))
    weights = [size for name, size in files.items() if name.endswith(".bin")]
    width = _DTYPE_BYTES.get(dtype)
    return sum(weights) // width if width and weights else None
