"""Where a model is put: on one device, or its layers on several cards one after the other.

accelerate moves what flows from card to card. It is told which layers go where, rather than left to
find out, because it counts neither the KV cache nor what weights that are stored quantised take,
and would put what does not fit on the CPU or the disk.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pandacli.engine.sizes import Needed


@dataclass(frozen=True)
class Placement:
    """Where a model is put.

    Attributes:
        devices: The devices; the first reads frames and text, the last predicts.
        layers: How many decoder layers go on each, in order. It does not matter for one device.
    """

    devices: tuple[torch.device, ...]
    layers: tuple[int, ...] = ()

    @property
    def device_map(self) -> dict[str, torch.device]:
        """The device of each part of a `VideoPandaForConditionalGeneration`, for accelerate."""
        first, last = self.devices[0], self.devices[-1]
        if len(self.devices) == 1:
            return {"": first}
        parts = ("embed_tokens", "video_tower", "video_projector", "rotary_emb")
        placed = {f"model.{part}": first for part in parts}
        number = 0
        for device, count in zip(self.devices, self.layers, strict=True):
            for _ in range(count):
                placed[f"model.layers.{number}"] = device
                number += 1
        return placed | {"model.norm": last, "lm_head": last}

    def __str__(self) -> str:
        """The devices as they stand in a sentence."""
        *others, last = map(str, self.devices)
        last = "the CPU" if last == "cpu" else last
        return f"{', '.join(others)} and {last}" if others else last


ON_CPU = Placement((torch.device("cpu"),))


def place(needed: Needed, free: Sequence[tuple[torch.device, int]]) -> Placement | None:
    """Where a model fits: on the first device that holds all of it, else on as few as will do.

    Args:
        needed: What its parts take.
        free: The devices, and how many bytes are free on each.

    Returns:
        The placement; None where the model does not fit.
    """
    for device, room in free:
        if needed.total <= room:
            return Placement((device,))
    for count in range(2, len(free) + 1):
        devices, rooms = zip(*free[:count], strict=True)
        if layers := _share_out(needed, list(rooms)):
            return Placement(devices, layers)
    return None


def _share_out(needed: Needed, rooms: list[int]) -> tuple[int, ...] | None:
    """How many layers each device gets, so that all are left with about the same room."""
    rooms[0] -= needed.front
    rooms[-1] -= needed.back
    counts = [0] * len(rooms)
    for _ in range(needed.layers):
        roomiest = rooms.index(max(rooms))
        rooms[roomiest] -= needed.layer
        counts[roomiest] += 1
    return tuple(counts) if min(rooms) >= 0 else None
