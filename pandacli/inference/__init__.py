"""Load a model once, and answer many questions about a clip from one look at it.

    RunSpec --resolved once--> Panda --open(clip)--> VideoSession --generate(requests)--> answers

Importing this package is cheap: torch is imported when a model is loaded.
"""

from typing import TYPE_CHECKING, Any

from pandacli.inference.answer import Answer, AnswerStream, Stats
from pandacli.inference.panda import Panda
from pandacli.inference.spec import GenerationOptions, Request, RunSpec, check_frame_count

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
