"""What the Hugging Face repository of a model publishes, and what of it a download takes.

What was pulled: the commit of each model, and its files with their digests.

The cache of Hugging Face knows branches, which move. These records say which commit panda took,
so that a model stays the one it was when it was pulled. A second record, of a download under way,
lets what an interrupted one has left be found.
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
COMMIT = re.compile(r"[0-9a-f]{40}")
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_LARGEST = 1 << 50  # bytes of a file


@dataclass(frozen=True)
class PublishedFile:
    """A file of a repository, at one commit.

    Args:
        path: Its path in the repository.
        bytes: Its size.
        digest: What the cache calls its content: the sha256 of a large file, else git's own.

    Raises:
        ValueError: The size or the digest is none. Both come from outside, and become a path and
            room on the disk.
    """

    path: str
    bytes: int
    digest: str

    def __post_init__(self) -> None:
        if not (isinstance(self.path, str) and isinstance(self.digest, str)):
            raise ValueError("no path or digest")
        if not _DIGEST.fullmatch(self.digest):
            raise ValueError("no digest")
        if type(self.bytes) is not int or not 0 <= self.bytes <= _LARGEST:
            raise ValueError("no size")

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
        missing_bytes: What has still to come, parts that are here already left out.
        folder: The cache that they go to.
        free_bytes: What its disk has free.
        copy_bytes: What the quantised copy that is to be made of them takes.
    """

    model: KnownModel
    commit: str
    files: tuple[PublishedFile, ...]
    missing_bytes: int
    folder: Path
    free_bytes: int
    copy_bytes: int = 0

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
        """Whether the weights are those of the known commit; None where their digests are not
        known.
        """
        return self.model.has_known_weights(
            {file.name: file.sha256 for file in self.files if file.sha256}
        )

    def check_room(self) -> None:
        """Make sure that the download fits on the disk, and the copy beside it.

        Raises:
            ModelError: It does not.
        """
        copies = artifacts_folder()
        if not self.copy_bytes:
            self._check(self.model.name, self.missing_bytes, self.folder, "HF_HOME")
        elif _disk(copies) == _disk(self.folder):
            both = f"{self.model.name}, with its quantised copy,"
            self._check(both, self.missing_bytes + self.copy_bytes, self.folder, "HF_HOME")
        else:
            self._check(self.model.name, self.missing_bytes, self.folder, "HF_HOME")
            self._check(
                f"the quantised copy of {self.model.name}", self.copy_bytes, copies, "PANDA_HOME"
            )

    def _check(self, what: str, needed: int, folder: Path, variable: str) -> None:
        free = _free_bytes(folder)
        if needed > free:
            raise ModelError(
                f"{what} needs {size(needed)} more, and {size(free)} are free in {folder}",
                f"free {size(needed - free)}, or set {variable} to a folder on a larger disk",
            )


def plan_download(model: KnownModel) -> DownloadPlan:
    """Ask the hub what there is to download, and look at what is here already.

    Args:
        model: A model with a repository.

    Raises:
        ModelError: The hub cannot be reached or does not have the model, or it lists other weights
            in the commit that panda knows than were published there.
    """
    assert model.repo is not None
    refuse_offline(f"{model.name} cannot be downloaded")
    with hub_errors():
        check_settings()
        listing = read_listing(model)
        commit = str(listing["sha"])
        listed = [_published_file(sibling) for sibling in listing["siblings"]]
        if not COMMIT.fullmatch(commit):
            raise ValueError(f"no commit: {commit}")
    files = choose_files(model, listed)
    missing = sum(file.bytes - bytes_here(model, commit, file) for file in files)
    plan = DownloadPlan(model, commit, files, missing, cache(), _free_bytes(cache()))
    if plan.is_known and plan.has_known_weights is False:
        raise _altered(plan)
    return plan


def choose_files(model: KnownModel, listed: Iterable[PublishedFile]) -> tuple[PublishedFile, ...]:
    """Returns what inference needs of the files in a model's folder, small ones first.

    Optimizer states, training arguments and the files of other models stay where they are, and so
    does a second form of the weights.

    Raises:
        ModelError: The configuration or the weights are not published there.
    """
    inside = {
        file.name: file
        for file in listed
        if PurePosixPath(file.path).parent == PurePosixPath(model.subfolder or ".")
    }
    small = [inside[name] for name in sorted(inside.keys() & _SMALL)]
    kinds = [[inside[name] for name in sorted(inside) if kind.fullmatch(name)] for kind in _WEIGHTS]
    weights = next((files for files in kinds if any(f.sha256 for f in files)), [])
    if "config.json" not in inside or not weights:
        what = "weights" if "config.json" in inside else "config.json"
        raise ModelError(
            f"the repository {model.repo} holds no {what}"
            + (f" in {model.subfolder}" if model.subfolder else ""),
            "it may have been moved; a newer panda may know where",
        )
    lacking = None if "tokenizer.model" in inside else "tokenizer.model"
    if len(weights) > 1 and not any(file.name.endswith(".index.json") for file in weights):
        lacking = "index of the shards"
    if lacking:
        raise ModelError(
            f"the repository {model.repo} holds no {lacking}"
            + (f" in {model.subfolder}" if model.subfolder else ""),
            "it may be incomplete; try again later",
        )
    return (*small, *sorted(weights, key=lambda file: file.bytes))


def partial_path(model: KnownModel, file: PublishedFile) -> Path:
    """Where the bytes of a file are gathered until all are there.

    The name is one that the tools of Hugging Face recognise as an unfinished download.
    """
    return blob_path(model, file).with_name(f"{file.digest}.incomplete")


def blob_path(model: KnownModel, file: PublishedFile) -> Path:
    """Where the cache keeps the content of a file, whatever commits it belongs to."""
    return repo_folder(model) / "blobs" / file.digest


def snapshot_path(model: KnownModel, commit: str, file: PublishedFile) -> Path:
    """Where the cache shows a file as part of a commit."""
    return repo_folder(model) / "snapshots" / commit / file.path


def repo_folder(model: KnownModel) -> Path:
    """The folder of the cache that belongs to the model's repository."""
    return cache() / f"models--{str(model.repo).replace('/', '--')}"


def bytes_here(model: KnownModel, commit: str, file: PublishedFile) -> int:
    """How much of a file the cache holds, as a part or as a whole."""
    for path in (snapshot_path(model, commit, file), blob_path(model, file)):
        if path.is_file() and path.stat().st_size == file.bytes:
            return file.bytes
    partial = partial_path(model, file)
    return min(partial.stat().st_size, file.bytes) if partial.is_file() else 0


def _altered(plan: DownloadPlan) -> ModelError:
    listed = {file.name: file.sha256 for file in plan.files}
    known = plan.model.known_digests
    name = next(name for name, digest in known.items() if listed.get(name) != digest)
    return ModelError(
        f"{host()} lists another {name} for commit {plan.commit[:12]} than was published in it",
        "nothing was downloaded; check HF_ENDPOINT, a mirror may have changed the file",
    )


def _published_file(sibling: Any) -> PublishedFile:
    lfs = sibling.get("lfs")
    size, digest = (lfs["size"], lfs["sha256"]) if lfs else (sibling["size"], sibling["blobId"])
    return PublishedFile(sibling["rfilename"], size, digest)


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(_existing(folder)).free


def _disk(folder: Path) -> int:
    return _existing(folder).stat().st_dev


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


_FORMAT = 1


@dataclass(frozen=True)
class Pull:
    """A download, finished or under way.

    Args:
        commit: The commit that its files are from.
        files: The files; each has been checked against its digest once it is finished.
    """

    commit: str
    files: tuple[PublishedFile, ...]


def finished_pull(model: KnownModel) -> Pull | None:
    """What the last `panda pull` that finished has brought, if there was one."""
    return _read(_finished_path(model))


def unfinished_pull(model: KnownModel) -> Pull | None:
    """What a `panda pull` that is under way, or was interrupted, is to bring."""
    return _read(_unfinished_path(model))


def begin_pull(model: KnownModel, pull: Pull) -> None:
    """Write down what is about to be downloaded."""
    _write(_unfinished_path(model), pull)


def finish_pull(model: KnownModel, pull: Pull) -> None:
    """Write down that everything is here and checked."""
    _write(_finished_path(model), pull)
    _unfinished_path(model).unlink(missing_ok=True)


def forget_pulls(model: KnownModel) -> None:
    """Remove both records."""
    for path in (_finished_path(model), _unfinished_path(model)):
        path.unlink(missing_ok=True)


def _finished_path(model: KnownModel) -> Path:
    return panda_home() / "pulls" / f"{model.name}.json"


def _unfinished_path(model: KnownModel) -> Path:
    return panda_home() / "pulls" / f"{model.name}.unfinished.json"


def _read(path: Path) -> Pull | None:
    """The record at `path`; None for one that is damaged, as for none: pulling again mends it."""
    try:
        record = read_object(path)
        if record["format"] != _FORMAT:
            return None
        files = tuple(PublishedFile(**file) for file in record["files"])
        commit = str(record["commit"])
        return Pull(commit, files) if COMMIT.fullmatch(commit) else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _write(path: Path, pull: Pull) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(path, json.dumps({"format": _FORMAT, **asdict(pull)}, indent=1))
