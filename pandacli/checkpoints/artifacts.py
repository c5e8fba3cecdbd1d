"""Quantised artifacts: the converted forms of a checkpoint, made once and loaded quickly.

    PANDA_HOME/copies/<digest>-<form>/
        manifest.json                     what it is, with the size and digest of each file
        config.json, tokenizer.model ...  as in the checkpoint
        model-00001-of-0000N.safetensors  and, in the forms of llama.cpp, model.gguf

A folder is made by `pandacli.checkpoints.staging` and renamed when it is complete. All artifacts of
a known model are of the same checkpoint: where the checkpoint itself is gone, nothing else tells
which one the model is.
"""

import json
import shutil
import stat
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pandacli.checkpoints.digest import cache_digest, file_digest, hash_file
from pandacli.checkpoints.registry import MODELS, panda_home
from pandacli.errors import ModelError
from pandacli.file_io import atomic_write_text, read_object, replace_durably

Form = Literal["int8", "nf4", "q8_0", "q4_k_m"]

QUANTS: dict[str, str] = {"int8": "8bit", "nf4": "4bit", "q8_0": "8bit", "q4_k_m": "4bit"}
"""The value of `--quant` for each form."""

FORMAT = 2
"""The version of an artifact's folder; other versions are refused."""

MANIFEST = "manifest.json"
GGUF_FILE = "model.gguf"
"""The Llama in an artifact for llama.cpp; its other files hold what makes the embeddings."""

_LISTED = (".safetensors", ".bin", ".gguf", ".json", ".model")
"""Files of these kinds are read when an artifact is loaded: the manifest must list each."""


@dataclass(frozen=True)
class Artifact:
    """A finished quantised form of a checkpoint.

    Args:
        model: The name or folder of the model it was made from.
        form: How its weights are stored: "int8" (rows with a scale each), "nf4" (bitsandbytes), or
            llama.cpp's "q8_0" and "q4_k_m".
        folder: Its folder.
        commit: The commit of the repository that published the checkpoint, where there is one.
        digest: The sha256 of the checkpoint, see `pandacli.checkpoints.digest`.
        bytes: What its files take on the disk.
    """

    model: str
    form: str
    folder: Path
    commit: str | None
    digest: str
    bytes: int

    @property
    def quant(self) -> str:
        """The value of `--quant` for its form."""
        return QUANTS[self.form]


def artifacts_folder() -> Path:
    """The folder of all artifacts."""
    return panda_home() / "copies"


def artifact_folder(digest: str, form: str) -> Path:
    """The folder of the artifact of a checkpoint in a form, existing or not."""
    return artifacts_folder() / f"{digest[:16]}-{form}"


def find_artifact(digest: str, form: str) -> Artifact | None:
    """The artifact of a checkpoint in a form, its files compared with their digests.

    Raises:
        ModelError: It is damaged, of another version of panda or of another checkpoint, or its
            folder cannot be read.
    """
    folder = artifact_folder(digest, form)
    try:
        found = (folder / MANIFEST).is_file()
    except OSError as error:
        raise ModelError(f"{folder} cannot be read: {error.strerror}") from error
    if not found:
        return None
    artifact = _check_digests(read_artifact(folder))
    if artifact.digest != digest:  # the folder's name has only its start
        raise _damaged(folder)
    return artifact


def all_artifacts() -> list[Artifact]:
    """Every artifact that this version can read; weights are not compared with their digests."""
    artifacts = []
    for folder in _folders():
        with suppress(ModelError):
            artifacts.append(read_artifact(folder))
    return artifacts


def artifacts_of(model: str) -> list[Artifact]:
    """The artifacts made from a model, by name or folder, compared with their digests.

    Raises:
        ModelError: One of them is damaged, or made by another version of panda.
    """
    own = [folder for folder in _folders() if read_manifest(folder).get("model") == model]
    return [_check_digests(read_artifact(folder)) for folder in own]


def read_artifact(folder: Path) -> Artifact:
    """The artifact in a folder, by its manifest and the sizes of its files.

    Raises:
        ModelError: It is damaged, or made by another version of panda.
    """
    manifest = read_manifest(folder)
    if manifest.get("format", FORMAT) != FORMAT:
        raise ModelError(
            f"the quantised copy in {folder} was made by another version of panda", _hint(folder)
        )
    try:
        sizes = {name: int(file["bytes"]) for name, file in manifest["files"].items()}
        is_complete = all(_is_regular(folder / name, size) for name, size in sizes.items())
        unlisted = {path.name for path in folder.iterdir() if path.suffix in _LISTED} - sizes.keys()
        artifact = Artifact(
            model=manifest["model"],
            form=manifest["form"],
            folder=folder,
            commit=manifest["commit"],
            digest=manifest["digest"],
            bytes=sum(sizes.values()),
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise _damaged(folder) from error
    texts = (artifact.model, artifact.form, artifact.digest, artifact.commit or "")
    if (
        not is_complete
        or unlisted - {MANIFEST}
        or not all(isinstance(text, str) for text in texts)
        or artifact.form not in QUANTS
        or not sizes
        or any(Path(name).name != name for name in sizes)
        or folder.name != artifact_folder(artifact.digest, artifact.form).name
    ):
        raise _damaged(folder)
    return artifact


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest in a folder; empty where it cannot be read."""
    try:
        return read_object(folder / MANIFEST)
    except (OSError, ValueError):
        return {}


def write_manifest(
    folder: Path,
    *,
    model: str,
    form: str,
    commit: str | None,
    digest: str,
    source_files: dict[str, str],
) -> Artifact:
    """Write the manifest of an artifact, with the digest of each of its files.

    Args:
        folder: Its folder, with all other files in place.
        model, form, commit, digest: As of `Artifact`.
        source_files: The sha256 of each file of the checkpoint, by name.

    Raises:
        OSError: A file cannot be read, or the manifest not be written.
    """
    paths = sorted(path for path in folder.iterdir() if path.name != MANIFEST)
    files = {path.name: {"bytes": path.stat().st_size, "sha256": hash_file(path)} for path in paths}
    artifact = Artifact(model, form, folder, commit, digest, sum(p.stat().st_size for p in paths))
    fields: dict[str, Any] = asdict(artifact)
    del fields["folder"], fields["bytes"]
    manifest = {"format": FORMAT, **fields, "source_files": source_files, "files": files}
    atomic_write_text(folder / MANIFEST, json.dumps(manifest, indent=2) + "\n")
    return artifact


def publish_artifact(artifact: Artifact) -> Artifact:
    """Move an artifact, with its manifest, from its staging folder to its final one.

    Raises:
        OSError: It cannot be moved.
    """
    folder = artifact_folder(artifact.digest, artifact.form)
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():  # without a manifest, or it would have been used
        shutil.rmtree(folder)
    replace_durably(artifact.folder, folder)
    for name, file in read_manifest(folder)["files"].items():
        cache_digest(folder / name, file["sha256"])
    return replace(artifact, folder=folder)


def remove_outdated(artifact: Artifact, commit: str | None) -> Artifact:
    """Delete the artifacts of other checkpoints of a known model; those of a folder stay.

    Args:
        artifact: A finished artifact of the current checkpoint.
        commit: The newest commit that publishes this checkpoint, where there is one; it is recorded
            in all its artifacts.

    Returns:
        The artifact, with that commit.

    Raises:
        ModelError: An artifact cannot be deleted, or the commit not be written.
    """
    if artifact.model not in MODELS:
        return artifact
    for other in all_artifacts():
        if other.model != artifact.model:
            continue
        if other.digest != artifact.digest:
            remove_folder(other.folder)
        elif commit and other.commit != commit:
            _record_commit(other.folder, commit)
    return replace(artifact, commit=commit or artifact.commit)


def remove_folder(folder: Path) -> None:
    """Delete the folder of an artifact, its manifest last: it names the model to the end.

    Raises:
        ModelError: It cannot be deleted.
    """
    target = folder.resolve()  # it may be a link to another disk
    try:
        for path in target.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != MANIFEST:
                path.unlink()
        shutil.rmtree(target)
        if folder.is_symlink():
            folder.unlink()
    except OSError as error:
        raise ModelError(f"cannot remove {folder}: {error.strerror or error}") from error


def _folders() -> list[Path]:
    manifests = artifacts_folder().glob(f"*/{MANIFEST}")
    return sorted(path.parent for path in manifests if not path.parent.suffix)


def _check_digests(artifact: Artifact) -> Artifact:
    try:
        for name, file in read_manifest(artifact.folder)["files"].items():
            if file_digest(artifact.folder / name) != file["sha256"]:
                raise _damaged(artifact.folder)
    except (OSError, TypeError, KeyError, AttributeError) as error:
        raise _damaged(artifact.folder) from error
    return artifact


def _is_regular(path: Path, size: int) -> bool:
    status = path.stat()
    return stat.S_ISREG(status.st_mode) and status.st_size == size


def _damaged(folder: Path) -> ModelError:
    return ModelError(f"the quantised copy in {folder} is damaged", _hint(folder))


def _hint(folder: Path) -> str:
    return f"remove the folder {folder}, and panda will make it again"


def _record_commit(folder: Path, commit: str) -> None:
    manifest = folder / MANIFEST
    try:
        fields = read_manifest(folder) | {"commit": commit}
        atomic_write_text(manifest, json.dumps(fields, indent=2) + "\n")
    except OSError as error:
        raise ModelError(f"cannot write {manifest}: {error.strerror or error}") from error
