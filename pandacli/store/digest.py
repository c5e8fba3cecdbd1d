"""The sha256 of a checkpoint, by which its quantised copies are found again.

Hashing 13 GB takes many seconds, so a file's digest is remembered with its size and time of last
change. In the Hugging Face cache a large file's digest is its name.
"""

import hashlib
import re
from pathlib import Path

from pandacli.store.memory import recall, remember

_BLOCK = 1 << 22
_MEMORY = "digests"


def checkpoint_digest(folder: Path, weights: list[Path]) -> tuple[str, dict[str, str]]:
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
    if target.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", target.name):
        return target.name
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


def _state(path: Path) -> list[int]:
    """What is another once a file has changed."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _remember(path: Path, state: list[int], digest: str) -> None:
    if state[0] > _BLOCK:
        remember(_MEMORY, str(path), [*state, digest])
