"""The sha256 of checkpoints, by which models and their quantised artifacts are identified.

Hashing 13 GB takes many seconds, so the digest of a large file is cached under `PANDA_HOME` with
its size, mtime, ctime and inode: a file that was written to, replaced, or restored with its old
mtime is hashed again. A change below the file system, as by a failing disk, is not noticed until
`panda pull` calls `drop_digests`. The name of a file in the Hugging Face cache, which should be its
digest, is not trusted.
"""

import hashlib
import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from pandacli.checkpoints.registry import panda_home
from pandacli.file_io import atomic_write_text, read_object

_BLOCK = 1 << 22  # bytes; smaller files are not worth caching


def hash_checkpoint(folder: Path, weights: list[Path]) -> tuple[str, dict[str, str]]:
    """Hash what a model is loaded from: weights, configuration and vocabulary.

    Returns:
        The digest of the whole, and of each file by name.

    Raises:
        OSError: A file cannot be read.
    """
    small = [folder / name for name in ("config.json", "tokenizer.model")]
    files = {path.name: file_digest(path) for path in (*small, *weights)}
    lines = "".join(f"{name} {digest}\n" for name, digest in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest(), files


def file_digest(path: Path) -> str:
    """The sha256 of a file in hexadecimal; a file that has not changed is not read again."""
    target = path.resolve()
    match _read_cache().get(str(target)):
        case [*state, str(known)] if state == _state(target):
            return known
    state = _state(target)  # before hashing: a later change must show
    digest = hash_file(target)
    _cache(target, state, digest)
    return digest


def hash_file(path: Path) -> str:
    """The sha256 of a file in hexadecimal; the file is always read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def cache_digest(path: Path, digest: str) -> None:
    """Cache the known digest of a file for `file_digest`."""
    _cache(path.resolve(), _state(path), digest)


def drop_digests(folders: Iterable[Path]) -> None:
    """Drop the cached digests of the files in these folders."""
    paths = (path for folder in folders if folder.is_dir() for path in folder.iterdir())
    dropped = {str(path.resolve()) for path in paths}
    known = _read_cache()
    kept = {path: value for path, value in known.items() if path not in dropped}
    if kept != known:
        _write_cache(kept)


def _state(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _cache(path: Path, state: list[int], digest: str) -> None:
    if state[0] > _BLOCK:
        _write_cache(_read_cache() | {str(path): [*state, digest]})


def _read_cache() -> dict[str, Any]:
    """The cached states and digests by path; empty where the file is missing or damaged."""
    try:
        return read_object(_cache_file())
    except (OSError, ValueError):
        return {}


def _write_cache(digests: dict[str, Any]) -> None:
    with suppress(OSError):  # the files are hashed again next time
        _cache_file().parent.mkdir(parents=True, exist_ok=True)
        atomic_write_text(_cache_file(), json.dumps(digests, indent=1) + "\n")


def _cache_file() -> Path:
    return panda_home() / "digests.json"
