"""Quantised copies of checkpoints: what panda made once, to load it quickly ever after.

    PANDA_HOME/copies/<start of the digest>-<form>/
        manifest.json                     what the copy is, with the size and digest of each file
        config.json, tokenizer.model ...  as in the checkpoint
        model-00001-of-0000N.safetensors  and, in the forms of llama.cpp, model.gguf

A folder is built by `pandacli.checkpoints.staging` and renamed when it is complete.
Nothing here imports torch.

Which checkpoint a known model is: that which its last copy was made of.

Where only copies are left of a model nothing else tells, so there are none of two checkpoints.
"""

import json
import shutil
import stat
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pandacli.checkpoints.digest import file_digest, hash_file, remember_digest
from pandacli.checkpoints.registry import MODELS, panda_home
from pandacli.errors import ModelError
from pandacli.file_io import atomic_write_text, read_object, replace_durably

Form = Literal["int8", "nf4", "q8_0", "q4_k_m"]

QUANTS: dict[str, str] = {"int8": "8bit", "nf4": "4bit", "q8_0": "8bit", "q4_k_m": "4bit"}
"""Of each form, what `--quant` calls it."""

FORMAT = 2
"""Version of what a copy's folder holds: a copy of another version is refused."""

MANIFEST = "manifest.json"

_LISTED = (".safetensors", ".bin", ".gguf", ".json", ".model")
"""Files of these kinds are read when a copy is loaded: the manifest has to list each."""

GGUF_FILE = "model.gguf"
"""The Llama in a copy for llama.cpp; its other files hold what makes the embeddings."""


@dataclass(frozen=True)
class Artifact:
    """One finished quantised copy of a checkpoint.

    Args:
        model: The name or folder it was made from.
        form: How its weights are stored: "int8" (rows with a scale each), "nf4" (bitsandbytes), or
            what llama.cpp calls "q8_0" and "q4_k_m".
        folder: Where it lies.
        commit: The commit of the repository that published the checkpoint, where there is one.
        digest: sha256 of the checkpoint, see `pandacli.checkpoints.digest`.
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
        """What `--quant` calls its form."""
        return QUANTS[self.form]


def artifacts_folder() -> Path:
    """Where all copies lie."""
    return panda_home() / "copies"


def artifact_folder(digest: str, form: str) -> Path:
    """Where the copy in a form of a checkpoint lies, or would."""
    return artifacts_folder() / f"{digest[:16]}-{form}"


def find_artifact(digest: str, form: str) -> Artifact | None:
    """The finished copy in a form of a checkpoint, if there is one, its files compared with their
    digests.

    Raises:
        ModelError: There is one that is damaged, made by another version of panda, or of another
            checkpoint; or its place cannot be looked at.
    """
    folder = artifact_folder(digest, form)
    try:
        found = (folder / MANIFEST).is_file()
    except OSError as error:
        raise ModelError(f"{folder} cannot be read: {error.strerror}") from error
    if not found:
        return None
    copy = _check_digests(read_artifact(folder))
    if copy.digest != digest:  # the folder's name has only the start of it
        raise _damaged(folder)
    return copy


def all_artifacts() -> list[Artifact]:
    """Every finished copy that this panda can read, looked at from outside."""
    copies = []
    for folder in _folders():
        try:
            copies.append(read_artifact(folder))
        except ModelError:
            continue
    return copies


def artifacts_of(model: str) -> list[Artifact]:
    """The finished copies that were made from a model, by its name or folder, their files compared
    with their digests.

    Raises:
        ModelError: One of them is damaged, or made by another version of panda.
    """
    mine = [folder for folder in _folders() if read_manifest(folder).get("model") == model]
    return [_check_digests(read_artifact(folder)) for folder in mine]


def read_artifact(folder: Path) -> Artifact:
    """The copy in a folder, its files looked at from outside: that they are there, and how long.

    Raises:
        ModelError: It is damaged, or made by another version of panda.
    """
    manifest = read_manifest(folder)
    if manifest.get("format", FORMAT) != FORMAT:
        raise ModelError(
            f"the quantised copy in {folder} was made by another version of panda", _again(folder)
        )
    try:
        sizes = {name: int(file["bytes"]) for name, file in manifest["files"].items()}
        whole = all(_is_regular(folder / name, size) for name, size in sizes.items())
        unlisted = {path.name for path in folder.iterdir() if path.suffix in _LISTED} - sizes.keys()
        copy = Artifact(
            model=manifest["model"],
            form=manifest["form"],
            folder=folder,
            commit=manifest["commit"],
            digest=manifest["digest"],
            bytes=sum(sizes.values()),
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise _damaged(folder) from error
    texts = (copy.model, copy.form, copy.digest, copy.commit or "")
    named = all(isinstance(text, str) for text in texts) and copy.form in QUANTS
    inside = sizes and all(Path(name).name == name for name in sizes)
    if not (whole and named and inside) or unlisted - {MANIFEST}:
        raise _damaged(folder)
    if folder.name != artifact_folder(copy.digest, copy.form).name:
        raise _damaged(folder)  # another copy was put in the place of this one
    return copy


def read_manifest(folder: Path) -> dict[str, Any]:
    """What the manifest in a folder says; nothing where it cannot be read."""
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
    """Write down what the copy in a folder is, and the digest of each of its files.

    Args:
        folder: Its folder, with all other files in place.
        model: The name or folder it was made from.
        form: See `Copy`.
        commit: See `Copy`.
        digest: See `Copy`.
        source_files: The sha256 of each file of the checkpoint, by name.

    Raises:
        OSError: A file cannot be read, or the manifest not be written.
    """
    paths = sorted(path for path in folder.iterdir() if path.name != MANIFEST)
    files = {path.name: {"bytes": path.stat().st_size, "sha256": hash_file(path)} for path in paths}
    copy = Artifact(model, form, folder, commit, digest, sum(path.stat().st_size for path in paths))
    fields: dict[str, Any] = asdict(copy)
    del fields["folder"], fields["bytes"]
    manifest = {"format": FORMAT, **fields, "source_files": source_files, "files": files}
    atomic_write_text(folder / MANIFEST, json.dumps(manifest, indent=2) + "\n")
    return copy


def finish(copy: Artifact) -> Artifact:
    """Move a copy, with its manifest, from the folder it was made in to where it belongs.

    Raises:
        OSError: It cannot be moved.
    """
    folder = artifact_folder(copy.digest, copy.form)
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():  # without a manifest, or it would have been used
        shutil.rmtree(folder)
    replace_durably(copy.folder, folder)
    for name, file in read_manifest(folder)["files"].items():
        remember_digest(folder / name, file["sha256"])
    return replace(copy, folder=folder)


def record_commit(copy: Artifact, commit: str) -> Artifact:
    """Write down that the checkpoint of a copy is, unchanged, that of another commit.

    Raises:
        ModelError: It cannot be written.
    """
    manifest = copy.folder / MANIFEST
    fields = read_manifest(copy.folder) | {"commit": commit}
    try:
        atomic_write_text(manifest, json.dumps(fields, indent=2) + "\n")
    except OSError as error:
        raise ModelError(f"cannot write {manifest}: {error.strerror or error}") from error
    return replace(copy, commit=commit)


def remove_artifact(copy: Artifact) -> None:
    """Delete a copy from the disk.

    Raises:
        ModelError: It may not be deleted.
    """
    remove_folder(copy.folder)


def remove_folder(folder: Path) -> None:
    """Delete the folder of a copy, its manifest last: what is left says to the end whose it is.

    Raises:
        ModelError: It may not be deleted.
    """
    place = folder.resolve()  # a person may have moved it to another disk
    try:
        for path in place.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != MANIFEST:
                path.unlink()
        shutil.rmtree(place)
        if folder.is_symlink():
            folder.unlink()
    except OSError as error:
        raise ModelError(f"cannot remove {folder}: {error.strerror or error}") from error


def _folders() -> list[Path]:
    """The folders of finished copies, as far as their manifests tell."""
    manifests = artifacts_folder().glob(f"*/{MANIFEST}")
    return sorted(path.parent for path in manifests if not path.parent.suffix)


def _check_digests(copy: Artifact) -> Artifact:
    """Compare the files of a copy with their digests; only what has changed is read for that."""
    try:
        for name, file in read_manifest(copy.folder)["files"].items():
            if file_digest(copy.folder / name) != file["sha256"]:
                raise _damaged(copy.folder)
    except (OSError, TypeError, KeyError, AttributeError) as error:
        raise _damaged(copy.folder) from error
    return copy


def _is_regular(path: Path, size: int) -> bool:
    status = path.stat()
    return stat.S_ISREG(status.st_mode) and status.st_size == size


def _damaged(folder: Path) -> ModelError:
    return ModelError(f"the quantised copy in {folder} is damaged", _again(folder))


def _again(folder: Path) -> str:
    return f"remove the folder {folder}, and panda makes it anew"


def remove_outdated(copy: Artifact, commit: str | None) -> Artifact:
    """Delete the copies, in whatever form, of what else a known model has been; a folder's stay.

    Args:
        copy: A finished copy.
        commit: The newest commit that its checkpoint is published in, where there is one; it is
            written down in all copies of this checkpoint.

    Returns:
        The copy, with that commit.

    Raises:
        ModelError: An old copy cannot be deleted, or the commit not be written.
    """
    if copy.model not in MODELS:
        return copy
    for other in all_artifacts():
        if other.model != copy.model:
            continue
        if other.digest != copy.digest:
            remove_artifact(other)
        elif commit and other.commit != commit:
            record_commit(other, commit)
    return replace(copy, commit=commit or copy.commit)
