"""How much of the disk the prefix cache may take."""

import os
import re

from pandacli.errors import UsageError

VARIABLE = "PANDA_CACHE_SIZE"
BUDGET = 4_000_000_000
"""The most bytes that all entries take together, where nothing else is said."""

_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,18})?) *([KMGT]?)(I?)B?", re.ASCII)


def usual_budget() -> int:
    """The most bytes where the caller names none: what the variable says, or `BUDGET`.

    Raises:
        UsageError: The variable holds no size.
    """
    text = os.environ.get(VARIABLE)
    try:
        return byte_count(text) if text else BUDGET
    except ValueError as error:
        raise UsageError(f"{VARIABLE}: {error}") from error


def byte_count(text: str) -> int:
    """The bytes that a text like 4GB, 1.5 GiB, 500M or 0 stands for.

    Raises:
        ValueError: It is no size.
    """
    match = _SIZE.fullmatch(text.strip().upper())
    if match is None or (match[3] and not match[2]):
        raise ValueError(f"{text!r} is no size like 4GB, 500MB or 0")
    power = " KMGT".index(match[2] or " ")
    return int(float(match[1]) * (1024 if match[3] else 1000) ** power)
