"""The environment variables that change what panda and its libraries do, without their secrets."""

import os
import re
from collections.abc import Mapping

from pandacli.engine.facts import Fact, Section

_TELLING = re.compile(
    r"(PANDA|HF|HUGGING_?FACE|OMP|MKL|CUDA|PYTORCH)_|TRANSFORMERS_OFFLINE$|(NO|FORCE)_COLOR$"
)
_SECRET = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|AUTH|KEY")
_LOGIN = re.compile(r"(?<=://)[^/@\s]*@")  # user:password@ in an address


def environment(variables: Mapping[str, str] = os.environ) -> Section:
    """The variables that are set; of those that may hold a secret only that they are."""
    told = [name for name in sorted(variables) if _TELLING.match(name)]
    return Section("Variables", [Fact(name, _shown(name, variables[name])) for name in told])


def _shown(name: str, value: str) -> str:
    return "(set, not shown)" if _SECRET.search(name) else _LOGIN.sub("…@", value)
