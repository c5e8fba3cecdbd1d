"""The sha256 of a checkpoint, by which its quantised copies are found again.

Hashing 13 GB takes many seconds, so the digest of a large file is remembered with its size, the
times of its last change (mtime and ctime) and its inode. A file that was written to, replaced or
restored with its old mtime is therefore hashed again. A change below the file system, as by a
failing disk, is not noticed until `panda pull` calls `drop_digests`. The name of a file in the
Hugging Face cache, which should be its digest, is not relied on.

What took long to find out, kept in small JSON files under `PANDA_HOME`.

Losing such a file costs time and nothing else, so trouble with it is no error.
"""

import hashlib
import json
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from pandacli.checkpoints.registry import panda_home
from pandacli.file_io import atomic_write_text, read_object


def recall(name: str) -> dict[str, Any]:
    """All that is remembered under a name; nothing where the file is missing or damaged."""
    try:
        return read_object(panda_home() / f"{name}.json")
    except (OSError, ValueError):
        return {}


def remember(name: str, key: str, value: Any) -> None:
    """Keep a value under a name; where nothing can be written, it is found out again next time."""
    _write(name, recall(name) | {key: value})


def forget(name: str, keys: Collection[str]) -> None:
    """Drop values that are kept under a name."""
    known = recall(name)
    kept = {key: value for key, value in known.items() if key not in keys}
    if kept != known:
        _write(name, kept)


def _write(name: str, values: dict[str, Any]) -> None:
    file = panda_home() / f"{name}.json"
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_text(file, json.dumps(values, indent=1) + "\n")


_BLOCK = 1 << 22
_MEMORY = "digests"


def hash_checkpoint(folder: Path, weights: list[Path]) -> tuple[str, dict[str, str]]:
    """Hash what a model is loaded from: weights, configuration and vocabulary.

    Args:
        folder: The checkpoint folder.
        weights: Its weight files.

    Returns:
        The digest of the whole, and of each file by its name.
    """
    small = [folder / name for name in ("config.json", "tokenizer.model")]
    files = {path.name: file_digest(path) for path in (*small, *weights)}
    lines = "".join(f"{name} {digest}\n" for name, digest in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest(), files


def file_digest(path: Path) -> str:
    """The sha256 of a file, as hexadecimal digits."""
    target = path.resolve()
    match recall(_MEMORY).get(str(target)):
        case [*state, str(known)] if state == _state(target):
            return known
    state = _state(target)  # of before: what changes meanwhile is hashed again
    digest = hash_file(target)
    _remember(target, state, digest)
    return digest


def hash_file(path: Path) -> str:
    """The sha256 of a file that is read now, whatever is remembered."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def remember_digest(path: Path, digest: str) -> None:
    """Spare the next `file_digest` of a file the reading."""
    _remember(path.resolve(), _state(path), digest)


def drop_digests(folders: Iterable[Path]) -> None:
    """Have the files in these folders hashed again when their digests are next asked for."""
    paths = (path for folder in folders if folder.is_dir() for path in folder.iterdir())
    forget(_MEMORY, {str(path.resolve()) for path in paths})


def _state(path: Path) -> list[int]:
    """What is another once a file has changed."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _remember(path: Path, state: list[int], digest: str) -> None:
    if state[0] > _BLOCK:
        remember(_MEMORY, str(path), [*state, digest])
