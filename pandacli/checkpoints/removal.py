"""Taking a model off this machine: its copies, and its files in the cache of Hugging Face."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pandacli.checkpoints.artifacts import Artifact, remove_artifact
from pandacli.checkpoints.hub import cache
from pandacli.checkpoints.inventory import ModelState, find_model
from pandacli.checkpoints.published import forget_pulls, partial_path, unfinished_pull
from pandacli.checkpoints.registry import KnownModel
from pandacli.checkpoints.staging import Leftover, remove_leftover
from pandacli.errors import ModelError, UsageError

if TYPE_CHECKING:
    from huggingface_hub import CachedFileInfo, HFCacheInfo


@dataclass(frozen=True)
class Removal:
    """What would be deleted.

    Args:
        model: The model, as it is here.
        copies: Quantised copies.
        remains: What is left of copies that were not finished, or are damaged.
        download: Whether the download goes, and what an interrupted one has left.
        bytes: What that frees on the disk.
    """

    model: ModelState
    artifacts: tuple[Artifact, ...]
    leftovers: tuple[Leftover, ...]
    download: bool
    bytes: int


def plan_removal(name: str, quant: str | None = None) -> Removal:
    """Look at what can be removed of a model.

    Args:
        name: A name of `MODELS`, or the folder that copies were made from.
        quant: "8bit" or "4bit" for the copies of that kind alone, finished or not, "none" for the
            download alone; None for all of it.

    Raises:
        ModelError: There is no such model, or nothing of it here.
        UsageError: It is a folder of the user's, or a part of panda.
    """
    model = find_model(name)
    copies = [copy for copy in model.artifacts if quant in (None, copy.quant)]
    left = [remains for remains in model.leftovers if quant in (None, remains.quant)]
    freed = sum(copy.bytes for copy in copies) + sum(remains.bytes for remains in left)
    downloaded = _downloaded_bytes(model) if quant in (None, "none") else 0
    if copies or left or downloaded:
        return Removal(model, tuple(copies), tuple(left), downloaded > 0, freed + downloaded)
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
    """Delete what was planned: copies first, then the download.

    Raises:
        ModelError: A file cannot be deleted.
    """
    try:
        for copy in removal.artifacts:
            remove_artifact(copy)
        for left in removal.leftovers:
            remove_leftover(left)
        if removal.download and removal.model.known:
            remove_download(removal.model.known)
    except OSError as error:
        raise ModelError(f"cannot delete {error.filename}: {error.strerror}") from error


def remove_download(model: KnownModel) -> None:
    """Delete the files of a model from the cache of Hugging Face; other models of its repository
    stay.
    """
    for path in _partials(model):
        path.unlink()
    scanned = _scan()
    if scanned and (files := list(_cached_files(model, scanned))):
        scanned.delete_files(*files).execute()
        _remove_empty_commits(model)
    forget_pulls(model)


def _downloaded_bytes(model: ModelState) -> int:
    if model.known is None or model.known.repo is None:
        return 0
    scanned = _scan()
    files = _cached_files(model.known, scanned) if scanned else ()
    blobs = {file.blob_path: file.size_on_disk for file in files}
    return sum(blobs.values()) + model.partial_bytes


def _scan() -> "HFCacheInfo | None":
    """What the cache of Hugging Face holds; None if there is none."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        return scan_cache_dir(cache())
    except (CacheNotFound, ValueError):
        return None


def _cached_files(model: KnownModel, scanned: "HFCacheInfo") -> "Iterator[CachedFileInfo]":
    """The files of the model, at whatever commit."""
    for repo in scanned.repos:
        if repo.repo_type == "model" and repo.repo_id == model.repo:
            for revision in repo.revisions:
                folder = revision.snapshot_path / (model.subfolder or "")
                yield from (file for file in revision.files if folder in file.file_path.parents)


def _remove_empty_commits(model: KnownModel) -> None:
    """Deletes what is left of commits of which nothing else was downloaded."""
    scanned = _scan()
    if scanned is None:
        return
    revisions = [r for repo in scanned.repos if repo.repo_id == model.repo for r in repo.revisions]
    empty = [revision.commit_hash for revision in revisions if not revision.files]
    if empty:
        scanned.delete_revisions(*empty).execute()


def _partials(model: KnownModel) -> list[Path]:
    begun = unfinished_pull(model)
    paths = [partial_path(model, file) for file in begun.files] if begun else []
    return [path for path in paths if path.is_file()]
