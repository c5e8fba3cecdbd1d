"""Which models exist, and where their files are on this machine.

Nothing here imports torch or reaches the network, so a missing model is told at once.
"""

from pandacli.store.catalogue import DEFAULT_MODEL, MODELS, KnownModel
from pandacli.store.places import home
from pandacli.store.resolve import ResolvedModel, resolve

__all__ = ["DEFAULT_MODEL", "MODELS", "KnownModel", "ResolvedModel", "home", "resolve"]
