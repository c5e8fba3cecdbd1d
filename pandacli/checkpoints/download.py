"""Download a model into the cache of Hugging Face: resumable, pinned to a commit, verified.

A file is fetched into a partial file, which an interruption leaves for the next attempt, and enters
the cache under its digest once its content has that digest. huggingface_hub's own download would
delete the partial file, name the file by the server's headers, and check nothing but its size.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha1, sha256
from pathlib import Path
from typing import Protocol

from pandacli.checkpoints.digest import cache_digest
from pandacli.checkpoints.hub import (
    InconsistentError,
    check_offer,
    hub_errors,
    is_temporary,
    read_file,
)
from pandacli.checkpoints.published import DownloadPlan
from pandacli.checkpoints.pulls import (
    PublishedFile,
    Pull,
    blob_path,
    bytes_here,
    partial_path,
    record_begun_pull,
    record_finished_pull,
    repo_folder,
    snapshot_path,
)
from pandacli.checkpoints.registry import hub_cache
from pandacli.errors import ModelError
from pandacli.file_io import replace_durably

_CHUNK = 8 * 1024 * 1024  # bytes hashed between two reports of progress
_ATTEMPTS = 5  # without a byte beyond the farthest one

Advance = Callable[[int], None]
"""Reports how many bytes more are done."""


class Progress(Protocol):
    """Receives the progress of a download."""

    def downloading(self, name: str, total: int, done: int) -> Advance:
        """The download of a file begins or is resumed after `done` of its `total` bytes."""

    def checking(self, name: str, total: int) -> Advance:
        """The comparison of a file with its published digest begins."""

    def replacing(self, name: str) -> None:
        """A file is not what was published and will be downloaded again."""


@dataclass(frozen=True)
class Downloaded:
    """A model whose files are all here and verified.

    Args:
        folder: The checkpoint folder, inside the cache.
        commit: The commit that the files are from.
        bytes: The size of all files.
    """

    folder: Path
    commit: str
    bytes: int


def download(plan: DownloadPlan, progress: Progress) -> Downloaded:
    """Download the files of a plan that are not here yet, and verify all of them.

    Every file is compared with its digest, whether it was here before or not, and downloaded again
    if it differs. After an error, Ctrl-C or a kill the same call continues where it stopped.

    Raises:
        ModelError: There is too little space, the connection fails, or a file is not what was
            published.
    """
    plan.check_room()
    pull = Pull(plan.commit, plan.files)
    with hub_errors():
        for file in plan.files:
            if bytes_here(plan.model, plan.commit, file) < file.bytes:
                check_offer(plan.model, plan.commit, file.path, file.bytes, file.digest)
        record_begun_pull(plan.model, pull)
        for file in plan.files:
            with _lock(plan, file):
                _ensure_blob(plan, file, progress)
                path = _link_snapshot(plan, file)
                if file.sha256:
                    cache_digest(path, file.sha256)
        record_finished_pull(plan.model, pull)
    return Downloaded(path.parent, plan.commit, plan.bytes)


@contextmanager
def _lock(plan: DownloadPlan, file: PublishedFile) -> Iterator[None]:
    """Exclude another download of the file, by panda or huggingface_hub."""
    from filelock import Timeout
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

    path = hub_cache() / ".locks" / repo_folder(plan.model).name / f"{file.digest}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    blob_path(plan.model, file).parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(WeakFileLock(path, timeout=1))
        except Timeout as error:
            raise ModelError(
                f"{file.name} is being downloaded already", "wait until the other download ends"
            ) from error
        yield


def _ensure_blob(plan: DownloadPlan, file: PublishedFile, progress: Progress) -> None:
    """Leave the verified content of a file in the cache."""
    blob = blob_path(plan.model, file)
    snapshot = snapshot_path(plan.model, plan.commit, file)
    if here := next((path for path in (snapshot, blob) if path.exists()), None):
        if _is_published(file, here, progress):
            return
        progress.replacing(file.name)
        _delete(plan, file)
    partial = partial_path(plan.model, file)
    try:
        _fetch(plan, file, partial, progress)
    except InconsistentError:
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
    """Append what a partial file lacks."""
    partial.touch()
    with partial.open("r+b") as target:
        here = target.seek(0, os.SEEK_END)
        if here > file.bytes:
            here = target.truncate(0)
        advance = progress.downloading(file.name, file.bytes, here)
        farthest, failures = here, 0
        while here < file.bytes:
            try:
                for start, chunk in read_file(plan.model, plan.commit, file.path, here, file.bytes):
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
                if failures == _ATTEMPTS or not is_temporary(error):
                    raise
                time.sleep(max(1.0, getattr(error, "wait", 0.0)))


def _is_published(file: PublishedFile, path: Path, progress: Progress) -> bool:
    """Whether a file has the published size and digest."""
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


def _delete(plan: DownloadPlan, file: PublishedFile) -> None:
    """Delete a file and the links to it: huggingface_hub fails on a dangling one."""
    blob_path(plan.model, file).unlink(missing_ok=True)
    snapshot_path(plan.model, plan.commit, file).unlink(missing_ok=True)
    for link in (repo_folder(plan.model) / "snapshots").glob(f"*/{file.path}"):
        if not link.exists():
            link.unlink()


def _link_snapshot(plan: DownloadPlan, file: PublishedFile) -> Path:
    """Link a file into the folder of its commit, as huggingface_hub does."""
    snapshot = snapshot_path(plan.model, plan.commit, file)
    if snapshot.exists():
        return snapshot
    blob = blob_path(plan.model, file)
    snapshot.parent.mkdir(parents=True, exist_ok=True)
    snapshot.unlink(missing_ok=True)
    try:
        snapshot.symlink_to(os.path.relpath(blob, snapshot.parent))
    except OSError:  # a file system, or a Windows, without links
        blob.replace(snapshot)
    return snapshot
