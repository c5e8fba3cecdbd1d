"""Load a model once, and answer many questions about a clip behind one KV cache.

    RunSpec --resolved once--> Panda --open(clip)--> VideoSession --generate(requests)--> answers

Importing this package is cheap: torch is imported when a model is loaded.
"""

from typing import TYPE_CHECKING, Any

from pandacli.inference.panda import Panda
from pandacli.inference.spec import (
    Answer,
    AnswerStream,
    GenerationOptions,
    Request,
    RunSpec,
    Stats,
    check_frame_count,
)

if TYPE_CHECKING:
    from pandacli.inference.session import VideoSession

__all__ = [
    "Answer",
    "AnswerStream",
    "GenerationOptions",
    "Panda",
    "Request",
    "RunSpec",
    "Stats",
    "VideoSession",
    "check_frame_count",
]


def __getattr__(name: str) -> Any:
    if name == "VideoSession":
        from pandacli.inference.session import VideoSession

        return VideoSession
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
