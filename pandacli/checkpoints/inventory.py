"""What this machine holds of each model, and how to remove it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pandacli.checkpoints import artifacts, registry, staging
from pandacli.checkpoints.artifacts import Artifact, all_artifacts
from pandacli.checkpoints.hub import is_offline
from pandacli.checkpoints.registry import MODELS, KnownModel, partial_files, read_pull
from pandacli.checkpoints.resolve import ResolvedModel, check_files, find_checkpoint, resolve
from pandacli.checkpoints.staging import Leftover
from pandacli.errors import ModelError, UsageError

if TYPE_CHECKING:
    from huggingface_hub import CachedFileInfo, HFCacheInfo

State = Literal["here", "incomplete", "absent"]


@dataclass(frozen=True)
class ModelState:
    name: str  # what `--model` takes: a known name, or a folder
    known: KnownModel | None  # None for a folder
    checkpoint: ResolvedModel | None
    state: State  # of the checkpoint
    commit: str | None  # of the repository that it is from, if known
    bytes: int  # of the checkpoint, or of a download
    partial_bytes: int  # of the files of an interrupted download
    artifacts: tuple[Artifact, ...]
    leftovers: tuple[Leftover, ...]

    @property
    def has_known_commit(self) -> bool | None:
        """Whether panda knows the digests of its commit; None where there is no commit."""
        return self.commit == self.known.known_commit if self.known and self.commit else None

    @property
    def licence(self) -> str:
        return self.known.licence if self.known else "as of the folder"

    @property
    def leftover_bytes(self) -> int:
        return sum(leftover.bytes for leftover in self.leftovers)


@dataclass(frozen=True)
class Removal:
    model: ModelState
    artifacts: tuple[Artifact, ...]
    leftovers: tuple[Leftover, ...]
    download: bool  # with the files of an interrupted one
    bytes: int  # that are freed


def inventory() -> list[ModelState]:
    """Every known model, and every folder that an artifact was made from or begun for."""
    names = (*MODELS, *sorted(_models_of_artifacts() - MODELS.keys()))
    return [_model_state(name, MODELS.get(name)) for name in names]


def find_model(name: str) -> ModelState:
    """What this machine holds of a model of `MODELS` or a checkpoint folder; maybe nothing."""
    if known := MODELS.get(name):
        return _model_state(name, known)
    converted = _models_of_artifacts() & {name, str(Path(name).resolve())}
    return _model_state(converted.pop() if converted else resolve(name).name, None)


def is_available(model: KnownModel) -> bool:
    """Whether a known model can be used without a download, by its checkpoint or an artifact."""
    return _state(find_checkpoint(model)) == "here" or bool(artifacts.artifacts_of(model.name))


def needs_hub(model: KnownModel) -> bool:
    """Whether pulling a model uses the network, to get it or to look for a newer commit."""
    found = find_checkpoint(model)
    if model.repo is None or (found and found.kind == "home"):
        return False  # files that a user has put under `PANDA_HOME` are used as they are
    return not (is_offline() and is_available(model))


def standalone_artifacts(model: KnownModel, commit: str) -> list[Artifact]:
    """The artifacts of a commit of a known model, where the checkpoint itself is not here."""
    if _state(find_checkpoint(model)) == "here":
        return []
    return [artifact for artifact in _artifacts(model.name) if artifact.commit == commit]


def artifact_bytes_missing(model: KnownModel, commit: str, form: str, whole: int) -> int:
    """How many of the `whole` bytes of the artifact of a commit in a form are not here yet."""
    if any((a.commit, a.form) == (commit, form) for a in _artifacts(model.name)):
        return 0
    begun = sum(left.bytes for left in _leftovers(model.name) if left.form == form)
    return max(0, whole - begun)


def invalidate_digests(name: str) -> None:
    """Let the next use of a model read all of its files and compare them with their digests."""
    state = find_model(name)
    folders = [artifact.folder for artifact in state.artifacts]
    artifacts.drop_digests([*folders, state.checkpoint.folder] if state.checkpoint else folders)


def published_digests(state: ModelState) -> dict[str, str]:
    """The sha256 of the files of a model, by name, where a download has checked them."""
    pull = read_pull(state.known) if state.known else None
    if pull is None or pull.commit != state.commit:
        return {}
    return {file.name: file.sha256 for file in pull.files if file.sha256}


def _model_state(name: str, known: KnownModel | None) -> ModelState:
    folder = registry.expand_user(name)
    try:
        mine = ResolvedModel(name, folder, "folder") if not known and folder.is_dir() else None
        found = find_checkpoint(known) if known else mine
    except (ModelError, OSError):  # one unreadable place must not end a list
        found = None
    return ModelState(
        name=name,
        known=known,
        checkpoint=found,
        state=_state(found),
        commit=registry.cached_commit(found.folder) if found and found.kind == "cache" else None,
        bytes=_folder_bytes(found.folder) if found else known.download_bytes if known else 0,
        partial_bytes=sum(path.stat().st_size for path in partial_files(known)) if known else 0,
        artifacts=_artifacts(name),
        leftovers=_leftovers(name),
    )


def _state(found: ResolvedModel | None) -> State:
    if found is None:
        return "absent"
    try:
        check_files(found)
        return "here"
    except (ModelError, OSError):
        return "incomplete"


def _folder_bytes(folder: Path) -> int:
    try:
        return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    except OSError:
        return 0


def _models_of_artifacts() -> set[str]:
    models = {left.model for left in staging.leftovers() if left.model}
    return models | {artifact.model for artifact in all_artifacts()}


def _artifacts(name: str) -> tuple[Artifact, ...]:
    return tuple(artifact for artifact in all_artifacts() if artifact.model == name)


def _leftovers(name: str) -> tuple[Leftover, ...]:
    return tuple(leftover for leftover in staging.leftovers() if leftover.model == name)


def plan_removal(name: str, quant: str | None = None) -> Removal:
    """Find what can be removed of a model: a name of `MODELS`, or the folder of a checkpoint.

    `quant` limits it to the artifacts of "8bit" or "4bit", or to the download ("none").
    """
    model = find_model(name)
    copies = tuple(artifact for artifact in model.artifacts if quant in (None, artifact.quant))
    left = tuple(leftover for leftover in model.leftovers if quant in (None, leftover.quant))
    downloaded = _downloaded_bytes(model) if quant in (None, "none") else 0
    if copies or left or downloaded:
        freed = downloaded + sum(copy.bytes for copy in copies) + sum(part.bytes for part in left)
        return Removal(model, copies, left, downloaded > 0, freed)
    if quant in ("4bit", "8bit"):
        raise ModelError(f"there is no {quant} copy of {name} on this machine")
    if model.checkpoint is None:
        raise ModelError(f"{name} is not on this machine")
    if model.checkpoint.kind == "bundled":
        raise UsageError(f"{name} ships with panda and cannot be removed")
    raise UsageError(
        f"{model.checkpoint.folder} is not from panda, and stays",
        "panda removes downloads and what it made of them; delete this folder yourself",
    )


def remove(removal: Removal) -> None:
    with registry.os_errors("remove", removal.model.name):
        for artifact in removal.artifacts:
            artifacts.remove_folder(artifact.folder)
        for leftover in removal.leftovers:
            staging.remove_leftover(leftover)
        if removal.download and removal.model.known:
            remove_download(removal.model.known)


def remove_download(model: KnownModel) -> None:
    """Delete the files of a model, and no others, from the cache of Hugging Face."""
    for path in partial_files(model):
        path.unlink()
    scanned = _scan_cache()
    if scanned and (files := list(_cached_files(model, scanned))):
        scanned.delete_files(*files).execute()
        scanned = _scan_cache()
        repos = [r for r in scanned.repos if r.repo_id == model.repo] if scanned else []
        empty = [r.commit_hash for repo in repos for r in repo.revisions if not r.files]
        if scanned and empty:
            scanned.delete_revisions(*empty).execute()
    registry.remove_pull_records(model)


def _downloaded_bytes(model: ModelState) -> int:
    if model.known is None or model.known.repo is None:
        return 0
    files = _cached_files(model.known, _scan_cache())
    blobs = {file.blob_path: file.size_on_disk for file in files}
    return sum(blobs.values()) + model.partial_bytes


def _scan_cache() -> "HFCacheInfo | None":
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        return scan_cache_dir(registry.hub_cache())
    except (CacheNotFound, ValueError):
        return None


def _cached_files(model: KnownModel, scanned: "HFCacheInfo | None") -> "Iterator[CachedFileInfo]":
    for repo in scanned.repos if scanned else ():
        if repo.repo_type == "model" and repo.repo_id == model.repo:
            for revision in repo.revisions:
                folder = revision.snapshot_path / (model.subfolder or "")
                yield from (file for file in revision.files if folder in file.file_path.parents)
