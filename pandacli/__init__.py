"""Ask questions about a video, on your own machine, with Video-Panda.

    from pandacli import Panda
    print(Panda.load("tiny").ask("clip.mp4", "what happens?"))

Importing this package is cheap: torch and the rest are imported when a model is loaded.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandacli.inference import Panda

__version__ = "0.1.0"

__all__ = ["Panda", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "Panda":
        from pandacli.inference import Panda

        return Panda
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
