"""What the Hugging Face repository of a model publishes, and what of it to download."""

import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pandacli.checkpoints.artifacts import artifacts_folder
from pandacli.checkpoints.hub import (
    check_settings,
    host,
    hub_errors,
    read_listing,
    refuse_offline,
)
from pandacli.checkpoints.pulls import COMMIT, PublishedFile, bytes_here
from pandacli.checkpoints.registry import KnownModel, hub_cache
from pandacli.errors import ModelError
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
        if not COMMIT.fullmatch(commit):
            raise ValueError(f"invalid commit: {commit}")
    files = _choose_files(model, listed)
    missing = sum(file.bytes - bytes_here(model, commit, file) for file in files)
    plan = DownloadPlan(model, commit, files, missing, hub_cache(), _free_bytes(hub_cache()))
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
