"""What the small files and headers of a checkpoint say of it; no weight is read."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pandacli.errors import ModelError
from pandacli.file_io import parse_object, read_object

_CONFIG = {  # the names that `panda info` gives to the fields of config.json
    "hidden_size": "width",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "intermediate_size": "MLP width",
    "vocab_size": "vocabulary",
    "max_position_embeddings": "context",
}
_MAX_HEADER_BYTES = 100_000_000  # the limit of safetensors itself
_MAX_PARAMETERS = 1 << 63
_MAX_DIMENSIONS = 16
_DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class CheckpointInfo:
    """Facts of a checkpoint.

    Args:
        sizes: The sizes that its configuration names.
        parameters: The number of parameters; None where nothing tells.
        exact: Whether they were counted, not derived from the size of the files.
        files: The size of each file by name.
    """

    sizes: dict[str, int]
    parameters: int | None
    exact: bool
    files: dict[str, int]


def describe_checkpoint(folder: Path) -> CheckpointInfo:
    """Read the facts of a checkpoint folder.

    Raises:
        ModelError: A file of it is damaged or cannot be read.
    """
    try:
        config = read_object(folder / "config.json")
        files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
        weights = [path for path in sorted(folder.glob("*.safetensors")) if path.is_file()]
        counts = list(map(_count_parameters, weights))
        values = {name: config.get(key) for key, name in _CONFIG.items()}
    except OSError as error:
        raise ModelError(f"cannot read {error.filename}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(f"a file in {folder} is damaged", "get the model again") from error
    sizes = {name: value for name, value in values.items() if isinstance(value, int)}
    count = sum(counts) if counts else _estimate_parameters(config, files)
    return CheckpointInfo(sizes, count, bool(counts), files)


def _count_parameters(path: Path) -> int:
    """The number of values in a safetensors file, by the JSON header at its start."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(path.stat().st_size, _MAX_HEADER_BYTES):
            raise ValueError("the header is too long")
        header = parse_object(file.read(length))
    shapes = [entry["shape"] for name, entry in header.items() if name != "__metadata__"]
    if any(len(shape) > _MAX_DIMENSIONS for shape in shapes):
        raise ValueError("too many dimensions")
    count = sum(map(math.prod, shapes))
    if not isinstance(count, int) or not 0 <= count < _MAX_PARAMETERS:
        raise ValueError("invalid shapes")
    return count


def _estimate_parameters(config: dict[str, Any], files: dict[str, int]) -> int | None:
    """About how many values .bin files hold, by their size: opening them takes torch."""
    dtype = str(config.get("dtype") or config.get("torch_dtype"))
    weights = [size for name, size in files.items() if name.endswith(".bin")]
    width = _DTYPE_BYTES.get(dtype)
    return sum(weights) // width if width and weights else None
