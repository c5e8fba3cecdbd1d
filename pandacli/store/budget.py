"""How much of the disk the prefix cache may take."""

import os

from pandacli.errors import UsageError
from pandacli.units import byte_count

VARIABLE = "PANDA_CACHE_SIZE"
BUDGET = 4_000_000_000
"""The most bytes that all entries take together, where nothing else is said."""


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
