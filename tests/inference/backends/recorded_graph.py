"""A stand-in for CUDA graphs on the CPU: operations are recorded, and repeated on the same tensors.

Whatever a recorded computation read from Python stays as it was, as in a CUDA graph.
"""

from contextlib import nullcontext
from typing import Any, Self

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class RecordedGraph(TorchDispatchMode):
    """Has the interface of `torch.cuda.CUDAGraph`."""

    captures = 0

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def capture_begin(self, capture_error_mode: str) -> None:
        assert capture_error_mode == "thread_local"
        RecordedGraph.captures += 1
        self.__enter__()

    def capture_end(self) -> None:
        self.__exit__(None, None, None)

    def __torch_dispatch__(  # type: ignore[override]
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, made))
        return made

    def replay(self) -> None:
        for func, args, kwargs, made in self.calls:
            for old, new in zip(tree_leaves(made), tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


class Stream:
    """Has what is used of `torch.cuda.Stream`."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def wait_stream(self, other: Self) -> None:
        assert other.device == self.device


def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `torch.cuda` record on the CPU."""
    RecordedGraph.captures = 0
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", RecordedGraph)
