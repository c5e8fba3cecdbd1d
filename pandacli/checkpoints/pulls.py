"""Files of a Hugging Face repository in the local cache, and records of what was pulled.

The cache knows branches, which move. A pull record says which commit panda took, so that a model
stays the same until it is pulled again. The record of a pull that is under way lets what an
interrupted one has left be found.
"""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from pandacli.checkpoints.registry import KnownModel, hub_cache, panda_home
from pandacli.file_io import atomic_write_text, read_object

COMMIT = re.compile(r"[0-9a-f]{40}")
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_MAX_FILE_BYTES = 1 << 50
_RECORD_FORMAT = 1


@dataclass(frozen=True)
class PublishedFile:
    """A file of a repository, at one commit.

    Args:
        path: Its path in the repository.
        bytes: Its size.
        digest: The name of its content in the cache: the sha256 of a large file, else git's own.

    Raises:
        ValueError: The size or the digest, which come from outside, is not valid.
    """

    path: str
    bytes: int
    digest: str

    def __post_init__(self) -> None:
        if not (isinstance(self.path, str) and isinstance(self.digest, str)):
            raise ValueError("no path or digest")
        if not _DIGEST.fullmatch(self.digest):
            raise ValueError("invalid digest")
        if type(self.bytes) is not int or not 0 <= self.bytes <= _MAX_FILE_BYTES:
            raise ValueError("invalid size")

    @property
    def name(self) -> str:
        """The last part of the path."""
        return PurePosixPath(self.path).name

    @property
    def sha256(self) -> str | None:
        """The sha256 of the content, which is published for large files only."""
        return self.digest if len(self.digest) == 64 else None


def repo_folder(model: KnownModel) -> Path:
    """The folder of a model's repository in the cache."""
    return hub_cache() / f"models--{str(model.repo).replace('/', '--')}"


def blob_path(model: KnownModel, file: PublishedFile) -> Path:
    """Where the cache keeps the content of a file, whatever commits it belongs to."""
    return repo_folder(model) / "blobs" / file.digest


def partial_path(model: KnownModel, file: PublishedFile) -> Path:
    """Where an unfinished file is, under a name that the tools of Hugging Face recognise."""
    return blob_path(model, file).with_name(f"{file.digest}.incomplete")


def snapshot_path(model: KnownModel, commit: str, file: PublishedFile) -> Path:
    """Where the cache shows a file as part of a commit."""
    return repo_folder(model) / "snapshots" / commit / file.path


def bytes_here(model: KnownModel, commit: str, file: PublishedFile) -> int:
    """How much of a file the cache holds, complete or partial."""
    for path in (snapshot_path(model, commit, file), blob_path(model, file)):
        if path.is_file() and path.stat().st_size == file.bytes:
            return file.bytes
    partial = partial_path(model, file)
    return min(partial.stat().st_size, file.bytes) if partial.is_file() else 0


@dataclass(frozen=True)
class Pull:
    """The record of a `panda pull`, finished or under way.

    Args:
        commit: The commit that its files are from.
        files: The files; of a finished pull, each was compared with its digest.
    """

    commit: str
    files: tuple[PublishedFile, ...]


def finished_pull(model: KnownModel) -> Pull | None:
    """The last pull of a model that has finished."""
    return _read_record(_finished_path(model))


def unfinished_pull(model: KnownModel) -> Pull | None:
    """The pull of a model that is under way or was interrupted."""
    return _read_record(_unfinished_path(model))


def partial_files(model: KnownModel) -> list[Path]:
    """The partial files of an unfinished pull."""
    pull = unfinished_pull(model)
    paths = [partial_path(model, file) for file in pull.files] if pull else []
    return [path for path in paths if path.is_file()]


def record_begun_pull(model: KnownModel, pull: Pull) -> None:
    """Record what is about to be downloaded."""
    _write_record(_unfinished_path(model), pull)


def record_finished_pull(model: KnownModel, pull: Pull) -> None:
    """Record that everything is here and checked."""
    _write_record(_finished_path(model), pull)
    _unfinished_path(model).unlink(missing_ok=True)


def remove_pull_records(model: KnownModel) -> None:
    """Remove both records of a model."""
    for path in (_finished_path(model), _unfinished_path(model)):
        path.unlink(missing_ok=True)


def _finished_path(model: KnownModel) -> Path:
    return panda_home() / "pulls" / f"{model.name}.json"


def _unfinished_path(model: KnownModel) -> Path:
    return panda_home() / "pulls" / f"{model.name}.unfinished.json"


def _read_record(path: Path) -> Pull | None:
    """The record in a file; None also for a damaged one: pulling again repairs it."""
    try:
        record = read_object(path)
        files = tuple(PublishedFile(**file) for file in record["files"])
        commit = str(record["commit"])
        is_valid = record["format"] == _RECORD_FORMAT and COMMIT.fullmatch(commit)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return Pull(commit, files) if is_valid else None


def _write_record(path: Path, pull: Pull) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(path, json.dumps({"format": _RECORD_FORMAT, **asdict(pull)}, indent=1))
