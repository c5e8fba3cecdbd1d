"""Which models exist, where their files are on this machine, and how they come here.

Nothing here imports torch, so a missing model is told at once. Only `plan_download` and `download`
reach the network.
"""

from pandacli.store.catalogue import DEFAULT_MODEL, MODELS, KnownModel
from pandacli.store.download import Downloaded, Progress, download
from pandacli.store.places import home
from pandacli.store.published import Plan, PublishedFile, plan_download
from pandacli.store.resolve import ResolvedModel, resolve

__all__ = [
    "DEFAULT_MODEL",
    "MODELS",
    "Downloaded",
    "KnownModel",
    "Plan",
    "Progress",
    "PublishedFile",
    "ResolvedModel",
    "download",
    "home",
    "plan_download",
    "resolve",
]
