"""From the hub into the cache of Hugging Face: resumable, pinned to a commit, checked.

A file is fetched into a part file, which an interruption leaves to the next attempt, and enters the
cache under its digest once its content has that digest. huggingface_hub's own download would throw
the part away, take the name of the file from the server's headers, and check nothing but its size.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha1, sha256
from pathlib import Path
from typing import Protocol

from pandacli.checkpoints.digest import remember_digest
from pandacli.checkpoints.hub import (
    InconsistentError,
    cache,
    check_offer,
    hub_errors,
    is_temporary,
    read_file,
)
from pandacli.checkpoints.published import (
    DownloadPlan,
    PublishedFile,
    Pull,
    begin_pull,
    blob_path,
    bytes_here,
    finish_pull,
    partial_path,
    repo_folder,
    snapshot_path,
)
from pandacli.errors import ModelError
from pandacli.file_io import replace_durably

_PIECE = 8 * 1024 * 1024  # bytes hashed between two looks at the progress
_ATTEMPTS = 5  # at a file, without a byte beyond the farthest one

Advance = Callable[[int], None]
"""Told how many bytes more are done."""


class Progress(Protocol):
    """Who is told how a download goes."""

    def downloading(self, name: str, total: int, done: int) -> Advance:
        """A file of `total` bytes begins to come, `done` of which are here already."""

    def checking(self, name: str, total: int) -> Advance:
        """A file of `total` bytes begins to be compared with its published digest."""

    def replacing(self, name: str) -> None:
        """A file that is here is not what was published, and is to be downloaded again."""


@dataclass(frozen=True)
class Downloaded:
    """A model whose files are all here and checked.

    Args:
        folder: The checkpoint folder, inside the cache.
        commit: The commit that the files are from.
        bytes: The size of all files.
    """

    folder: Path
    commit: str
    bytes: int


def download(plan: DownloadPlan, progress: Progress) -> Downloaded:
    """Get the files of a plan that are not here yet, and check all of them.

    Every file is read and compared with its digest, whether it was here before or not; one that is
    not what was published is downloaded again. After an error, a Ctrl-C or a kill the same call
    continues where it stopped.

    Args:
        plan: What `plan_download` found.
        progress: Who is told how it goes.

    Raises:
        ModelError: There is no room, the connection fails, or a file is not what was published.
    """
    plan.check_room()
    pull = Pull(plan.commit, plan.files)
    with hub_errors():
        for file in plan.files:
            if bytes_here(plan.model, plan.commit, file) < file.bytes:
                check_offer(plan.model, plan.commit, file.path, file.bytes, file.digest)
        begin_pull(plan.model, pull)
        for file in plan.files:
            with _lock(plan, file):
                _bring(plan, file, progress)
                path = _show(plan, file)
                if file.sha256:
                    remember_digest(path, file.sha256)
        finish_pull(plan.model, pull)
    return Downloaded(path.parent, plan.commit, plan.bytes)


def _bring(plan: DownloadPlan, file: PublishedFile, progress: Progress) -> None:
    """Leaves the content of a file, checked, in the cache."""
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


@contextmanager
def _lock(plan: DownloadPlan, file: PublishedFile) -> Iterator[None]:
    """Keeps a second download, of panda or of huggingface_hub, from the same file."""
    from filelock import Timeout
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

    lock = cache() / ".locks" / repo_folder(plan.model).name / f"{file.digest}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    blob_path(plan.model, file).parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(WeakFileLock(lock, timeout=1))
        except Timeout as error:
            raise ModelError(
                f"{file.name} is being downloaded already", "wait until the other download ends"
            ) from error
        yield


def _fetch(plan: DownloadPlan, file: PublishedFile, partial: Path, progress: Progress) -> None:
    """Adds to the part file what it lacks."""
    partial.touch()
    with partial.open("r+b") as target:
        here = target.seek(0, os.SEEK_END)
        if here > file.bytes:
            here = target.truncate(0)
        advance = progress.downloading(file.name, file.bytes, here)
        farthest, failures = here, 0
        while here < file.bytes:
            try:
                for place, piece in read_file(plan.model, plan.commit, file.path, here, file.bytes):
                    if place != here:  # the server cannot resume
                        target.truncate(place)
                        advance(place - here)
                    target.seek(place)
                    target.write(piece)
                    advance(len(piece))
                    here = place + len(piece)
                    # only progress counts: a server that cannot resume sends the start again
                    if here > farthest:
                        farthest, failures = here, 0
            except Exception as error:
                failures += 1
                if failures == _ATTEMPTS or not is_temporary(error):
                    raise
                time.sleep(max(1.0, getattr(error, "wait", 0.0)))


def _is_published(file: PublishedFile, path: Path, progress: Progress) -> bool:
    """Whether the content at a path has the published size and digest."""
    if path.stat().st_size != file.bytes:
        return False
    advance = progress.checking(file.name, file.bytes)
    # a small file is known by git's digest, which covers its length
    digest = sha256() if file.sha256 else sha1(b"blob %d\0" % file.bytes, usedforsecurity=False)
    with path.open("rb") as content:
        while piece := content.read(_PIECE):
            digest.update(piece)
            advance(len(piece))
    return digest.hexdigest() == file.digest


def _delete(plan: DownloadPlan, file: PublishedFile) -> None:
    """Deletes a file, and what leads to it: a link to nowhere would upset huggingface_hub."""
    blob_path(plan.model, file).unlink(missing_ok=True)
    snapshot_path(plan.model, plan.commit, file).unlink(missing_ok=True)
    for link in (repo_folder(plan.model) / "snapshots").glob(f"*/{file.path}"):
        if not link.exists():
            link.unlink()


def _show(plan: DownloadPlan, file: PublishedFile) -> Path:
    """Enters a file into the cache as a part of its commit, as huggingface_hub does."""
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
