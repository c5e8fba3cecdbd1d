"""Format and parse sizes in bytes."""

import re

_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,18})?) *([KMGT]?)(I?)B?", re.ASCII)


def size(count: float) -> str:
    """Format a number of bytes in the unit that fits it."""
    for unit in ("bytes", "kB", "MB"):
        if round(count) < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:,.1f} GB"


def byte_count(text: str) -> int:
    """Parse a size such as 4GB, 1.5 GiB, 500M or 0 into bytes; a ValueError for other text."""
    match = _SIZE.fullmatch(text.strip().upper())
    if match is None or (match[3] and not match[2]):
        raise ValueError(f"{text!r} is no size like 4GB, 500MB or 0")
    power = " KMGT".index(match[2] or " ")
    return int(float(match[1]) * (1024 if match[3] else 1000) ** power)
