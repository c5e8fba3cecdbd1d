"""What the Hugging Face repository of a model publishes, what to download, and what was pulled.

The cache of Hugging Face knows branches, which move. A pull record says which commit panda took, so
that a model stays the same until it is pulled again. The record of a pull that is under way lets
what an interrupted one has left be found.
"""

import json
import re
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pandacli.checkpoints.artifacts import artifacts_folder
from pandacli.checkpoints.hub import (
    cache,
    check_settings,
    host,
    hub_errors,
    read_listing,
    refuse_offline,
)
from pandacli.checkpoints.registry import KnownModel, panda_home
from pandacli.errors import ModelError
from pandacli.file_io import atomic_write_text, read_object
from pandacli.units import size

_SMALL = frozenset(
    (
        # Of Video-Panda-7B only config.json was seen in both folders, tokenizer_config.json and
        # special_tokens_map.json in the pretrained one; the others are expected from its training.
        "config.json",
        "generation_config.json",
        "processor_config.json",
        "preprocessor_config.json",
        "tokenizer.model",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
    )
)
_WEIGHTS = (  # the first kind that is published is taken
    re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json"),
    # the shards of Video-Panda-7B were seen, their index is expected
    re.compile(r"pytorch_model(-\d{5}-of-\d{5})?\.bin|pytorch_model\.bin\.index\.json"),
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
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


@dataclass(frozen=True)
class DownloadPlan:
    """A download that has not begun.

    Args:
        model: The model.
        commit: The commit that the files are taken from.
        files: All files of the model, small ones first.
        missing_bytes: How much is not here yet, neither in whole files nor in partial ones.
        folder: The cache that they go to.
        free_bytes: The free space on its disk.
        artifact_bytes: The size of the quantised artifact that is to be made of them.
    """

    model: KnownModel
    commit: str
    files: tuple[PublishedFile, ...]
    missing_bytes: int
    folder: Path
    free_bytes: int
    artifact_bytes: int = 0

    @property
    def bytes(self) -> int:
        """The size of all files."""
        return sum(file.bytes for file in self.files)

    @property
    def is_known(self) -> bool:
        """Whether the commit is the one whose files panda knows something of."""
        return self.commit == self.model.known_commit

    @property
    def has_known_weights(self) -> bool | None:
        """Whether the weights are those of the known commit; None where those are not known."""
        digests = {file.name: file.sha256 for file in self.files if file.sha256}
        return self.model.has_known_weights(digests)

    def check_room(self) -> None:
        """Check that the download fits on its disk, and the artifact on its own.

        Raises:
            ModelError: There is too little space.
        """
        name, artifacts = self.model.name, artifacts_folder()
        if not self.artifact_bytes:
            _check_room(name, self.missing_bytes, self.folder, "HF_HOME")
        elif _disk(artifacts) == _disk(self.folder):
            needed = self.missing_bytes + self.artifact_bytes
            _check_room(f"{name}, with its quantised copy,", needed, self.folder, "HF_HOME")
        else:
            _check_room(name, self.missing_bytes, self.folder, "HF_HOME")
            artifact = f"the quantised copy of {name}"
            _check_room(artifact, self.artifact_bytes, artifacts, "PANDA_HOME")


def plan_download(model: KnownModel) -> DownloadPlan:
    """Ask the hub what there is to download, and see what is here already.

    Raises:
        ModelError: The hub cannot be reached or does not have the model, or it lists other weights
            for the commit that panda knows than were published in it.
    """
    assert model.repo is not None
    refuse_offline(f"{model.name} cannot be downloaded")
    with hub_errors():
        check_settings()
        listing = read_listing(model)
        commit = str(listing["sha"])
        listed = [_published_file(sibling) for sibling in listing["siblings"]]
        if not _COMMIT.fullmatch(commit):
            raise ValueError(f"invalid commit: {commit}")
    files = _choose_files(model, listed)
    missing = sum(file.bytes - bytes_here(model, commit, file) for file in files)
    plan = DownloadPlan(model, commit, files, missing, cache(), _free_bytes(cache()))
    if plan.is_known and plan.has_known_weights is False:
        digests = {file.name: file.sha256 for file in files}
        name = next(n for n, known in model.known_digests.items() if digests.get(n) != known)
        raise ModelError(
            f"{host()} lists another {name} for commit {commit[:12]} than was published in it",
            "nothing was downloaded; check HF_ENDPOINT, a mirror may have changed the file",
        )
    return plan


def _choose_files(model: KnownModel, listed: Iterable[PublishedFile]) -> tuple[PublishedFile, ...]:
    """What inference needs of the files in a model's folder, small ones first.

    Optimizer states, training arguments, other models and a second form of the weights are left.
    """
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


def _published_file(sibling: Any) -> PublishedFile:
    lfs = sibling.get("lfs")
    size, digest = (lfs["size"], lfs["sha256"]) if lfs else (sibling["size"], sibling["blobId"])
    return PublishedFile(sibling["rfilename"], size, digest)


def repo_folder(model: KnownModel) -> Path:
    """The folder of a model's repository in the cache."""
    return cache() / f"models--{str(model.repo).replace('/', '--')}"


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


def _check_room(what: str, needed: int, folder: Path, variable: str) -> None:
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
        is_valid = record["format"] == _RECORD_FORMAT and _COMMIT.fullmatch(commit)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return Pull(commit, files) if is_valid else None


def _write_record(path: Path, pull: Pull) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(path, json.dumps({"format": _RECORD_FORMAT, **asdict(pull)}, indent=1))
