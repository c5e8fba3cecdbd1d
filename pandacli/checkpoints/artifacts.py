"""Quantised artifacts: the converted forms of a checkpoint, made once and identified by its sha256.

    PANDA_HOME/copies/<digest>-<form>/
        manifest.json                     what it is, with the size and digest of each file
        config.json, tokenizer.model ...  as in the checkpoint
        model-00001-of-0000N.safetensors  and, in the forms of llama.cpp, model.gguf

A folder is made by `staging` and renamed when it is complete. All artifacts of a known model are of
one checkpoint: where the checkpoint itself is gone, they alone tell which one the model is. The
digest of a large file is cached with its size, mtime, ctime and inode; a change below the file
system, as by a failing disk, is not noticed until `panda pull` calls `drop_digests`.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pandacli.checkpoints.registry import MODELS, os_errors, panda_home
from pandacli.errors import ModelError
from pandacli.file_io import atomic_write_text, read_object, replace_durably

Form = Literal["int8", "nf4", "q8_0", "q4_k_m"]

# the value of `--quant` for each form
QUANTS: dict[str, str] = {"int8": "8bit", "nf4": "4bit", "q8_0": "8bit", "q4_k_m": "4bit"}

FORMAT = 2  # of an artifact's folder; other versions are refused
MANIFEST = "manifest.json"
GGUF_FILE = "model.gguf"  # the Llama for llama.cpp; the other files hold what makes the embeddings

# files of these kinds are read when an artifact is loaded: the manifest must list each
_LISTED = (".safetensors", ".bin", ".gguf", ".json", ".model")
_BLOCK = 1 << 22  # bytes; the digests of smaller files are not worth caching


@dataclass(frozen=True)
class Artifact:
    """A finished quantised form of a checkpoint."""

    model: str  # the name or folder of the model it was made from
    form: str  # "int8" (rows with a scale each), "nf4" (bitsandbytes), or llama.cpp's
    folder: Path
    commit: str | None  # of the repository that published the checkpoint, if any
    digest: str  # sha256 of the checkpoint, see `hash_checkpoint`
    bytes: int

    @property
    def quant(self) -> str:
        return QUANTS[self.form]


def artifacts_folder() -> Path:
    return panda_home() / "copies"


def artifact_folder(digest: str, form: str) -> Path:
    return artifacts_folder() / f"{digest[:16]}-{form}"


def find_artifact(digest: str, form: str) -> Artifact | None:
    """The artifact of a checkpoint in a form, its files compared with their digests."""
    folder = artifact_folder(digest, form)
    with os_errors("read", folder):
        if not (folder / MANIFEST).is_file():
            return None
    artifact = read_artifact(folder, check_digests=True)
    if artifact.digest != digest:  # the folder's name has only its start
        raise _unusable(folder)
    return artifact


def all_artifacts() -> list[Artifact]:
    """Every artifact that this version can read; weights are not compared with their digests."""
    artifacts = []
    for folder in _folders():
        with suppress(ModelError):
            artifacts.append(read_artifact(folder))
    return artifacts


def artifacts_of(model: str) -> list[Artifact]:
    """The artifacts made from a model, by name or folder, compared with their digests."""
    own = [folder for folder in _folders() if read_manifest(folder).get("model") == model]
    return [read_artifact(folder, check_digests=True) for folder in own]


def _folders() -> list[Path]:
    manifests = artifacts_folder().glob(f"*/{MANIFEST}")
    return sorted(path.parent for path in manifests if not path.parent.suffix)


def read_artifact(folder: Path, *, check_digests: bool = False) -> Artifact:
    """The artifact in a folder, by its manifest and the sizes of its files."""
    manifest = read_manifest(folder)
    if manifest.get("format", FORMAT) != FORMAT:
        raise _unusable(folder, "was made by another version of panda")
    try:
        sizes = {name: int(file["bytes"]) for name, file in manifest["files"].items()}
        found = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}
        unlisted = {path.name for path in folder.iterdir() if path.suffix in _LISTED} - sizes.keys()
        fields = {name: manifest[name] for name in ("model", "form", "commit", "digest")}
        artifact = Artifact(folder=folder, bytes=sum(sizes.values()), **fields)
        texts = (fields | {"commit": artifact.commit or ""}).values()
        is_valid = (
            bool(sizes)
            and sizes.items() <= found.items()
            and unlisted <= {MANIFEST}
            and all(isinstance(text, str) for text in texts)
            and artifact.form in QUANTS
            and folder.name == artifact_folder(artifact.digest, artifact.form).name
        )
        if is_valid and check_digests:
            files = manifest["files"].items()
            is_valid = all(file_digest(folder / name) == file["sha256"] for name, file in files)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise _unusable(folder) from error
    if not is_valid:
        raise _unusable(folder)
    return artifact


def _unusable(folder: Path, why: str = "is damaged") -> ModelError:
    hint = f"remove the folder {folder}, and panda will make it again"
    return ModelError(f"the quantised copy in {folder} {why}", hint)


def read_manifest(folder: Path) -> dict[str, Any]:
    return _read_or_empty(folder / MANIFEST)


def write_manifest(
    folder: Path,
    *,
    model: str,
    form: str,
    commit: str | None,
    digest: str,
    source_files: dict[str, str],
) -> Artifact:
    """Describe the files in place, and the sha256 of the checkpoint's; may raise an OSError."""
    paths = sorted(path for path in folder.iterdir() if path.name != MANIFEST)
    files = {path.name: {"bytes": path.stat().st_size, "sha256": hash_file(path)} for path in paths}
    fields = {"model": model, "form": form, "commit": commit, "digest": digest}
    manifest = {"format": FORMAT, **fields, "source_files": source_files, "files": files}
    _write_json(folder / MANIFEST, manifest)
    return Artifact(model, form, folder, commit, digest, sum(p.stat().st_size for p in paths))


def publish_artifact(artifact: Artifact) -> Artifact:
    """Move an artifact from its staging folder to its final one; may raise an OSError."""
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
    """Delete artifacts of other checkpoints of a known model, and record the commit in the rest."""
    if artifact.model not in MODELS:
        return artifact
    for other in all_artifacts():
        manifest = other.folder / MANIFEST
        if other.model != artifact.model:
            continue
        if other.digest != artifact.digest:
            remove_folder(other.folder)
        elif commit and other.commit != commit:
            with os_errors("write", manifest):
                _write_json(manifest, read_manifest(other.folder) | {"commit": commit})
    return replace(artifact, commit=commit or artifact.commit)


def remove_folder(folder: Path) -> None:
    """Delete the folder of an artifact, its manifest last: it names the model to the end."""
    target = folder.resolve()  # it may be a link to another disk
    with os_errors("remove", folder):
        for path in target.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != MANIFEST:
                path.unlink()
        shutil.rmtree(target)
        if folder.is_symlink():
            folder.unlink()


def hash_checkpoint(folder: Path, weights: list[Path]) -> tuple[str, dict[str, str]]:
    """The sha256 of what a model is loaded from, and of each file by name; may raise an OSError."""
    small = [folder / name for name in ("config.json", "tokenizer.model")]
    files = {path.name: file_digest(path) for path in (*small, *weights)}
    lines = "".join(f"{name} {digest}\n" for name, digest in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest(), files


def file_digest(path: Path) -> str:
    """The sha256 of a file in hexadecimal; a file that has not changed is not read again."""
    target = path.resolve()
    state = _state(target)  # before hashing: a later change must show
    match _read_or_empty(_digests_file()).get(str(target)):
        case [*known_state, str(known)] if known_state == state:
            return known
    digest = hash_file(target)
    cache_digest(target, digest, state)
    return digest


def hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_digest(path: Path, digest: str, state: list[int] | None = None) -> None:
    """Cache the known digest of a file, by default for its current state."""
    target = path.resolve()
    state = state or _state(target)
    if state[0] > _BLOCK:
        _write_digests(_read_or_empty(_digests_file()) | {str(target): [*state, digest]})


def drop_digests(folders: Iterable[Path]) -> None:
    paths = (path for folder in folders if folder.is_dir() for path in folder.iterdir())
    dropped = {str(path.resolve()) for path in paths}
    known = _read_or_empty(_digests_file())
    if dropped & known.keys():
        _write_digests({path: value for path, value in known.items() if path not in dropped})


def _state(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _digests_file() -> Path:
    return panda_home() / "digests.json"


def _write_digests(digests: dict[str, Any]) -> None:
    with suppress(OSError):  # the files are hashed again next time
        _digests_file().parent.mkdir(parents=True, exist_ok=True)
        _write_json(_digests_file(), digests)


def _read_or_empty(path: Path) -> dict[str, Any]:
    try:
        return read_object(path)
    except (OSError, ValueError):
        return {}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    atomic_write_text(path, json.dumps(content, indent=2) + "\n")
