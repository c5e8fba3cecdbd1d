"""Which models exist, where their files are on this machine, and how they come here.

Importing this does not import torch, so that a missing model is reported at once. Only
`plan_download` and `download` reach the network.
"""

from pandacli.store.catalogue import DEFAULT_MODEL, MODELS, KnownModel
from pandacli.store.describe import Description, canvas_side, describe
from pandacli.store.download import Downloaded, Progress, download
from pandacli.store.hub import is_offline
from pandacli.store.identity import identity
from pandacli.store.inventory import (
    ModelState,
    copy_bytes_to_come,
    find_model,
    forget_checks,
    inventory,
    is_ready,
    kept_copies,
    wants_download,
)
from pandacli.store.places import home
from pandacli.store.published import Plan, PublishedFile, plan_download
from pandacli.store.removal import Removal, plan_removal, remove, remove_download
from pandacli.store.resolve import ResolvedModel, locate, resolve

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
