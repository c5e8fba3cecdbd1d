"""From the name of a model to the checked folder that holds it, its sizes and its digest."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from pandacli.checkpoint_files import MODEL_TYPES, check_path, read_json, weight_files
from pandacli.checkpoints import registry
from pandacli.checkpoints.artifacts import artifacts_of, hash_checkpoint, read_artifact
from pandacli.checkpoints.registry import MODELS, KnownModel, Pull, os_errors, read_pull
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
_PUBLISHED_IMAGE_SIZE = 448  # of the published models, whose configurations do not state it
_MAX_IMAGE_SIZE = 2048

# shipped with panda, under `PANDA_HOME`, in the Hugging Face cache, only as an artifact, or a path
Kind = Literal["bundled", "home", "cache", "artifact", "folder"]


@dataclass(frozen=True)
class ResolvedModel:
    name: str  # a known model's name, or the folder as it was given
    folder: Path
    kind: Kind


class DamagedError(ModelError):
    """A file of a model has changed since it was pulled."""


def resolve(model: str | os.PathLike[str]) -> ResolvedModel:
    """Find a model of `MODELS`, or a checkpoint folder, without torch and without the network.

    A known name wins over a folder of the same name; write `./name` for the folder.
    """
    known = MODELS.get(model) if isinstance(model, str) else None
    with os_errors("read", os.fspath(model)):
        return _resolve_known(known) if known else _resolve_folder(model)


def _resolve_known(model: KnownModel) -> ResolvedModel:
    if model.repo is None:
        hint = "install pandacli again"
        missing = ModelError(f"{model.name} is missing from this installation of panda", hint)
    else:
        hint = f"get the rest with: {model.download_command}"
        missing = ModelError(
            f"{model.name} is not on this machine",
            "try panda without it: --model tiny; or put its files in "
            f"{registry.home_folder(model)}; or get it with:",
            command=model.download_command,
        )
    if found := find_checkpoint(model):
        try:
            check_files(found, hint)
            return found
        except ModelError as error:
            missing = error
    if artifacts := artifacts_of(model.name):
        return ResolvedModel(model.name, artifacts[0].folder, "artifact")
    raise missing


def _resolve_folder(model: str | os.PathLike[str]) -> ResolvedModel:
    written = os.fspath(model)
    folder = registry.expand_user(written)
    is_path = not isinstance(model, str) or model.startswith((".", "~")) or os.sep in model
    if not written or not (folder.exists() or is_path):
        close = get_close_matches(written.lower(), MODELS, n=1)
        models = f"the models are {', '.join(MODELS)}, or a folder"
        hint = f"did you mean {close[0]}?" if close else models
        raise ModelError(f"no model is called '{written}'", hint)
    check_checkpoint(folder)
    return ResolvedModel(written, folder.resolve(), "folder")


def find_checkpoint(model: KnownModel) -> ResolvedModel | None:
    """The checkpoint of a known model on this machine, complete or not."""
    with os_errors("read", model.name):
        if model.repo is None:
            bundled = registry.bundled_checkpoint(model)
            return ResolvedModel(model.name, bundled, "bundled") if bundled.is_dir() else None
        if folder := registry.home_checkpoint(model):
            return ResolvedModel(model.name, folder, "home")
        pulled, begun = read_pull(model), read_pull(model, finished=False)
        cached = (
            (pulled and registry.cached_checkpoint(model, pulled.commit))
            or registry.cached_checkpoint(model)  # downloaded by another program
            or (begun and registry.cached_checkpoint(model, begun.commit))
        )
        return ResolvedModel(model.name, cached, "cache") if cached else None


def check_files(found: ResolvedModel, incomplete_hint: str | None = None) -> None:
    """As `check_checkpoint`; the files of a pulled model must also have their published size."""
    if pull := _pull_of(found):
        for file in pull.files:
            path = found.folder / file.name
            if path.is_file() and path.stat().st_size != file.bytes:
                message = f"{path} is damaged: it should have {file.bytes:,} bytes"
                raise ModelError(message, _repair_hint(found))
    check_checkpoint(found.folder, incomplete_hint)


def check_checkpoint(folder: Path, incomplete_hint: str | None = None) -> None:
    """Check by its small files that a folder is a complete Video-Panda; may raise an OSError."""
    check_path(folder)
    if not folder.exists():
        raise ModelError(f"no folder {folder}")
    if not folder.is_dir():
        hint = "give the folder that holds config.json and the weights"
        raise ModelError(f"{folder} is a file, not a checkpoint folder", hint)
    config = folder / "config.json"
    if not config.is_file():
        inner = min((child.parent for child in folder.glob("*/config.json")), default=None)
        message = f"{folder} is not a checkpoint folder: it holds no config.json"
        raise ModelError(message, f"did you mean {inner}?" if inner else None)
    kind = read_json(config).get("model_type")
    if kind not in MODEL_TYPES:
        named = f"of type '{kind}'" if isinstance(kind, str) else "of no named type"
        raise ModelError(f"{folder} holds a model {named}, not a Video-Panda")
    try:
        weight_files(folder)
        if not (folder / "tokenizer.model").is_file():
            raise ModelError(f"no tokenizer.model in {folder}")
    except ModelError as error:
        message = f"the checkpoint is incomplete: {error.message}"
        raise ModelError(message, incomplete_hint or error.hint) from error


def model_digest(resolved: ResolvedModel) -> str:
    """The sha256 of the checkpoint that a model is, or that its artifact was made from."""
    if resolved.kind == "artifact":
        return read_artifact(resolved.folder).digest
    return checkpoint_digests(resolved)[0]


def checkpoint_digests(resolved: ResolvedModel) -> tuple[str, dict[str, str]]:
    """The sha256 of a checkpoint, and of each file; DamagedError if a pulled file has changed."""
    with os_errors("read", resolved.folder):
        digest, files = hash_checkpoint(resolved.folder, weight_files(resolved.folder))
    if pull := _pull_of(resolved):
        for file in pull.files:
            if file.sha256 and files.get(file.name, file.sha256) != file.sha256:
                path = resolved.folder / file.name
                message = f"{path} is damaged: its sha256 is another than when it was pulled"
                raise DamagedError(message, _repair_hint(resolved))
    return digest, files


def _repair_hint(found: ResolvedModel) -> str:
    return f"repair it with: {MODELS[found.name].download_command}"


def _pull_of(found: ResolvedModel) -> Pull | None:
    if found.kind != "cache" or found.name not in MODELS:
        return None
    pull = read_pull(MODELS[found.name])
    return pull if pull and pull.commit == registry.cached_commit(found.folder) else None


@dataclass(frozen=True)
class CheckpointInfo:
    sizes: dict[str, int]  # that its configuration names
    parameters: int | None  # None where nothing tells
    exact: bool  # counted, not derived from the size of the files
    files: dict[str, int]  # bytes by name


def describe_checkpoint(folder: Path) -> CheckpointInfo:
    with _damage(f"a file in {folder}"):
        config = read_object(folder / "config.json")
        files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
        weights = [path for path in sorted(folder.glob("*.safetensors")) if path.is_file()]
        counts = list(map(_count_parameters, weights))
        values = {name: config.get(key) for key, name in _CONFIG.items()}
    sizes = {name: value for name, value in values.items() if isinstance(value, int)}
    count = sum(counts) if counts else _estimate_parameters(config, files)
    return CheckpointInfo(sizes, count, bool(counts), files)


def read_image_size(folder: Path) -> int:
    """The side, in pixels, of the square frames that the model in a folder takes."""
    path = folder / "config.json"
    with _damage(path):
        side = read_object(path).get("image_size", _PUBLISHED_IMAGE_SIZE)
        if not isinstance(side, int) or not 1 < side <= _MAX_IMAGE_SIZE:
            raise ValueError("invalid image_size")
    return side


@contextmanager
def _damage(what: object) -> Iterator[None]:
    try:
        with os_errors("read", what):
            yield
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(f"{what} is damaged", "get the model again") from error


def _count_parameters(path: Path) -> int:
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
    width = _DTYPE_BYTES.get(str(config.get("dtype") or config.get("torch_dtype")))
    weights = [size for name, size in files.items() if name.endswith(".bin")]
    return sum(weights) // width if width and weights else None
