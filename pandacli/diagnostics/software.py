"""Check the installed libraries, the backends, and the environment variables."""

import importlib
import os
import platform
import re
import sys
from collections.abc import Container, Mapping
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from urllib.parse import urlsplit

from packaging.requirements import Requirement

from pandacli import __version__
from pandacli.diagnostics import Fact, Section, find

# distributions to check, and the modules that they install
_SAME_NAME = ("torch", "transformers", "accelerate", "bitsandbytes", "av", "huggingface_hub")
LIBRARIES = {name: name for name in _SAME_NAME} | {"pillow": "PIL"}
_READY = "ready"


def software_facts() -> Section:
    facts = [
        Fact("panda", __version__),
        Fact("Python", f"{platform.python_version()} in {sys.prefix}"),
        find("system", _system),
        find("libc", lambda: " ".join(platform.libc_ver()).strip() or None),
    ]
    facts += [find(name, partial(_library, name)) for name in LIBRARIES]
    return Section("Software", facts)


def backends() -> Section:
    built_in = [find(name, partial(_import, name)) for name in ("torch", "bitsandbytes")]
    return Section("Engines", [*built_in, find("llama", _llama)])


def ready(found: Section) -> set[str]:
    return {fact.name for fact in found.facts if fact.value == _READY}


def requirements() -> list[Requirement]:
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
        return Fact(name, problem=f"not installed: pip install {name}")
    for wanted in requirements():
        if wanted.name == name and not wanted.specifier.contains(version, prereleases=True):
            return Fact(name, version, f"panda needs {name}{wanted.specifier}")
    return Fact(name, version, find(name, partial(_import, LIBRARIES[name])).problem)


def _import(module: str) -> str:
    importlib.import_module(module)
    return _READY


def _llama() -> str:  # some platforms have no wheels, so only a broken one is a problem
    from pandacli.quantization.llama_library import INSTALL_COMMAND, PACKAGE, llama_library

    missing = [module for module in (PACKAGE, "gguf") if find_spec(module) is None]
    if missing:
        return f"no {' and no '.join(missing)}: {INSTALL_COMMAND}"
    llama_library()
    return _READY


HIDDEN = "(set, not shown)"

_RELEVANT = re.compile(r"(PANDA|HF|HUGGING_?FACE|OMP|MKL|CUDA|PYTORCH|TRANSFORMERS)_")
_ADDRESSES = ("HF_ENDPOINT", "PANDA_ADDRESS", "HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")
_SAFE_NAMES = """
    CUDA_DEVICE_ORDER CUDA_HOME CUDA_LAUNCH_BLOCKING CUDA_VISIBLE_DEVICES FORCE_COLOR HF_HOME
    HF_HUB_CACHE HF_HUB_DISABLE_SYMLINKS HF_HUB_DISABLE_XET HF_HUB_DOWNLOAD_TIMEOUT
    HF_HUB_ETAG_TIMEOUT HF_HUB_OFFLINE HF_XET_HIGH_PERFORMANCE MKL_NUM_THREADS NO_COLOR NO_PROXY
    OMP_NUM_THREADS PANDA_HOME PYTORCH_ALLOC_CONF PYTORCH_CUDA_ALLOC_CONF SSL_CERT_FILE
    TRANSFORMERS_OFFLINE
"""
_SAFE = frozenset(_SAFE_NAMES.split())


def environment(shown: Container[str] = (), variables: Mapping[str, str] = os.environ) -> Section:
    """Return the variables that matter, with values where they hold no secret."""
    facts = []
    for name in sorted(variables):
        known = name.upper() if name.lower().endswith("_proxy") else name
        if known in _ADDRESSES:
            facts.append(Fact(name, host_of(variables[name])))
        elif known in _SAFE or known in shown:
            facts.append(Fact(name, without_logins(variables[name])))
        elif _RELEVANT.match(name):
            facts.append(Fact(name, HIDDEN))
    return Section("Variables", facts)


def without_logins(text: str) -> str:
    """Reduce an address to its host; return other text as it is."""
    return host_of(text) if "://" in text else text


def host_of(address: str) -> str:
    """Return the scheme, host and port of an address, without login, path and query."""
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return HIDDEN
    scheme = f"{parts.scheme}://" if parts.scheme else ""
    return f"{scheme}{parts.hostname}{port}" if parts.hostname else HIDDEN
