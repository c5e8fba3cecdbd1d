"""A light look at a checkpoint folder: whether it is one, a whole one, and a Video-Panda."""

import json
from pathlib import Path
from typing import Any

from pandacli.errors import ModelError

MODEL_TYPES = ("videopanda", "eve")
"""`model_type` of a saved Video-Panda, and of the base configuration it was trained from."""

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
"""The weights in one file; in several, these names with `.index.json` list them."""


def check_checkpoint(folder: Path, ways_on: str | None = None) -> None:
    """Refuse a folder that cannot be a whole Video-Panda, by its small files alone.

    Args:
        folder: The folder to look at.
        ways_on: The hint for a folder that is incomplete.

    Raises:
        ModelError: It is no folder, holds no checkpoint, one of another kind, or one that lacks
            files.
        OSError: A file of it may not be read.
    """
    kind = _read_config(folder).get("model_type")
    if kind not in MODEL_TYPES:
        named = f"of type '{kind}'" if isinstance(kind, str) else "of no named type"
        raise ModelError(f"{folder} holds a model {named}, not a Video-Panda")
    missing = _missing_weights(folder)
    if not (folder / "tokenizer.model").is_file():
        missing.append("tokenizer.model")
    if missing:
        what = missing[0] if len(missing) == 1 else f"{missing[0]} and {len(missing) - 1} more"
        raise ModelError(f"the checkpoint in {folder} is incomplete: no {what}", ways_on)


def _read_config(folder: Path) -> dict[str, Any]:
    if not folder.exists():
        raise ModelError(f"no folder {folder}")
    if not folder.is_dir():
        raise ModelError(
            f"{folder} is a file, not a checkpoint folder",
            "give the folder that holds config.json and the weights",
        )
    path = folder / "config.json"
    if not path.is_file():
        inner = sorted(child.parent.name for child in folder.glob("*/config.json"))
        hint = f"did you mean {folder / inner[0]}?" if inner else None
        raise ModelError(f"{folder} is not a checkpoint folder: it holds no config.json", hint)
    return _read_json(path)


def _missing_weights(folder: Path) -> list[str]:
    """Names of the weight files that should be there and are not."""
    if any((folder / name).is_file() for name in WEIGHT_FILES):
        return []
    for name in WEIGHT_FILES:
        index = folder / f"{name}.index.json"
        if index.is_file():
            weight_map = _read_json(index).get("weight_map")
            if not isinstance(weight_map, dict):
                raise ModelError(f"{index} lists no weights", "the file is damaged; get it again")
            shards = sorted({str(shard) for shard in weight_map.values()})
            return [shard for shard in shards if not (folder / shard).is_file()]
    return [" or ".join(WEIGHT_FILES)]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(
            f"{path} is not valid JSON", "the file is damaged; get it again"
        ) from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds no JSON object", "the file is damaged; get it again")
    return content
