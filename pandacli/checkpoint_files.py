"""Find the files of a checkpoint folder, without torch; a `ModelError` for unusable ones."""

from pathlib import Path
from typing import Any

from pandacli import file_io
from pandacli.errors import ModelError

INCOMPLETE = "the files may be incomplete or damaged: get the model again"  # a hint
MODEL_TYPES = ("videopanda", "eve")  # in official files: trained, and the base it started from
_MAX_NAMED = 3  # tensors or files named in an error


def weight_files(folder: Path) -> list[Path]:
    """The weight files: safetensors before `.bin`, an index before a single file."""
    check_path(folder)
    for name in ("model.safetensors", "pytorch_model.bin"):
        index = folder / f"{name}.index.json"
        if index.is_file():
            return _indexed_files(index)
        if (folder / name).is_file():
            return [folder / name]
    hint = "it should hold model.safetensors or pytorch_model.bin, or an index and its shards"
    raise ModelError(f"no weights in {folder}", hint)


def check_path(folder: Path) -> None:
    """Refuse a path that safetensors cannot open, as it takes UTF-8 only."""
    try:
        str(folder).encode()
    except UnicodeEncodeError as error:
        raise ModelError(f"the path {folder} is not UTF-8", "rename the folder") from error


def read_json(path: Path) -> dict[str, Any]:
    try:
        return file_io.read_object(path)
    except FileNotFoundError as error:
        raise ModelError(f"no {path.name} in {path.parent}") from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ModelError(f"{path} is not a valid JSON object: {error}", INCOMPLETE) from error


def _indexed_files(index: Path) -> list[Path]:
    folder, places = index.parent, read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ModelError(f"{index} does not say where the tensors are", INCOMPLETE)
    names = sorted(set(map(str, places.values())))
    if foreign := [name for name in names if Path(name).name != name]:
        raise ModelError(f"{index} names files outside its folder: {some(foreign)}")
    if missing := [name for name in names if not (folder / name).is_file()]:
        message = f"{folder} lacks {len(missing)} of {len(names)} weight files: {some(missing)}"
        raise ModelError(message, INCOMPLETE)
    return [folder / name for name in names]


def some(names: list[str]) -> str:
    """Join the first few of many names, and the number of the others."""
    more = len(names) - _MAX_NAMED
    shown = [name if name.isprintable() else repr(name) for name in names[:_MAX_NAMED]]
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
