"""What took long to find out, kept in small JSON files under `PANDA_HOME`.

Losing such a file costs time and nothing else, so trouble with it is no error.
"""

import json
from collections.abc import Collection
from contextlib import suppress
from typing import Any

from pandacli.small_files import read_object
from pandacli.store.durable import write_text
from pandacli.store.places import home


def recall(name: str) -> dict[str, Any]:
    """All that is remembered under a name; nothing where the file is missing or damaged."""
    try:
        return read_object(home() / f"{name}.json")
    except (OSError, ValueError):
        return {}


def remember(name: str, key: str, value: Any) -> None:
    """Keep a value under a name; where nothing can be written, it is found out again next time."""
    _write(name, recall(name) | {key: value})


def forget(name: str, keys: Collection[str]) -> None:
    """Drop values that are kept under a name."""
    known = recall(name)
    kept = {key: value for key, value in known.items() if key not in keys}
    if kept != known:
        _write(name, kept)


def _write(name: str, values: dict[str, Any]) -> None:
    file = home() / f"{name}.json"
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(values, indent=1) + "\n")
