"""Find the KV cache of a clip on disk by a digest of all it depends on, and write it there.

A clip is identified by its content. Files of up to 64 MiB are hashed whole; of a longer one blocks
from beginning to end, together with its size, mtime and ctime (which no program can set back). So a
long file that was touched, moved or copied misses the cache; a changed one never hits it.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pandacli.checkpoints.artifacts import hash_file
from pandacli.checkpoints.resolve import DamagedError
from pandacli.errors import ModelError
from pandacli.prefix_cache.store import Entry, Metadata, PrefixStore
from pandacli.video.clip import Clip

if TYPE_CHECKING:
    from pandacli.video import Frames

COMPUTATION_VERSION = 5
"""Increment it with every change that gives other keys and values for the same clip: in decoding,
sampling, preprocessing, STAB, the Llama, or the KV file."""

_HASHED_WHOLE = 1 << 26
_BLOCK = 1 << 20
_BLOCKS = 32


def clip_digest(path: Path, *, whole: bool = False) -> str:
    """Hash the content of a video file, all of it with `whole`; an OSError if it cannot be read."""
    size = path.stat().st_size
    if whole or size <= _HASHED_WHOLE:
        return hash_file(path)
    digest = hashlib.sha256(repr(_file_state(path)).encode())
    with path.open("rb") as file:
        for number in range(_BLOCKS):
            file.seek(number * (size - _BLOCK) // (_BLOCKS - 1))
            digest.update(file.read(_BLOCK))
    return f"sample {digest.hexdigest()}"


def _file_state(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def entry_name(clip: str, model: str, numerics: Mapping[str, Any], ids: list[int]) -> str:
    """The name of an entry: the key of a clip, and a digest of all else that it depends on."""
    rest = {**numerics, "model": model, "maths": COMPUTATION_VERSION, "ids": ids}
    return f"{clip}-{_digest(rest)[:32]}"


def _digest(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


class ClipCache:
    """The cache entries of one clip, sampled at a number of frames; an OSError for its file."""

    def __init__(
        self,
        clip: Clip,
        num_frames: int,
        *,
        budget: int | None = None,  # this and `folder` as of `PrefixStore`
        whole: bool = False,  # as of `clip_digest`
        folder: Path | None = None,
    ) -> None:
        self.clip, self.num_frames = clip, num_frames
        self.store = PrefixStore(budget, folder)
        self._state = _file_state(clip.path)  # before hashing: a later change must show
        digest = clip_digest(clip.path, whole=whole)
        fields = {"clip": digest, "start": clip.start, "end": clip.end, "frames": num_frames}
        at = {"at": clip.at} if clip.at else {}  # keys of clips without times stay valid
        self.key = _digest(fields | at)[:16]  # the first part of the names of its entries

    @property
    def is_empty(self) -> bool:
        """Whether no model has an entry for this clip."""
        return not self.store.has_clip(self.key)

    @property
    def is_current(self) -> bool:
        """Whether the file has not changed since it was hashed."""
        try:
            return _file_state(self.clip.path) == self._state
        except OSError:
            return False


class Model(Protocol):
    """What the cache reads of a `Panda`."""

    name: str
    engine: str

    @property
    def quant(self) -> str: ...
    @property
    def context(self) -> int: ...
    @property
    def numerics(self) -> Mapping[str, Any]: ...
    @property
    def identity(self) -> str: ...


class Sequence(Protocol):
    """What the cache uses of a backend's `Sequence`."""

    @property
    def length(self) -> int: ...
    def save(self, path: Path, length: int) -> None: ...
    def saved_bytes(self, length: int) -> int: ...


_Sequence = TypeVar("_Sequence", bound=Sequence)


class CachedPrefix:
    """The cached prefix of a clip for one model and the ids of a system prompt and frames."""

    def __init__(self, model: Model, clip: ClipCache, ids: list[int]) -> None:
        self._model, self._clip, self._ids = model, clip, ids
        self._video = str(clip.clip.path.absolute())
        # without an entry of the clip, a large model need not be hashed now
        self._entry = None if clip.is_empty else self._find()
        if self._entry:
            clip.store.touch(self._entry, self._video)

    @property
    def tokens(self) -> int | None:
        """How many positions it has; None without an entry."""
        return self._entry.metadata.tokens if self._entry else None

    def frames(self) -> "Frames | None":
        """The sampled frames without their pixels; None without a usable entry."""
        if self._entry:
            try:
                return _frames_from_json(self._entry.frames())
            except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError):
                self._discard(self._entry)
        return None

    def restore(self, load: Callable[[Path], _Sequence]) -> _Sequence | None:
        """Load the KV cache; None without an entry, or if `load` raises a ModelError: damaged."""
        if self._entry:
            with suppress(ModelError):
                sequence = load(self._entry.kv)
                if sequence.length == self._entry.metadata.tokens:
                    return sequence
            self._discard(self._entry)
        return None

    def save(self, sequence: Sequence, length: int, frames: "Frames") -> None:
        """Write the prefix, the first `length` positions of a sequence; an OSError if that fails.

        Does nothing if it is cached already, exceeds the budget, or the clip has changed.
        """
        if self._entry or not self._clip.is_current or not (name := self._name()):
            return
        clip, frame_count, store = self._clip.clip, self._clip.num_frames, self._clip.store
        self._entry = store.find(name)
        if self._entry is None:
            model = self._model.name, self._model.quant, self._model.engine
            metadata = Metadata(self._video, *clip.extent, frame_count, *model, length)
            write = partial(sequence.save, length=length)
            store.add(name, metadata, _frames_to_json(frames), write, sequence.saved_bytes(length))

    def _find(self) -> Entry | None:
        name = self._name()
        entry = self._clip.store.find(name) if name else None
        # every frame's placeholder stands for at least one token
        if entry and not len(self._ids) <= entry.metadata.tokens <= self._model.context:
            self._discard(entry)
            return None
        return entry

    def _discard(self, entry: Entry) -> None:
        self._clip.store.remove(entry.folder)
        self._entry = None

    def _name(self) -> str | None:
        """The name of the entry; None if the checkpoint can no longer be read."""
        try:
            digest = self._model.identity
        except DamagedError:
            raise
        except ModelError:
            return None
        return entry_name(self._clip.key, digest, self._model.numerics, self._ids)


def _frames_to_json(frames: "Frames") -> dict[str, Any]:
    return {
        "indices": [int(index) for index in frames.indices],
        "times": [float(time) for time in frames.times],
        "notices": list(frames.notices),
        "info": asdict(frames.info),
    }


def _frames_from_json(fields: Mapping[str, Any]) -> "Frames":
    """Frames with pixels of shape (0, height, width, 3)."""
    import numpy as np

    from pandacli.video import Frames, VideoInfo

    timestamps = tuple(map(float, fields["info"]["timestamps"]))
    info = VideoInfo(**fields["info"] | {"timestamps": timestamps})
    indices, times = tuple(map(int, fields["indices"])), tuple(map(float, fields["times"]))
    if not indices or len(indices) != len(times):
        raise ValueError("frames without times")
    numbers = (info.width, info.height, info.fps, info.frame_count, info.duration)
    if not all(map(math.isfinite, (*times, *timestamps, *numbers))):
        raise ValueError("times that are not finite")
    if not isinstance(info.codec, str) or not isinstance(info.constant_rate, bool):
        raise ValueError("invalid facts of a video")
    pixels = np.empty((0, int(info.height), int(info.width), 3), np.uint8)
    return Frames(pixels, indices, times, info, tuple(map(str, fields["notices"])))
