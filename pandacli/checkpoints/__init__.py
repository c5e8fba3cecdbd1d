"""Which models exist, where their files are on this machine, and how they are downloaded.

Nothing here imports torch, and only `hub` and `download` use the network. What is missing, damaged
or cannot be read or written is a `ModelError`, where a docstring does not name another error.
"""

from pandacli.checkpoints.registry import DEFAULT_MODEL, MODELS, KnownModel
from pandacli.checkpoints.resolve import ResolvedModel, model_digest, read_image_size, resolve

__all__ = [
    "DEFAULT_MODEL",
    "MODELS",
    "KnownModel",
    "ResolvedModel",
    "model_digest",
    "read_image_size",
    "resolve",
]
