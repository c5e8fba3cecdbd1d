"""Conversations about a video, as models are trained on: what their first turn asks.

The layouts: LLaVA and ShareGPT (`conversations` of {"from": "human", "value"}), LLaMA-Factory
(either of the two lists with `videos` beside it), and the `messages` of Qwen with parts of the
type "video".
"""

import re
from dataclasses import dataclass, field
from typing import Any

from pandacli.batch.formats.fields import (
    VIDEO,
    max_tokens,
    path_in,
    question_text,
    time_range,
    video_name,
    whole_text,
)
from pandacli.batch.formats.requests import local_path
from pandacli.batch.formats.strict import kind
from pandacli.batch.records import Record, RecordError

_LISTS = ("conversations", "messages")
_ROLES = {"human": "user", "gpt": "assistant", "model": "assistant", "bot": "assistant"}
_PLACE = re.compile(r"[ \t]*\n?<(?:video|image)>\n?[ \t]*")  # LLaVA-Video writes <image> for both
_SHOWN = 80


def is_conversation(fields: dict[str, Any]) -> bool:
    """Whether an entry is a conversation, and not a question beside one."""
    return "question" not in fields and any(isinstance(fields.get(n), list) for n in _LISTS)


def first_turn(fields: dict[str, Any], line: int) -> Record:
    """The question of the first turn; later turns depend on answers, and are not asked.

    Args:
        fields: The entry.
        line: Where it stands.

    Raises:
        RecordError: There is no question in it, or not one video.
    """
    said = _heard(fields)
    if said.question is None:
        raise RecordError(f"the {_list_of(fields)} have no turn of a user")
    if len(said.videos) != 1:
        raise RecordError(f"the {_list_of(fields)} have {len(said.videos) or 'no'} videos, not one")
    question = question_text(_PLACE.sub("\n", said.question).strip(), _list_of(fields))
    system = said.system if isinstance(said.system, str) else None
    start, end = time_range(fields)
    return Record(
        line,
        fields,
        video_name(local_path(said.videos[0])),
        question,
        start,
        end,
        whole_text(system, "system") or None if system is not None else None,
        max_tokens(fields, "max_tokens"),
    )


def right_answer(fields: dict[str, Any]) -> str | None:
    """What the conversation says to the first question; None where it says nothing."""
    try:
        return _heard(fields).answer
    except RecordError:
        return None


def turns(fields: dict[str, Any]) -> int:
    """How many questions a conversation has."""
    try:
        return _heard(fields).turns
    except RecordError:
        return 0


@dataclass
class _Heard:
    """What a conversation says, as far as it is of use."""

    videos: list[str] = field(default_factory=list)
    system: Any = None
    question: str | None = None
    answer: str | None = None
    turns: int = 0


def _heard(fields: dict[str, Any]) -> _Heard:
    said = _Heard(_videos_beside(fields), fields.get("system"))
    for message in fields[_list_of(fields)]:
        if not isinstance(message, dict):
            raise RecordError(f"a message is {kind(message)}, not an object")
        written = message.get("role", message.get("from"))
        role = _ROLES.get(str(written), written)
        text, videos = _parts(message.get("content", message.get("value")))
        said.videos += [video for video in videos if video not in said.videos]
        if role == "system":
            said.system = text
        elif role == "user":
            said.turns += 1
            said.question = text if said.question is None else said.question
        elif role == "assistant":
            said.answer = text if said.turns == 1 and said.answer is None else said.answer
        else:
            raise RecordError(f"a message has the role {str(role)[:_SHOWN]!r}, not user or system")
    return said


def _list_of(fields: dict[str, Any]) -> str:
    return next(name for name in _LISTS if isinstance(fields.get(name), list))


def _videos_beside(fields: dict[str, Any]) -> list[str]:
    name = next((name for name in VIDEO if isinstance(fields.get(name), str | list | dict)), None)
    found = fields.get("videos") or fields.get(name or "video") or []
    paths = [path_in(each) for each in (found if isinstance(found, list) else [found])]
    videos = [path for path in paths if path is not None]
    if len(videos) < len(paths):
        raise RecordError("the videos beside the messages are not a list of files")
    return videos


def _parts(content: Any) -> tuple[str, list[str]]:
    """The text of a message, and the videos in it."""
    if isinstance(content, str):
        return content, []
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise RecordError(f"a message has {_article(content)} for its content")
    texts, videos = [], []
    for part in content:
        which = part.get("type", next(iter(part), ""))
        value = part.get(which)
        if which == "text" and isinstance(value, str):
            texts.append(value)
        elif which in ("video", "video_url"):
            value = value.get("url") if isinstance(value, dict) else value
            if not isinstance(value, str):
                raise RecordError("a video in the messages is not a file")
            videos.append(value)
        else:
            raise RecordError(f"a message has a part of the type {str(which)[:_SHOWN]!r}")
    return "\n".join(texts), videos


def _article(content: Any) -> str:
    return "a list of no parts" if isinstance(content, list) else kind(content)
