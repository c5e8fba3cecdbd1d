"""Something that is computed from the weights of a module, and anew when they change."""

from collections.abc import Callable
from typing import Generic, NamedTuple, Self, TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)
T = TypeVar("T")


class _Stamp(NamedTuple):
    """What tells the weights of a module from others, without reading them all."""

    places: list[tuple[int, int, torch.dtype]]
    samples: list[float]


class Derived(Generic[M, T]):
    """A value made of a module's weights when it is first wanted, and kept while they are the same.

    Changes are noticed that torch counts (optimizers, `copy_`, `load_state_dict`), those of place
    or type (`to`, an assignment to `data`), and, as torch counts none of these, changes through
    `data` that show in the first or the last value of a tensor. It is neither saved nor copied with
    a module.

    Args:
        make: Makes the value of a module. It runs outside of inference mode, without gradients.
    """

    def __init__(self, make: Callable[[M], T]) -> None:
        self._make = make
        self._kept: tuple[_Stamp, list[Tensor], T] | None = None

    def of(self, module: M) -> T | None:
        """The value, or None where changes could not be noticed: inference tensors, no storage."""
        tensors = [*module.parameters(), *module.buffers()]
        if any(tensor.is_inference() or tensor.is_meta for tensor in tensors):
            return None
        stamp = _stamp(tensors)
        if self._kept is None or self._kept[0] != stamp:
            self._kept = None
            with torch.inference_mode(False), torch.no_grad():
                # the tensors are held, so that others cannot come to lie in their place
                self._kept = stamp, [tensor.detach() for tensor in tensors], self._make(module)
        return self._kept[2]

    def forget(self) -> None:
        """Drop the value; it is made anew when it is next wanted."""
        self._kept = None

    def __deepcopy__(self, _: object) -> Self:
        return type(self)(self._make)

    def __getstate__(self) -> dict[str, object]:
        return {"_make": self._make, "_kept": None}


def _stamp(tensors: list[Tensor]) -> _Stamp:
    places = [(tensor.data_ptr(), tensor._version, tensor.dtype) for tensor in tensors]
    with torch.no_grad():
        flat = [tensor.reshape(-1) for tensor in tensors if tensor.numel()]
        ends = [values[:: max(1, len(values) - 1)].double() for values in flat]
        samples = torch.cat(ends).tolist() if ends else []
    return _Stamp(places, samples)
