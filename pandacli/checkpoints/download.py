"""Download a model into the cache of Hugging Face: resumable, pinned to a commit, verified.

A partial file, which an interruption leaves, enters the cache under its digest once its content has
it. huggingface_hub would delete it, name it by the server's headers, and check only its size.
"""

import os
import re
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha1, sha256
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from pandacli.checkpoints import hub, registry
from pandacli.checkpoints.artifacts import artifacts_folder, cache_digest
from pandacli.checkpoints.registry import KnownModel, PublishedFile, hub_cache
from pandacli.errors import ModelError
from pandacli.file_io import replace_durably
from pandacli.units import size

_CHUNK = 8 * 1024 * 1024  # bytes hashed between two reports of progress
_ATTEMPTS = 5  # without a byte beyond the farthest one
# Of Video-Panda-7B only config.json was seen in both folders, tokenizer_config.json and
# special_tokens_map.json in the pretrained one; the others are expected from its training.
_SMALL = {
    *("config.json", "generation_config.json", "processor_config.json"),
    *("preprocessor_config.json", "tokenizer.model", "tokenizer.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "added_tokens.json"),
}
_WEIGHTS = (  # the first kind that is published is taken
    re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json"),
    # the shards of Video-Panda-7B were seen, their index is expected
    re.compile(r"pytorch_model(-\d{5}-of-\d{5})?\.bin|pytorch_model\.bin\.index\.json"),
)

Advance = Callable[[int], None]  # reports how many bytes more are done


class Progress(Protocol):
    def downloading(self, name: str, total: int, done: int) -> Advance:
        """The download of a file begins or is resumed after `done` of its `total` bytes."""

    def checking(self, name: str, total: int) -> Advance:
        """The comparison of a file with its published digest begins."""

    def replacing(self, name: str) -> None:
        """A file is not what was published and will be downloaded again."""


@dataclass(frozen=True)
class DownloadPlan:
    model: KnownModel
    commit: str
    files: tuple[PublishedFile, ...]  # of the model, small ones first
    missing_bytes: int  # not here yet, neither in whole files nor in partial ones
    folder: Path  # the cache that they go to
    free_bytes: int  # on its disk
    artifact_bytes: int = 0  # of the quantised artifact that is to be made of them

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    @property
    def is_known(self) -> bool:
        """Whether the commit is the one whose files panda knows something of."""
        return self.commit == self.model.known_commit

    @property
    def has_known_weights(self) -> bool | None:
        """Whether the weights are those of the known commit; None where those are not known."""
        return self.model.has_known_weights({f.name: f.sha256 for f in self.files if f.sha256})

    def check_space(self) -> None:
        """Check that the download fits on its disk, and the artifact on its own."""
        name, artifacts, needed = self.model.name, artifacts_folder(), self.missing_bytes
        if self.artifact_bytes and _disk(artifacts) == _disk(self.folder):
            name, needed = f"{name}, with its quantised copy,", needed + self.artifact_bytes
        elif self.artifact_bytes:
            what = f"the quantised copy of {name}"
            _require_space(what, self.artifact_bytes, artifacts, "PANDA_HOME")
        _require_space(name, needed, self.folder, "HF_HOME")


def _require_space(what: str, needed: int, folder: Path, variable: str) -> None:
    free = _free_bytes(folder)
    if needed > free:
        raise ModelError(
            f"{what} needs {size(needed)} more, and {size(free)} are free in {folder}",
            f"free {size(needed - free)}, or set {variable} to a folder on a larger disk",
        )


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(_existing(folder)).free


def _disk(folder: Path) -> int:
    return _existing(folder).stat().st_dev


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


def plan_download(model: KnownModel) -> DownloadPlan:
    """Read the hub's listing of a model, and see which of its files are here already."""
    if hub.is_offline():
        raise ModelError(
            f"{model.name} cannot be downloaded: this is offline mode",
            "leave out --offline, and unset PANDA_OFFLINE and HF_HUB_OFFLINE",
        )
    with hub.hub_errors():
        hub.check_settings()
        listing = hub.read_listing(model)
        commit = str(listing["sha"])
        listed = [_published_file(sibling) for sibling in listing["siblings"]]
        if not registry.COMMIT.fullmatch(commit):
            raise ValueError(f"invalid commit: {commit}")
    files = _choose_files(model, listed)
    missing = sum(file.bytes - _bytes_here(model, commit, file) for file in files)
    plan = DownloadPlan(model, commit, files, missing, hub_cache(), _free_bytes(hub_cache()))
    if plan.is_known and plan.has_known_weights is False:
        digests = {file.name: file.sha256 for file in files}
        name = next(n for n, known in model.known_digests.items() if digests.get(n) != known)
        raise ModelError(
            f"{hub.host()} lists another {name} for commit {commit[:12]} than was published in it",
            "nothing was downloaded; check HF_ENDPOINT, a mirror may have changed the file",
        )
    return plan


def _published_file(sibling: Any) -> PublishedFile:
    lfs = sibling.get("lfs")
    size, digest = (lfs["size"], lfs["sha256"]) if lfs else (sibling["size"], sibling["blobId"])
    return PublishedFile(sibling["rfilename"], size, digest)


def _choose_files(model: KnownModel, listed: Iterable[PublishedFile]) -> tuple[PublishedFile, ...]:
    """What inference needs of the files in a model's folder, small ones first."""
    folder = PurePosixPath(model.subfolder or ".")
    files = {file.name: file for file in listed if PurePosixPath(file.path).parent == folder}
    kinds = [[files[name] for name in sorted(files) if kind.fullmatch(name)] for kind in _WEIGHTS]
    weights = next((kind for kind in kinds if any(file.sha256 for file in kind)), [])
    is_split = len(weights) > 1 and not any(f.name.endswith(".index.json") for f in weights)
    moved = "it may have been moved; a newer panda may know where"
    incomplete = "it may be incomplete; try again later"
    for missing, what, hint in (
        ("config.json" not in files, "config.json", moved),
        (not weights, "weights", moved),
        (is_split, "index of the shards", incomplete),
        ("tokenizer.model" not in files, "tokenizer.model", incomplete),
    ):
        if missing:
            where = f" in {model.subfolder}" if model.subfolder else ""
            raise ModelError(f"the repository {model.repo} holds no {what}{where}", hint)
    small = [files[name] for name in sorted(files.keys() & _SMALL)]
    return (*small, *sorted(weights, key=lambda file: file.bytes))


def _bytes_here(model: KnownModel, commit: str, file: PublishedFile) -> int:
    """How much of a file the cache holds, complete or partial."""
    for path in (registry.snapshot_path(model, commit, file), registry.blob_path(model, file)):
        if path.is_file() and path.stat().st_size == file.bytes:
            return file.bytes
    partial = registry.partial_path(model, file)
    return min(partial.stat().st_size, file.bytes) if partial.is_file() else 0


def download(plan: DownloadPlan, progress: Progress) -> Path:
    """Download the missing files of a plan, and return the checkpoint folder, inside the cache.

    A file with another digest is downloaded again. After an error or a kill the same call resumes.
    """
    plan.check_space()
    pull = registry.Pull(plan.commit, plan.files)
    with hub.hub_errors():
        for file in plan.files:
            if _bytes_here(plan.model, plan.commit, file) < file.bytes:
                hub.check_metadata(plan.model, plan.commit, file)
        registry.record_pull(plan.model, pull, finished=False)
        for file in plan.files:
            with _acquire_lock(plan, file):
                _ensure_blob(plan, file, progress)
                path = _link_snapshot(plan, file)
                if file.sha256:
                    cache_digest(path, file.sha256)
        registry.record_pull(plan.model, pull, finished=True)
    return path.parent


def _acquire_lock(plan: DownloadPlan, file: PublishedFile) -> Any:
    """Exclude another download of the file, by panda or huggingface_hub."""
    from filelock import FileLock, Timeout

    path = hub_cache() / ".locks" / registry.repo_folder(plan.model).name / f"{file.digest}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return FileLock(path).acquire(timeout=1)
    except Timeout as error:
        message = f"{file.name} is being downloaded already"
        raise ModelError(message, "wait until the other download ends") from error


def _ensure_blob(plan: DownloadPlan, file: PublishedFile, progress: Progress) -> None:
    blob, partial = registry.blob_path(plan.model, file), registry.partial_path(plan.model, file)
    snapshot = registry.snapshot_path(plan.model, plan.commit, file)
    if here := next((path for path in (snapshot, blob) if path.exists()), None):
        if _is_published(file, here, progress):
            return
        progress.replacing(file.name)
        blob.unlink(missing_ok=True)
        snapshot.unlink(missing_ok=True)
        for link in (registry.repo_folder(plan.model) / "snapshots").glob(f"*/{file.path}"):
            if not link.exists():  # huggingface_hub fails on a dangling one
                link.unlink()
    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        _fetch(plan, file, partial, progress)
    except hub.InconsistentError:
        partial.unlink()
        raise
    if not _is_published(file, partial, progress):
        partial.unlink()
        raise ModelError(
            f"{file.name} was damaged, and is deleted: its digest is not the published one",
            f"get it again with: {plan.model.download_command}",
        )
    replace_durably(partial, blob)


def _fetch(plan: DownloadPlan, file: PublishedFile, partial: Path, progress: Progress) -> None:
    partial.touch()
    with partial.open("r+b") as target:
        here = target.seek(0, os.SEEK_END)
        if here > file.bytes:
            here = target.truncate(0)
        advance = progress.downloading(file.name, file.bytes, here)
        farthest, failures = here, 0
        while here < file.bytes:
            try:
                for start, chunk in hub.read_file(plan.model, plan.commit, file, here):
                    if start != here:  # the server cannot resume
                        target.truncate(start)
                        advance(start - here)
                    target.seek(start)
                    target.write(chunk)
                    advance(len(chunk))
                    here = start + len(chunk)
                    # only new bytes count: a server that cannot resume sends the first ones again
                    if here > farthest:
                        farthest, failures = here, 0
            except Exception as error:
                failures += 1
                if failures == _ATTEMPTS or not hub.is_temporary(error):
                    raise
                time.sleep(max(1.0, getattr(error, "wait", 0.0)))


def _is_published(file: PublishedFile, path: Path, progress: Progress) -> bool:
    if path.stat().st_size != file.bytes:
        return False
    advance = progress.checking(file.name, file.bytes)
    # git's digest of a small file covers its length too
    digest = sha256() if file.sha256 else sha1(b"blob %d\0" % file.bytes, usedforsecurity=False)
    with path.open("rb") as content:
        while chunk := content.read(_CHUNK):
            digest.update(chunk)
            advance(len(chunk))
    return digest.hexdigest() == file.digest


def _link_snapshot(plan: DownloadPlan, file: PublishedFile) -> Path:
    """Link a file into the folder of its commit, as huggingface_hub does."""
    snapshot = registry.snapshot_path(plan.model, plan.commit, file)
    if snapshot.exists():
        return snapshot
    blob = registry.blob_path(plan.model, file)
    snapshot.parent.mkdir(parents=True, exist_ok=True)
    snapshot.unlink(missing_ok=True)
    try:
        snapshot.symlink_to(os.path.relpath(blob, snapshot.parent))
    except OSError:  # a file system, or a Windows, without links
        blob.replace(snapshot)
    return snapshot
