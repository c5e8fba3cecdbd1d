"""Keys of the prefix cache: digests of everything that the KV cache of a clip depends on.

A clip is identified by its content, wherever the file lies. Files of up to 64 MiB are hashed whole.
Of a longer one, the beginning, the end and blocks between them are hashed together with its size,
mtime and ctime (which no program can set back): a long file that was touched, moved or copied
counts as another one, which costs time and is never wrong.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pandacli.checkpoints.digest import hash_file
from pandacli.video.clip import Clip

COMPUTATION_VERSION = 3
"""Raise it with every change after which the same frames give other keys and values: in sampling,
decoding, preprocessing, STAB, the Llama, or the KV file."""

_HASHED_WHOLE = 1 << 26
_BLOCK = 1 << 20
_BLOCKS = 32


def clip_digest(path: Path, *, whole: bool = False) -> str:
    """Hash the content of a video file.

    Args:
        path: The file.
        whole: Read all of it, however long it is, and ignore its times.

    Raises:
        OSError: It cannot be read.
    """
    size = path.stat().st_size
    if whole or size <= _HASHED_WHOLE:
        return hash_file(path)
    digest = hashlib.sha256(repr(file_state(path)).encode())
    with path.open("rb") as file:
        for number in range(_BLOCKS):
            file.seek(number * (size - _BLOCK) // (_BLOCKS - 1))
            digest.update(file.read(_BLOCK))
    return f"sample {digest.hexdigest()}"


def file_state(path: Path) -> tuple[int, int, int]:
    """Size, mtime and ctime of a file, in bytes and nanoseconds."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def clip_key(clip: Clip, num_frames: int, *, whole: bool = False) -> str:
    """The first part of an entry's name: the clip, its range and the number of frames.

    Raises:
        OSError: The file cannot be read.
    """
    fields = {
        "clip": clip_digest(clip.path, whole=whole),
        "start": clip.start,
        "end": clip.end,
        "frames": num_frames,
    }
    return _digest(fields)[:16]


def entry_name(clip: str, model: str, numerics: Mapping[str, Any], ids: list[int]) -> str:
    """The name of an entry.

    Args:
        clip: Of `clip_key`.
        model: The sha256 of the checkpoint.
        numerics: What decides how results are rounded: precision, device, versions.
        ids: The tokens of the prefix, with a placeholder for each frame.
    """
    rest = {**numerics, "model": model, "maths": COMPUTATION_VERSION, "ids": ids}
    return f"{clip}-{_digest(rest)[:32]}"


def _digest(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
