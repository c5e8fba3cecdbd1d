"""From the hub into the cache of Hugging Face: resumable, pinned to a commit, checked.

huggingface_hub does the asking and the fetching, and keeps the cache. It throws away the part of a
file that an interrupted download has left, which here may be ten gigabytes; so large files are
fetched into a part file of our own, and enter the cache whole and checked.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol, Self, cast

from pandacli.errors import ModelError
from pandacli.store.durable import settle
from pandacli.store.hub import cache, hub_errors
from pandacli.store.published import (
    Plan,
    PublishedFile,
    blob_path,
    partial_path,
    repo_folder,
    snapshot_path,
)
from pandacli.store.pulls import Pull, begin_pull, finish_pull, finished_pull

_PIECE = 8 * 1024 * 1024  # bytes hashed between two looks at the progress

Advance = Callable[[int], None]
"""Told how many bytes more are done."""


class Progress(Protocol):
    """Who is told how a download goes."""

    def downloading(self, name: str, total: int, done: int) -> Advance:
        """A file of `total` bytes begins to come, `done` of which are here already."""

    def checking(self, name: str, total: int) -> Advance:
        """A file of `total` bytes begins to be compared with its published digest."""


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


def download(plan: Plan, progress: Progress) -> Downloaded:
    """Get the files of a plan that are not here yet, and check all of them.

    After an error, a Ctrl-C or a kill the same call goes on where it was.

    Args:
        plan: What `plan_download` found.
        progress: Who is told how it goes.

    Raises:
        ModelError: There is no room, the connection fails, or a file is not what was published.
    """
    plan.check_room()
    pulled = finished_pull(plan.model)
    trusted = {file.digest for file in pulled.files} if pulled else set()
    with hub_errors(plan.model):
        begin_pull(plan.model, Pull(plan.commit, plan.files))
        for file in plan.files:
            if file.sha256:
                _bring_large(plan, file, progress, trusted=file.digest in trusted)
            path = _enter_cache(plan, file, progress)
        finish_pull(plan.model, Pull(plan.commit, plan.files))
    return Downloaded(path.parent, plan.commit, plan.bytes)


def _bring_large(plan: Plan, file: PublishedFile, progress: Progress, *, trusted: bool) -> None:
    """Puts the content of a file with a sha256 into the cache, or checks what is there."""
    blob = blob_path(plan.model, file)
    with _lock(plan, file):
        snapshot = snapshot_path(plan.model, plan.commit, file)
        here = next((path for path in (snapshot, blob) if path.exists()), None)
        if here is None:
            partial = partial_path(plan.model, file)
            _fetch(plan, file, partial, progress)
            _check(plan, file, partial, progress)
            settle(partial, blob)
        elif not trusted:
            _check(plan, file, here, progress)


@contextmanager
def _lock(plan: Plan, file: PublishedFile) -> Iterator[None]:
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


def _fetch(plan: Plan, file: PublishedFile, partial: Path, progress: Progress) -> None:
    """Adds to the part file what it lacks."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    with partial.open("ab") as target:
        if target.tell() > file.bytes:
            target.truncate(0)
        here = target.seek(0, os.SEEK_END)
        http_get(
            hf_hub_url(str(plan.model.repo), file.path, revision=plan.commit),
            target,
            resume_size=here,
            headers=build_hf_headers(),
            expected_size=file.bytes,
            tqdm_class=cast(Any, _Bar(progress.downloading(file.name, file.bytes, here), here)),
        )


def _check(plan: Plan, file: PublishedFile, path: Path, progress: Progress) -> None:
    """Compares a file with its published digest, and deletes it if it is another."""
    advance = progress.checking(file.name, file.bytes)
    digest = sha256()
    with path.open("rb") as content:
        while piece := content.read(_PIECE):
            digest.update(piece)
            advance(len(piece))
    if digest.hexdigest() != file.sha256:
        _delete(plan, file, path)
        raise ModelError(
            f"{file.name} was damaged, and is deleted: its sha256 is not the published one",
            f"get it again with: {plan.model.download_command}",
        )


def _delete(plan: Plan, file: PublishedFile, path: Path) -> None:
    """Deletes a file, and what leads to it: a link to nowhere would upset huggingface_hub."""
    path.resolve().unlink()
    for link in (repo_folder(plan.model) / "snapshots").glob(f"*/{file.path}"):
        if not link.exists():
            link.unlink()


def _enter_cache(plan: Plan, file: PublishedFile, progress: Progress) -> Path:
    """Lets huggingface_hub put a file into its cache, fetching the small ones; returns its path."""
    from huggingface_hub import hf_hub_download

    def bar(**_: object) -> _Bar:
        return _Bar(progress.downloading(file.name, file.bytes, 0), 0)

    repo = str(plan.model.repo)
    return Path(hf_hub_download(repo, file.path, revision=plan.commit, tqdm_class=cast(Any, bar)))


class _Bar:
    """What huggingface_hub takes for a progress bar of its own; called, it is its own instance."""

    def __init__(self, advance: Advance, done: int) -> None:
        self.update = advance
        self.done = done

    def __call__(self, *, initial: int = 0, **_: object) -> Self:
        self.update(initial - self.done)  # a server that cannot resume begins anew
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass
