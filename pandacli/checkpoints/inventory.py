"""What there is of each model on this machine: its checkpoint, its copies, a download under way."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pandacli.checkpoints.artifacts import Artifact, all_artifacts, artifacts_of
from pandacli.checkpoints.digest import drop_digests
from pandacli.checkpoints.hub import is_offline
from pandacli.checkpoints.published import finished_pull, partial_path, unfinished_pull
from pandacli.checkpoints.registry import MODELS, KnownModel, cached_commit
from pandacli.checkpoints.resolve import ResolvedModel, check_files, find_checkpoint, resolve
from pandacli.checkpoints.staging import Leftover, leftovers
from pandacli.errors import ModelError

State = Literal["here", "incomplete", "absent"]


@dataclass(frozen=True)
class ModelState:
    """A model and what is here of it.

    Args:
        name: What `--model` takes: a known name, or a folder.
        known: The entry of the catalogue; None for a folder.
        checkpoint: Where the checkpoint lies; None where nothing is here but copies.
        state: Whether the checkpoint is here, whole.
        commit: The commit of the repository that it is from, where that is known.
        bytes: What the checkpoint takes on the disk, or would after a download.
        partial_bytes: What an interrupted download has left.
        copies: The quantised copies that were made from it.
        remains: What is left of copies of it that were not finished, or are damaged.
    """

    name: str
    known: KnownModel | None
    checkpoint: ResolvedModel | None
    state: State
    commit: str | None
    bytes: int
    partial_bytes: int
    artifacts: tuple[Artifact, ...]
    leftovers: tuple[Leftover, ...]

    @property
    def has_known_commit(self) -> bool | None:
        """Whether its commit is one whose digests panda knows; None where there is no commit."""
        return self.commit == self.known.known_commit if self.known and self.commit else None

    @property
    def licence(self) -> str:
        """What is known of the terms of the weights."""
        return self.known.licence if self.known else "as of the folder"

    @property
    def leftover_bytes(self) -> int:
        """What the remains of copies take on the disk."""
        return sum(left.bytes for left in self.leftovers)


def inventory() -> list[ModelState]:
    """Every known model, and every folder that a copy was made from, or begun."""
    folders = sorted(_named_by_copies() - MODELS.keys())
    return [model_state(model) for model in MODELS.values()] + [_folder_state(f) for f in folders]


def find_model(name: str | os.PathLike[str]) -> ModelState:
    """What is here of one model, which may be none.

    Args:
        name: A name of `MODELS`, or the path of a checkpoint folder.

    Raises:
        ModelError: There is no such model or folder.
    """
    if isinstance(name, str) and name in MODELS:
        return model_state(MODELS[name])
    written = os.fspath(name)
    copied = _named_by_copies() & {written, str(Path(written).resolve())}
    return _folder_state(copied.pop() if copied else resolve(name).name)


def model_state(model: KnownModel) -> ModelState:
    """What is here of a known model."""
    found = _located(model)
    return ModelState(
        model.name,
        model,
        found,
        _state(found),
        cached_commit(found.folder) if found and found.kind == "cache" else None,
        folder_bytes(found.folder) if found else model.download_bytes,
        _partial_bytes(model),
        _copies(model.name),
        _leftovers(model.name),
    )


def is_available(model: KnownModel) -> bool:
    """Whether a known model can be used as it is: the checkpoint is whole, or there is a copy."""
    return _state(find_checkpoint(model)) == "here" or bool(artifacts_of(model.name))


def needs_hub(model: KnownModel) -> bool:
    """Whether pulling a model means asking the hub, to get it or to see if it is the newest.

    What a person has put under `PANDA_HOME` is used as it is, and so is, offline, what is here.
    """
    found = find_checkpoint(model)
    if model.repo is None or (found and found.kind == "home"):
        return False
    return not (is_offline() and is_available(model))


def standalone_artifacts(model: KnownModel, commit: str) -> list[Artifact]:
    """The copies that were made of a commit of a known model, where they are all that is left."""
    if _state(find_checkpoint(model)) == "here":
        return []
    return [copy for copy in _copies(model.name) if copy.commit == commit]


def artifact_bytes_missing(model: KnownModel, commit: str, form: str, whole: int) -> int:
    """What the copy in a form of a commit has still to take of `whole` bytes."""
    made = (copy for copy in _copies(model.name) if (copy.commit, copy.form) == (commit, form))
    begun = sum(left.bytes for left in _leftovers(model.name) if left.form == form)
    return 0 if any(made) else max(0, whole - begun)


def folder_bytes(folder: Path) -> int:
    """What the files in a folder take, those that links lead to included.

    Where the folder cannot be looked at, as on a disk that is gone, that is nothing.
    """
    try:
        return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    except OSError:
        return 0


def invalidate_digests(name: str) -> None:
    """Have the next use of a model read its files, and those of its copies, and compare them with
    their digests, whatever was found before.

    Raises:
        ModelError: There is no such model or folder.
    """
    state = find_model(name)
    folders = [copy.folder for copy in state.artifacts]
    drop_digests([*folders, state.checkpoint.folder] if state.checkpoint else folders)


def digests(state: ModelState) -> dict[str, str]:
    """The sha256 of the files of a model, by name, where a download has checked them."""
    pull = finished_pull(state.known) if state.known else None
    if pull is None or pull.commit != state.commit:
        return {}
    return {file.name: file.sha256 for file in pull.files if file.sha256}


def _folder_state(name: str) -> ModelState:
    folder = Path(os.path.expanduser(name))  # noqa: PTH111  (leaves an unknown ~user alone)
    found = ResolvedModel(name, folder, "folder") if _is_folder(folder) else None
    size = folder_bytes(folder) if found else 0
    state = _state(found)
    return ModelState(name, None, found, state, None, size, 0, _copies(name), _leftovers(name))


def _located(model: KnownModel) -> ResolvedModel | None:
    """As `locate`, for a list that one place that cannot be looked at must not end."""
    try:
        return find_checkpoint(model)
    except ModelError:
        return None


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def _named_by_copies() -> set[str]:
    """The models that copies, or what is left of some, were made from."""
    return {copy.model for copy in all_artifacts()} | {
        left.model for left in leftovers() if left.model
    }


def _copies(name: str) -> tuple[Artifact, ...]:
    return tuple(copy for copy in all_artifacts() if copy.model == name)


def _leftovers(name: str) -> tuple[Leftover, ...]:
    return tuple(left for left in leftovers() if left.model == name)


def _state(found: ResolvedModel | None) -> State:
    if found is None:
        return "absent"
    try:
        check_files(found)
    except (ModelError, OSError):
        return "incomplete"
    return "here"


def _partial_bytes(model: KnownModel) -> int:
    begun = unfinished_pull(model)
    partials = [partial_path(model, file) for file in begun.files] if begun else []
    return sum(path.stat().st_size for path in partials if path.is_file())
