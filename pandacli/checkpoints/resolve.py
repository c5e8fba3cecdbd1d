"""From what a person calls a model to the folder that holds it.

A light look at a checkpoint folder: whether it is one, a whole one, and a Video-Panda.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from pandacli.checkpoint_files import MODEL_TYPES, check_path, read_json, weight_files
from pandacli.checkpoints.artifacts import artifacts_of
from pandacli.checkpoints.published import finished_pull, unfinished_pull
from pandacli.checkpoints.registry import (
    MODELS,
    KnownModel,
    bundled_checkpoint,
    cached_checkpoint,
    cached_commit,
    home_checkpoint,
    home_folder,
)
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


Kind = Literal["bundled", "home", "cache", "artifact", "folder"]


@dataclass(frozen=True)
class ResolvedModel:
    """A model whose files are on this machine.

    Args:
        name: A known model's name, or the folder as it was given.
        folder: The checkpoint folder.
        kind: How it was found: shipped with panda, under `PANDA_HOME`, in the Hugging Face cache,
            only as a quantised copy, or given as a folder.
    """

    name: str
    folder: Path
    kind: Kind


def resolve(model: str | os.PathLike[str]) -> ResolvedModel:
    """Find a model on this machine, without torch and without the network.

    Args:
        model: A name of `MODELS`, or the path of a checkpoint folder. A known name wins over a
            folder of the same name; write `./name` for the folder.

    Raises:
        ModelError: There is no such model, it is not on this machine, or its files are not whole.
    """
    known = MODELS.get(model) if isinstance(model, str) else None
    with _reading(os.fspath(model)):
        return _resolve_known(known) if known else _resolve_folder(model)


def find_checkpoint(model: KnownModel) -> ResolvedModel | None:
    """Where a known model lies on this machine, whole or not; None where nothing of it is.

    Raises:
        ModelError: A place where it may be cannot be looked at.
    """
    with _reading(model.name):
        if model.repo is None:
            bundled = bundled_checkpoint(model)
            return ResolvedModel(model.name, bundled, "bundled") if bundled.is_dir() else None
        if folder := home_checkpoint(model):
            return ResolvedModel(model.name, folder, "home")
        if folder := _pulled_or_cached(model):
            return ResolvedModel(model.name, folder, "cache")
        return None


def check_files(found: ResolvedModel, ways_on: str | None = None) -> None:
    """As `check_checkpoint`; what `panda pull` has brought must also still have its size.

    Raises:
        ModelError: A file is missing, or not what it should be.
        OSError: A file may not be read.
    """
    known = MODELS.get(found.name) if found.kind == "cache" else None
    pulled = finished_pull(known) if known else None
    if known and pulled and pulled.commit == cached_commit(found.folder):
        for file in pulled.files:
            path = found.folder / file.name
            if path.is_file() and path.stat().st_size != file.bytes:
                raise ModelError(
                    f"{path} is damaged: it should have {file.bytes:,} bytes",
                    f"mend it with: {known.download_command}",
                )
    check_checkpoint(found.folder, ways_on)


@contextmanager
def _reading(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ModelError(f"cannot read {error.filename or what}: {error.strerror}") from error


def _resolve_known(model: KnownModel) -> ResolvedModel:
    found = find_checkpoint(model)
    if model.repo is None:
        again = "install pandacli again"
        missing = ModelError(f"{model.name} is missing from this installation of panda", again)
    else:
        again = f"get the rest with: {model.download_command}"
        missing = ModelError(
            f"{model.name} is not on this machine",
            f"try panda without it: --model tiny; or put its files in {home_folder(model)};"
            " or get it with:",
            command=model.download_command,
        )
    if found:
        flaw = _flaw(found, again)
        if flaw is None:
            return found
        missing = flaw
    if copies := artifacts_of(model.name):
        return ResolvedModel(model.name, copies[0].folder, "artifact")
    raise missing


def _flaw(found: ResolvedModel, ways_on: str) -> ModelError | None:
    """What is wrong with a checkpoint folder, if anything."""
    try:
        check_files(found, ways_on)
    except ModelError as error:
        return error
    return None


def _pulled_or_cached(model: KnownModel) -> Path | None:
    """What panda pulled; else what another program downloaded; else what a pull has begun."""
    pulled, begun = finished_pull(model), unfinished_pull(model)
    return (
        (pulled and cached_checkpoint(model, pulled.commit))
        or cached_checkpoint(model)
        or (begun and cached_checkpoint(model, begun.commit))
        or None
    )


def _resolve_folder(model: str | os.PathLike[str]) -> ResolvedModel:
    written = os.fspath(model)
    folder = Path(os.path.expanduser(written))  # noqa: PTH111  (leaves an unknown ~user alone)
    if not written or not (folder.exists() or _looks_like_path(model)):
        raise _unknown(written)
    check_checkpoint(folder)
    return ResolvedModel(written, folder.resolve(), "folder")


def _looks_like_path(model: str | os.PathLike[str]) -> bool:
    return not isinstance(model, str) or model.startswith((".", "~")) or os.sep in model


def _unknown(name: str) -> ModelError:
    close = get_close_matches(name.lower(), MODELS, n=1)
    known = ", ".join(MODELS)
    hint = f"did you mean {close[0]}?" if close else f"the models are {known}, or a folder"
    return ModelError(f"no model is called '{name}'", hint)
