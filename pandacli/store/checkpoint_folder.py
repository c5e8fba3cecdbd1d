"""A light look at a checkpoint folder: whether it is one, a whole one, and a Video-Panda."""

from pathlib import Path

from pandacli.checkpoint_files import MODEL_TYPES, check_path, read_json, weight_files
from pandacli.errors import ModelError


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
    check_path(folder)
    kind = read_json(_config(folder)).get("model_type")
    if kind not in MODEL_TYPES:
        named = f"of type '{kind}'" if isinstance(kind, str) else "of no named type"
        raise ModelError(f"{folder} holds a model {named}, not a Video-Panda")
    try:
        weight_files(folder)
    except ModelError as error:
        raise _incomplete(error.message, ways_on or error.hint) from error
    if not (folder / "tokenizer.model").is_file():
        raise _incomplete(f"no tokenizer.model in {folder}", ways_on)


def _config(folder: Path) -> Path:
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
    return path


def _incomplete(what: str, hint: str | None) -> ModelError:
    return ModelError(f"the checkpoint is incomplete: {what}", hint)
