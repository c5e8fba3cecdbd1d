"""Which models exist, where their files are on this machine, and how they are downloaded.

Importing this does not import torch, so that a missing model is reported at once. Only
`plan_download` and `download` use the network.
"""

from pandacli.checkpoints.description import (
    CheckpointInfo,
    describe_checkpoint,
    read_image_size,
)
from pandacli.checkpoints.download import Downloaded, Progress, download
from pandacli.checkpoints.hub import is_offline
from pandacli.checkpoints.inventory import (
    ModelState,
    Removal,
    artifact_bytes_missing,
    find_model,
    invalidate_digests,
    inventory,
    is_available,
    needs_hub,
    plan_removal,
    remove,
    remove_download,
    standalone_artifacts,
)
from pandacli.checkpoints.published import DownloadPlan, PublishedFile, plan_download
from pandacli.checkpoints.registry import DEFAULT_MODEL, MODELS, KnownModel, panda_home
from pandacli.checkpoints.resolve import ResolvedModel, find_checkpoint, model_digest, resolve

__all__ = [
    "DEFAULT_MODEL",
    "MODELS",
    "CheckpointInfo",
    "DownloadPlan",
    "Downloaded",
    "KnownModel",
    "ModelState",
    "Only",
    "Progress",
    "PublishedFile",
    "Removal",
    "ResolvedModel",
    "a",
    "artifact_bytes_missing",
    "at",
    "describe_checkpoint",
    "download",
    "find_checkpoint",
    "find_model",
    "invalidate_digests",
    "inventory",
    "is",
    "is_available",
    "is_offline",
    "missing",
    "model",
    "model_digest",
    "needs_hub",
    "once",
    "panda_home",
    "plan_download",
    "plan_removal",
    "read_image_size",
    "remove",
    "remove_download",
    "reported",
    "resolve",
    "so",
    "standalone_artifacts",
    "that",
    "torch",
]
