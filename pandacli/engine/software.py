"""What is installed: the libraries that panda stands on, and the engines that they make up."""

import importlib
import platform
import sys
from functools import partial
from importlib import metadata
from importlib.util import find_spec

from packaging.requirements import Requirement

from pandacli import __version__
from pandacli.engine.facts import Fact, Section, find

LIBRARIES = {
    "torch": "torch",
    "transformers": "transformers",
    "accelerate": "accelerate",
    "bitsandbytes": "bitsandbytes",
    "av": "av",
    "pillow": "PIL",
    "huggingface_hub": "huggingface_hub",
}
"""The distributions that are most often at fault, and the modules that they install."""

_READY = "ready"


def software() -> Section:
    """Versions, and whether each library is the one panda needs and can be imported."""
    return Section(
        "Software",
        [
            Fact("panda", __version__),
            Fact("Python", f"{platform.python_version()} in {sys.prefix}"),
            find("system", _system),
            find("libc", lambda: " ".join(platform.libc_ver()).strip() or None),
            *(find(name, partial(_library, name)) for name in LIBRARIES),
        ],
    )


def engines() -> Section:
    """What can compute a model here, and why the rest cannot."""
    return Section(
        "Engines",
        [
            find("torch", lambda: _engine("torch")),
            find("bitsandbytes", lambda: _engine("bitsandbytes")),
            find("llama", _llama),
        ],
    )


def ready(found: Section) -> set[str]:
    """The names of the engines that work here, from what `engines` found."""
    return {fact.name for fact in found.facts if fact.value == _READY}


def requirements() -> list[Requirement]:
    """What the distribution pandacli asks for, its extras left out."""
    everything = [Requirement(line) for line in metadata.requires("pandacli") or ()]
    return [r for r in everything if not r.marker or r.marker.evaluate({"extra": ""})]


def _system() -> str:
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        name = platform.platform(terse=True)
    return f"{name}, {platform.system()} {platform.release()}, {platform.machine()}"


def _library(name: str) -> Fact:
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Fact(name, None, f"not installed: pip install {name}")
    for wanted in requirements():
        if wanted.name == name and not wanted.specifier.contains(version, prereleases=True):
            return Fact(name, version, f"panda needs {name}{wanted.specifier}")
    return Fact(name, version, _trouble_importing(LIBRARIES[name]))


def _engine(module: str) -> Fact:
    trouble = _trouble_importing(module)
    return Fact(module, None if trouble else _READY, trouble)


def _llama() -> Fact:
    """llama.cpp is optional: not to have it is no problem, to have it broken is one."""
    from pandacli.store.llama_library import PACKAGE, llama_library

    missing = [module for module in (PACKAGE, "gguf") if find_spec(module) is None]
    if missing:
        return Fact("llama", f"no {' and no '.join(missing)}: pip install 'pandacli[llama]'")
    llama_library()
    return Fact("llama", _READY)


def _trouble_importing(module: str) -> str | None:
    return find(module, lambda: bool(importlib.import_module(module))).problem
