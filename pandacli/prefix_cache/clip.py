"""A clip's prefix on the disk: found again where nothing that it depends on has changed.

It depends on what the clip holds and what is looked at of it, on the model and the form it is run
in, on the tokens around the frames, and on how all this is computed. The last is `MATHS`.

By what a clip is known again, wherever it lies and whatever it is called: its content.

Up to 64 MiB are read whole. Of a longer file a sample is: its beginning, its end, and blocks spread
between them. The rest may have been changed, so with a sample go the times of the last change:
mtime, and ctime, which no program can set back. A long file that was touched, moved or copied
counts as another, which costs time and is never wrong.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pandacli.checkpoints.digest import hash_file
from pandacli.checkpoints.identity import DamagedError
from pandacli.errors import ModelError
from pandacli.prefix_cache.disk import Entry, Label, Prefixes, entry_name
from pandacli.video.clip import Clip

if TYPE_CHECKING:
    from pandacli.inference.backends import Sequence
    from pandacli.inference.panda import Panda
    from pandacli.inference.prefix import PrefixCache
    from pandacli.video import Frames

_WHOLE = 1 << 26
_BLOCK = 1 << 20
_BLOCKS = 32


def clip_digest(path: Path, *, whole: bool = False) -> str:
    """What tells the content of a file from that of others.

    Args:
        path: The file.
        whole: Read all of it, however long it is; its name and times then count for nothing.

    Raises:
        OSError: It cannot be read.
    """
    status = path.stat()
    if whole or status.st_size <= _WHOLE:
        return hash_file(path)
    state = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    digest = hashlib.sha256(repr(state).encode())
    with path.open("rb") as file:
        for number in range(_BLOCKS):
            file.seek(number * (status.st_size - _BLOCK) // (_BLOCKS - 1))
            digest.update(file.read(_BLOCK))
    return f"sample {digest.hexdigest()}"


MATHS = 3
"""To be raised with every change after which the same frames give other keys and values: in what
frames are sampled and how they are decoded, in preprocessing, STAB, the Llama, or the file."""


class ClipPrefixes:
    """What is on the disk of one clip, looked at as so many frames.

    Args:
        clip: The file and the range.
        num_frames: How many frames the model is shown.
        budget: The most bytes that all prefixes take together; None for `usual_budget`.
        whole: Tell the clip from others by all of its bytes, however long it is.
        folder: Where they are kept; None for the usual place.

    Raises:
        OSError: The file cannot be read.
        UsageError: No budget is given, and `PANDA_CACHE_SIZE` is no size.
    """

    def __init__(
        self,
        clip: Clip,
        num_frames: int,
        *,
        budget: int | None = None,
        whole: bool = False,
        folder: Path | None = None,
    ) -> None:
        self.clip, self.num_frames = clip, num_frames
        self.prefixes = Prefixes(budget, folder)
        self._state = _state(clip.path)  # of before: what is changed meanwhile is not kept
        self.fields = {
            "clip": clip_digest(clip.path, whole=whole),
            "start": clip.start,
            "end": clip.end,
            "frames": num_frames,
        }

    @property
    def any(self) -> bool:
        """Whether there is anything, of whatever model."""
        return self.prefixes.knows(self.fields)

    @property
    def unchanged(self) -> bool:
        """Whether the file is still the one that was asked about."""
        try:
            return _state(self.clip.path) == self._state
        except OSError:
            return False


class KeptPrefix:
    """The prefix of a clip on the disk, as one model reads it.

    Args:
        panda: The model.
        clip: What there is of the clip.
        ids: The tokens of the prefix, with a placeholder for each frame.
    """

    def __init__(self, panda: "Panda", clip: ClipPrefixes, ids: list[int]) -> None:
        self.clip = clip
        self._panda, self._ids = panda, ids
        # a large model is hashed for its identity, which nobody should wait for in vain
        self._entry = self._find() if clip.any else None
        self._known = self._entry is not None
        if self._entry:
            clip.prefixes.use(self._entry, self._video)

    @property
    def tokens(self) -> int | None:
        """How many positions it has; None where it is not there."""
        return self._entry.label.tokens if self._entry else None

    def frames(self) -> "Frames | None":
        """What was sampled from the clip, without the pictures; None where it is not there."""
        if self._entry is None:
            return None
        try:
            return _frames(self._entry.frames())
        except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError):
            self._drop()
            return None

    def restore(self) -> "Sequence | None":
        """The model, having read it; None where it is not there, or was damaged.

        Raises:
            DeviceError: There is no memory for it.
        """
        if self._entry is None:
            return None
        try:
            reading = self._panda.backend.restore(self._entry.kv)
        except ModelError:
            self._drop()
            return None
        if reading.length != self._entry.label.tokens:
            self._drop()
            return None
        return reading

    def keep(self, prefix: "PrefixCache", frames: "Frames") -> None:
        """Write it to the disk, unless it is there, or would be more than the budget alone.

        Raises:
            OSError: It cannot be written.
        """
        if self._known or not self.clip.unchanged:
            return
        name = self._name()
        if name is None:
            return
        if self.clip.prefixes.find(name) is None:
            expected = prefix.saved_bytes
            label = self._label(prefix.length)
            self.clip.prefixes.add(name, label, _facts(frames), prefix.save, expected)
        self._known = True

    @property
    def _video(self) -> str:
        return str(self.clip.clip.path.absolute())

    def _find(self) -> Entry | None:
        name = self._name()
        entry = self.clip.prefixes.find(name) if name else None
        if entry and not self._is_possible(entry.label):
            self.clip.prefixes.remove(entry.folder)
            return None
        return entry

    def _is_possible(self, label: Label) -> bool:
        """Whether the number of tokens in a label can be that of this prefix."""
        # every frame's placeholder stands for at least one token
        longest: int = self._panda.model.config.max_position_embeddings
        return len(self._ids) <= label.tokens <= longest

    def _drop(self) -> None:
        if self._entry:
            self.clip.prefixes.remove(self._entry.folder)
        self._entry, self._known = None, False

    def _name(self) -> str | None:
        """The name of the entry; None where the model's files can no longer be read."""
        try:
            model = self._panda.identity
        except DamagedError:
            raise
        except ModelError:
            return None
        return entry_name(self.clip.fields, _form(self._panda, model) | {"ids": self._ids})

    def _label(self, tokens: int) -> Label:
        clip, panda = self.clip.clip, self._panda
        return Label(
            video=self._video,
            start=clip.start,
            end=clip.end,
            frames=self.clip.num_frames,
            model=panda.name,
            quant=panda.quant,
            engine=panda.engine,
            tokens=tokens,
        )


def _form(panda: "Panda", model: str) -> dict[str, Any]:
    """The model, its form, and the software that computes: another may round otherwise."""
    import torch

    form: dict[str, Any] = {
        "model": model,
        "quant": panda.quant,
        "engine": panda.engine,
        "dtype": panda.dtype,
        "device": panda.device.partition(":")[0],
        "maths": MATHS,
        "torch": torch.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "versions": {name: version(name) for name in ("transformers", "av", "pillow")},
    }
    if panda.device.startswith("cuda") and torch.cuda.is_available():
        cards = (device for device in panda.devices if device.startswith("cuda"))
        form["cards"] = sorted({torch.cuda.get_device_name(card) for card in cards})
    if panda.engine == "torch" and panda.quant != "none":
        from pandacli.quantization.int8 import _input_steps

        form["input_steps"] = _input_steps()
    if panda.engine != "torch":  # these pick their kernels by the instructions of the CPU
        from pandacli.diagnostics.machine import cpu_flags

        form["instructions"] = sorted(cpu_flags() or ())
    if panda.engine == "bitsandbytes":
        form["bitsandbytes"] = version("bitsandbytes")
    if panda.engine == "llama":
        from pandacli.quantization.llama_library import VERSION

        form["llama"] = VERSION  # whose own files these are
    return form


def _state(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _facts(frames: "Frames") -> dict[str, Any]:
    """All that there is to say of frames but their pictures."""
    return {
        "indices": [int(index) for index in frames.indices],
        "times": [float(time) for time in frames.times],
        "notices": list(frames.notices),
        "info": asdict(frames.info),
    }


def _frames(facts: Mapping[str, Any]) -> "Frames":
    """Frames of facts, with no picture.

    Raises:
        ValueError, TypeError, KeyError: These are not the facts of frames.
    """
    import numpy as np

    from pandacli.video import Frames, VideoInfo

    timestamps = tuple(map(float, facts["info"]["timestamps"]))
    info = VideoInfo(**facts["info"] | {"timestamps": timestamps})
    indices, times = tuple(map(int, facts["indices"])), tuple(map(float, facts["times"]))
    if not indices or len(indices) != len(times):
        raise ValueError("frames without times")
    numbers = (info.width, info.height, info.fps, info.frame_count, info.duration)
    if not all(math.isfinite(number) for number in (*times, *timestamps, *numbers)):
        raise ValueError("times that are not finite")
    if not isinstance(info.codec, str) or not isinstance(info.constant_rate, bool):
        raise ValueError("no facts of a video")
    pixels = np.empty((0, int(info.height), int(info.width), 3), np.uint8)
    return Frames(pixels, indices, times, info, tuple(map(str, facts["notices"])))
