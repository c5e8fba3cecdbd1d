"""The KV cache of a clip: the prefix that its requests share, and how the disk identifies it."""

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pandacli.checkpoints.resolve import DamagedError
from pandacli.errors import ModelError
from pandacli.inference.backends import Sequence, SequenceBatch
from pandacli.inference.planning.devices import cpu_flags
from pandacli.prefix_cache.clip_cache import CacheModel
from pandacli.quantization.int8 import input_steps

if TYPE_CHECKING:
    from pandacli.inference.panda import Panda


class SharedPrefix:
    """The KV cache of a clip: its prefix, and behind it the last request that ran alone.

    Args:
        sequence: Holds the prefix and nothing else.
        computed: Whether it was computed, or restored from the disk.

    Attributes:
        length: Tokens of the prefix.
        prefilled: Tokens that were computed before answers so far, the prefix included where it
            was computed; it only grows.
    """

    def __init__(self, sequence: Sequence, *, computed: bool = True) -> None:
        self._sequence = sequence
        self._held: list[int] = []  # ids behind the prefix
        self.length = sequence.length
        self.prefilled = self.length if computed else 0

    def append(self, ids: list[int], history: int = 0) -> Tensor:
        """Prefill the ids of a request behind the prefix.

        Of the first `history` ids (earlier turns), those that the cache holds already are kept.
        All others are computed, so that no answer depends on an earlier request.

        Returns:
            (vocabulary,) the logits of the first token of the answer.
        """
        kept = _common_start(self._held, ids[:history])
        del self._held[kept:]
        self._sequence.truncate(self.length + kept)
        logits = self._sequence.append(ids[kept:])
        self._held += ids[kept:]
        self.prefilled += len(ids) - kept
        return logits

    def decode(self, token: int) -> Tensor:
        """Append one token of the answer; returns the logits (vocabulary,) of the next."""
        logits = self._sequence.append([token])
        self._held.append(token)
        return logits

    def batch(self, room: int) -> SequenceBatch:
        """Sequences that each go on from the prefix; see `Sequence.batch`."""
        self._held.clear()
        self._sequence.truncate(self.length)
        return self._sequence.batch(room)

    def save(self, path: Path) -> None:
        """Write the prefix alone to a file.

        Raises:
            OSError: The file cannot be written.
        """
        self._sequence.save(path, self.length)

    @property
    def saved_bytes(self) -> int:
        """About how many bytes `save` writes."""
        return self._sequence.saved_bytes(self.length)


def _common_start(ours: list[int], theirs: list[int]) -> int:
    """How many ids two sequences have in common before they part."""
    pairs = zip(ours, theirs, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(ours), len(theirs)))


def cache_model(panda: "Panda") -> CacheModel:
    """What the prefix cache has to know of a model."""

    def digest() -> str | None:
        try:
            return panda.identity
        except DamagedError:
            raise
        except ModelError:  # its files can no longer be read
            return None

    context: int = panda.model.config.max_position_embeddings
    return CacheModel(panda.name, panda.quant, panda.engine, context, numerics(panda), digest)


def numerics(panda: "Panda") -> dict[str, Any]:
    """What decides how the keys and values of a model are rounded, apart from its weights."""
    facts: dict[str, Any] = {
        "quant": panda.quant,
        "engine": panda.engine,
        "dtype": panda.dtype,
        "device": panda.device.partition(":")[0],
        "torch": torch.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "versions": {name: version(name) for name in ("transformers", "av", "pillow")},
    }
    if panda.device.startswith("cuda") and torch.cuda.is_available():
        cards = (device for device in panda.devices if device.startswith("cuda"))
        facts["cards"] = sorted({torch.cuda.get_device_name(card) for card in cards})
    if panda.engine == "torch" and panda.quant != "none":
        facts["input_steps"] = input_steps()
    if panda.engine != "torch":  # these choose their kernels by the instructions of the CPU
        facts["instructions"] = sorted(cpu_flags() or ())
    if panda.engine == "bitsandbytes":
        facts["bitsandbytes"] = version("bitsandbytes")
    if panda.engine == "llama":
        from pandacli.quantization.llama_library import VERSION

        facts["llama"] = VERSION
    return facts
