"""The environment variables that change what panda and its libraries do, without their secrets.

What is shown is a list of what is known to be safe. Of any other variable that may matter only the
name is shown, and of an address only the host.
"""

import os
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from pandacli.engine.facts import Fact, Section

HIDDEN = "(set, not shown)"

_TELLING = re.compile(r"(PANDA|HF|HUGGING_?FACE|OMP|MKL|CUDA|PYTORCH|TRANSFORMERS)_")
_ADDRESSES = ("HF_ENDPOINT", "PANDA_ADDRESS", "HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")
_PANDA = (
    "HOME MODEL QUANT ENGINE DEVICE FROM TO FRAMES CANVAS MAX_TOKENS TEMPERATURE SEED SYSTEM"
    " OFFLINE FORMAT OUTPUT_FORMAT VIDEO_DIR BATCH_SIZE FAIL_FAST SHARD WORKERS CACHE_SIZE"
    " FULL_HASH NO_FRAMES NO_LOG JSON STATS GRAPHICS QUIET DEBUG"
)
_SAFE = frozenset(
    (
        *(f"PANDA_{name}" for name in _PANDA.split()),
        "CUDA_DEVICE_ORDER",
        "CUDA_HOME",
        "CUDA_LAUNCH_BLOCKING",
        "CUDA_VISIBLE_DEVICES",
        "FORCE_COLOR",
        "HF_HOME",
        "HF_HUB_CACHE",
        "HF_HUB_DISABLE_SYMLINKS",
        "HF_HUB_DISABLE_XET",
        "HF_HUB_DOWNLOAD_TIMEOUT",
        "HF_HUB_ETAG_TIMEOUT",
        "HF_HUB_OFFLINE",
        "HF_XET_HIGH_PERFORMANCE",
        "MKL_NUM_THREADS",
        "NO_COLOR",
        "NO_PROXY",
        "OMP_NUM_THREADS",
        "PYTORCH_ALLOC_CONF",
        "PYTORCH_CUDA_ALLOC_CONF",
        "SSL_CERT_FILE",
        "TRANSFORMERS_OFFLINE",
    )
)


def environment(variables: Mapping[str, str] = os.environ) -> Section:
    """The variables that are set: the values of safe ones, the hosts of addresses, or the name."""
    facts = []
    for name in sorted(variables):
        known = name.upper() if name.lower().endswith("_proxy") else name
        if known in _ADDRESSES:
            facts.append(Fact(name, host_of(variables[name])))
        elif known in _SAFE:
            facts.append(Fact(name, without_logins(variables[name])))
        elif _TELLING.match(name):
            facts.append(Fact(name, HIDDEN))
    return Section("Variables", facts)


def without_logins(text: str) -> str:
    """A value that may be an address: of one only the host."""
    return host_of(text) if "://" in text else text


def host_of(address: str) -> str:
    """The scheme, host and port of an address: no login, path or query."""
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return HIDDEN
    scheme = f"{parts.scheme}://" if parts.scheme else ""
    return f"{scheme}{parts.hostname}{port}" if parts.hostname else HIDDEN
