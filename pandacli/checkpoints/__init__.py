"""Which models exist, where their files are on this machine, and how they come here.

Importing this does not import torch, so that a missing model is reported at once. Only
`plan_download` and `download` reach the network.
"""

from pandacli.checkpoints.description import Description, canvas_side, describe
from pandacli.checkpoints.download import Downloaded, Progress, download
from pandacli.checkpoints.hub import is_offline
from pandacli.checkpoints.identity import identity
from pandacli.checkpoints.inventory import (
    ModelState,
    copy_bytes_to_come,
    find_model,
    forget_checks,
    inventory,
    is_ready,
    kept_copies,
    wants_download,
)
from pandacli.checkpoints.published import Plan, PublishedFile, plan_download
from pandacli.checkpoints.registry import DEFAULT_MODEL, MODELS, KnownModel, home
from pandacli.checkpoints.removal import Removal, plan_removal, remove, remove_download
from pandacli.checkpoints.resolve import ResolvedModel, locate, resolve

__all__ = [
    "DEFAULT_MODEL",
    "MODELS",
    "Description",
    "Downloaded",
    "KnownModel",
    "ModelState",
    "Plan",
    "Progress",
    "PublishedFile",
    "Removal",
    "ResolvedModel",
    "canvas_side",
    "copy_bytes_to_come",
    "describe",
    "download",
    "find_model",
    "forget_checks",
    "home",
    "identity",
    "inventory",
    "is_offline",
    "is_ready",
    "kept_copies",
    "locate",
    "plan_download",
    "plan_removal",
    "remove",
    "remove_download",
    "resolve",
    "wants_download",
]
