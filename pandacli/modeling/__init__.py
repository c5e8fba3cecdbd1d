"""Video-Panda: `VideoPanda`, which panda runs, and the same model as classes of transformers.

Those are imported on first use: transformers takes longer to import than a small model to load.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandacli.modeling.configuration_videopanda import VideoPandaConfig
    from pandacli.modeling.modeling_videopanda import VideoPandaForConditionalGeneration
    from pandacli.modeling.processing_videopanda import VideoPandaProcessor
    from pandacli.modeling.tokenization_videopanda import (
        VideoPandaTokenizer,
        build_prompt,
        encode_prefix,
        encode_prompt,
    )

_PROMPT = ("VideoPandaTokenizer", "build_prompt", "encode_prefix", "encode_prompt")
_MODULES = {
    # the first one registers all three with `Auto...`
    **dict.fromkeys(("VideoPandaConfig", "VideoPandaProcessor"), "modeling_videopanda"),
    "VideoPandaForConditionalGeneration": "modeling_videopanda",
    **dict.fromkeys(_PROMPT, "tokenization_videopanda"),
}

__all__ = [
    "VideoPandaConfig",
    "VideoPandaForConditionalGeneration",
    "VideoPandaProcessor",
    "VideoPandaTokenizer",
    "build_prompt",
    "encode_prefix",
    "encode_prompt",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
