"""Questions in one object with a name for each video, as those of the Perception Test."""

import json
from typing import Any

from pandacli.batch.readers.fields import QUESTION
from pandacli.batch.readers.source import Source

_MOST_BYTES = 256 * 2**20  # held in memory, unlike other layouts
_MULTIPLE_CHOICE = "mc_question"  # the Perception Test has tasks with boxes and moments, too


def questions_by_video(source: Source) -> list[dict[str, Any]]:
    """The questions, each with its `video`; none where the file is something else."""
    text = source.at(source.start, _MOST_BYTES + 1)
    if len(text) > _MOST_BYTES:
        return []
    try:
        value = json.loads(text.decode())
    except (ValueError, RecursionError):
        return []
    if not isinstance(value, dict):
        return []
    return [
        {"video": video} | question for video, held in value.items() for question in _asked(held)
    ]


def _asked(held: Any) -> list[dict[str, Any]]:
    if isinstance(held, dict) and _is_question(held):
        return [held]
    if isinstance(held, dict):
        lists = [held.get(_MULTIPLE_CHOICE), *held.values()]
        held = next((each for each in lists if isinstance(each, list) and _some(each)), [])
    return _some(held) if isinstance(held, list) else []


def _some(entries: list[Any]) -> list[dict[str, Any]]:
    return [entry for entry in entries if _is_question(entry)]


def _is_question(entry: Any) -> bool:
    return isinstance(entry, dict) and any(isinstance(entry.get(name), str) for name in QUESTION)
