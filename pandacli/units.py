"""Numbers of bytes as people write them, and back."""

import re

_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,18})?) *([KMGT]?)(I?)B?", re.ASCII)


def size(count: float) -> str:
    """A number of bytes in the unit that fits it."""
    for unit in ("bytes", "kB", "MB"):
        if round(count) < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:,.1f} GB"


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
